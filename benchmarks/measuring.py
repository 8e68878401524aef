"""What every benchmark needs: model sizes, the arithmetic of a pass, time, memory, a table and a JSON line."""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
import time
from typing import Callable, Dict, List, Optional, Sequence

# The package that is measured is this checkout's, or another's.
sys.path.insert(0, os.environ.get('CHECKOUT', os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.mpi.ranks import Ranks

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(FOLDER)

SIZES = {
    'tiny': dict(n_vocab=512, n_ctx=128, n_embd=64, n_head=4, n_layer=2),
    '124M': dict(n_embd=768, n_head=12, n_layer=12),
    '355M': dict(n_embd=1024, n_head=16, n_layer=24),
    '774M': dict(n_embd=1280, n_head=20, n_layer=36),
    '1558M': dict(n_embd=1600, n_head=25, n_layer=48),
}
PHASES = ('sample', 'reference', 'score', 'train')  # of a PPO step


def model_size(name: str) -> ModelHParams:
    """The hyperparameters of a GPT-2 by its number of parameters; `tiny` is for trying a benchmark out."""
    return ModelHParams(**SIZES[name])


def parser(description: str, **defaults) -> argparse.ArgumentParser:
    """Flags that benchmarks share; `defaults` of batch and repeats, and of ranks where there may be several."""
    flags = argparse.ArgumentParser(description=description.splitlines()[0])
    flags.add_argument('--model', default='124M', choices=sorted(SIZES))
    flags.add_argument('--batch', type=int, default=defaults.get('batch', 8), help='sequences, or labels')
    flags.add_argument('--query', type=int, default=64, help='tokens of a query')
    flags.add_argument('--response', type=int, default=24, help='tokens of a response')
    flags.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    flags.add_argument('--repeats', type=int, default=defaults.get('repeats', 3), help='timed after one warm-up')
    flags.add_argument('--json', action='store_true', help='print one JSON line after the table')
    if 'ranks' in defaults:
        flags.add_argument('--ranks', type=int, default=defaults['ranks'], help='processes that share batch and cores')
    return flags


def start_ranks(number: int) -> Ranks:
    """The ranks of this script, the first of which prints.

    The process that the user started has mpiexec start it anew, `number` times, and ends with that.
    """
    ranks = Ranks()
    if ranks.size == number:
        if not ranks.is_first:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ranks
    if ranks.size > 1 or 'BENCHMARK_RANKS' in os.environ:  # never start any from within them
        sys.exit(f'error: mpiexec has started {ranks.size} ranks that see each other, where --ranks is {number}')
    from lm_human_preferences.launcher import mpiexec

    command = [*mpiexec.ranks_of(number), sys.executable, *sys.argv]
    with mpiexec.session() as environment:
        environment['BENCHMARK_RANKS'] = str(number)
        sys.exit(subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode)


def figures_of(script: str, *arguments: str, python: str = sys.executable, checkout: str = ROOT) -> Dict[str, object]:
    """What a benchmark of this folder prints as its last line, a process of its own that measures a checkout."""
    done = subprocess.run(
        [python, os.path.join(FOLDER, script), *arguments],
        capture_output=True,
        env=dict(os.environ, CHECKOUT=os.path.abspath(checkout)),
    )
    if done.returncode:
        sys.exit(f'{done.stderr.decode()}error: {script} failed in {checkout}')
    return json.loads(done.stdout.decode().splitlines()[-1])


def forward_flops(hparams: ModelHParams, sequences: int, tokens: int, logits: int = 0) -> float:
    """Floating-point operations of the matrix products of one forward pass.

    Args:
      tokens: of each sequence; every one goes through all blocks and attends to all before it.
      logits: positions of each sequence at which logits are computed.
    """
    width = hparams.n_embd
    blocks = hparams.n_layer * tokens * (24 * width**2 + 2 * width * (tokens + 1))
    return float(sequences * (blocks + logits * 2 * width * hparams.n_vocab))


def seconds(run: Callable[[], object], repeats: int, warm_up: int = 1, ranks: Optional[Ranks] = None) -> float:
    """The median time of `repeats` calls, after `warm_up` untimed ones; of several ranks until all are done."""
    wait_for_all = ranks.wait_for_all if ranks else lambda: None
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        wait_for_all()
        start = time.perf_counter()
        run()
        wait_for_all()
        times.append(time.perf_counter() - start)
    return statistics.median(times)


def peak_gigabytes() -> float:
    """The largest resident size of this process so far."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == 'darwin' else 2**20)


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print rows under their columns as a Markdown table; numbers to three digits."""
    cells = [[_text(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    lines: List[Sequence[str]] = [columns, ['-' * width for width in widths]] + cells
    for line in lines:
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |', flush=True)


def json_line(figures: Dict[str, object]) -> None:
    """Print one line of JSON."""
    print(json.dumps(figures, sort_keys=True), flush=True)


def _text(cell):
    return (
        f'{cell:.3g}'
        if isinstance(cell, float) and abs(cell) < 1000
        else f'{cell:.0f}'
        if isinstance(cell, float)
        else str(cell)
    )
