"""What the benchmarks share: model sizes, the arithmetic of a pass, time, memory, tables and JSON lines.

The scripts measure the package of this checkout. The environment variable CHECKOUT names another checkout.
"""

import argparse
import json
import os
import resource
import statistics
import subprocess
import sys
from typing import Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import ragged
from rows import SIZES, Parser, time_call

sys.path.insert(0, os.environ.get('CHECKOUT', os.path.dirname(os.path.dirname(os.path.abspath(__file__)))))

from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams
from lm_human_preferences.mpi.ranks import Ranks

FOLDER = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(FOLDER)

PHASES = ('sample', 'reference', 'score', 'train')  # of a PPO step


def model_size(name: str) -> ModelHParams:
    """Return the hyperparameters of a GPT-2 by its number of parameters; `tiny` is for trying a benchmark."""
    return ModelHParams(**SIZES[name])


def random_task(hparams: TaskHParams, model: ModelHParams):
    """Return a `Task` for random tokens of the model's vocabulary."""
    # Loaded here, since `startup.py` times these imports.
    from lm_human_preferences.language.encodings import test_encoding
    from lm_human_preferences.method.lm_tasks import Task

    task = Task(hparams, test_encoding())
    task.padding_token = model.n_vocab + 2
    return task


def parser(description: str, **defaults) -> argparse.ArgumentParser:
    """Return the flags that benchmarks share; `defaults` may have batch, repeats, ranks (else no --ranks), and real."""
    flags = Parser(description=description.splitlines()[0])
    flags.add_argument('--model', default='124M', choices=sorted(SIZES))
    flags.add_argument('--batch', type=int, default=defaults.get('batch', 8), help='number of sequences or labels')
    flags.add_argument('--query', type=int, default=64, help='tokens of a query')
    flags.add_argument('--response', type=int, default=24, help='tokens of a response')
    flags.add_argument('--dtype', default='float32', choices=['float32', 'bfloat16'])
    flags.add_argument('--repeats', type=int, default=defaults.get('repeats', 3), help='timed runs after one warm-up')
    flags.add_argument('--json', action='store_true', help='print one JSON line after the table')
    if 'real' in defaults:
        ragged.add_share(flags)
    if 'ranks' in defaults:
        flags.add_argument('--ranks', type=int, default=defaults['ranks'], help='processes that share batch and cores')
    return flags


def start_ranks(number: int) -> Ranks:
    """Return the ranks of this script; only the first rank prints.

    The process that the user started runs the script again under mpiexec, `number` times, and exits with its status.
    """
    ranks = Ranks()
    if ranks.size == number:
        if not ranks.is_first:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return ranks
    if ranks.size > 1 or 'BENCHMARK_RANKS' in os.environ:  # a rank never starts ranks
        sys.exit(f'error: mpiexec has started {ranks.size} ranks that see each other, where --ranks is {number}')
    from lm_human_preferences.launcher import mpiexec

    command = [*mpiexec.ranks_of(number), sys.executable, *sys.argv]
    with mpiexec.session() as environment:
        environment['BENCHMARK_RANKS'] = str(number)
        sys.exit(subprocess.run(command, env=environment, stdin=subprocess.DEVNULL).returncode)


def figures_of(script: str, *arguments: str, python: str = sys.executable, checkout: str = ROOT) -> Dict[str, object]:
    """Run a benchmark of this folder in its own process on a checkout; return its last line, which is JSON."""
    done = subprocess.run(
        [python, os.path.join(FOLDER, script), *arguments],
        capture_output=True,
        env=dict(os.environ, CHECKOUT=os.path.abspath(checkout)),
    )
    if done.returncode:
        sys.exit(f'{done.stderr.decode()}error: {script} failed in {checkout}')
    return json.loads(done.stdout.decode().splitlines()[-1])


def forward_flops(hparams: ModelHParams, sequences: int, tokens: int, logits: int = 0) -> float:
    """Return the floating-point operations of the matrix products of one forward pass.

    Args:
      tokens: tokens of each sequence; each goes through all blocks and attends to itself and all tokens before it.
      logits: positions of each sequence at which logits are computed.
    """
    width = hparams.n_embd
    blocks = hparams.n_layer * tokens * (24 * width**2 + 2 * width * (tokens + 1))
    return float(sequences * (blocks + logits * 2 * width * hparams.n_vocab))


def seconds(run: Callable[[], object], repeats: int, warm_up: int = 1, ranks: Optional[Ranks] = None) -> float:
    """Return the median seconds of `repeats` calls after `warm_up` untimed ones; a call lasts until all ranks end."""
    return wall_and_processor(run, repeats, warm_up, ranks)[0]


def wall_and_processor(
    run: Callable[[], object], repeats: int, warm_up: int = 1, ranks: Optional[Ranks] = None
) -> Tuple[float, float]:
    """Return the same as `seconds`, and the median seconds that this process spent on the cores."""
    wait_for_all = ranks.wait_for_all if ranks else lambda: None
    for _ in range(warm_up):
        run()
    times = []
    for _ in range(repeats):
        wait_for_all()
        times.append(time_call(lambda: (run(), wait_for_all())))
    wall, processor = zip(*times)
    return statistics.median(wall), statistics.median(processor)


def full_last(shares: Sequence[float]) -> List[float]:
    """Return different shares of real tokens, in order; the last is that of full rows."""
    return sorted({*shares, 1.0})


class Case(NamedTuple):
    """A phase on a batch with a share of real tokens."""

    real: float  # share of real tokens in what the phase reads
    flops: float  # necessary arithmetic
    run: Callable[[], object]


SHARE_COLUMNS = ['phase', 'real', 'seconds', 'processor s', 'of full rows', 'processor', 'arithmetic', 'real + 0.06']


def rows_by_share(name: str, cases: Sequence[Case], repeats: int) -> List[List[object]]:
    """Run a phase on batches with several shares of real tokens in turn, after one warm-up; return a row for each.

    Args:
      cases: the last is that of full rows.

    Returns:
      the cells of SHARE_COLUMNS: medians of wall and processor seconds; their median ratios to full rows in the same
      turn; the same ratio of the arithmetic; and the ratio to reach.
    """
    turns = []
    for _ in range(1 + repeats):
        turns.append([])
        for case in cases:
            turns[-1].append(time_call(case.run))
    spent = np.array(turns[1:])  # [turn, case, clock]
    medians, ratios = np.median(spent, axis=0), np.median(spent / spent[:, -1:], axis=0)
    return [
        [name, case.real, *map(float, [*medians[i], *ratios[i]]), case.flops / cases[-1].flops, case.real + 0.06]
        for i, case in enumerate(cases)
    ]


def peak_gigabytes() -> float:
    """Return the largest resident memory of this process so far, in 2³⁰ bytes."""
    kilobytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kilobytes / (2**30 if sys.platform == 'darwin' else 2**20)


def comparison(theirs: Sequence[float], ours: Sequence[float]) -> List[object]:
    """Return the cells of a comparison of paired times: median of each, median ratio theirs / ours, and its range."""
    ratios = [their / our for their, our in zip(theirs, ours)]
    spread = f'{min(ratios):.2f} to {max(ratios):.2f}'
    return [statistics.median(theirs), statistics.median(ours), statistics.median(ratios), spread]


def table(columns: Sequence[str], lines: Sequence[Sequence[object]]) -> None:
    """Print lines of cells as a Markdown table with headings `columns`; numbers have three digits."""
    cells = [[_text(cell) for cell in row] for row in lines]
    widths = [max(map(len, column)) for column in zip(columns, *cells)]
    for line in [columns, ['-' * width for width in widths], *cells]:
        print('| ' + ' | '.join(cell.ljust(width) for cell, width in zip(line, widths)) + ' |', flush=True)


def json_line(figures: Dict[str, object]) -> None:
    """Print one line of JSON."""
    print(json.dumps(figures, sort_keys=True), flush=True)


def _text(cell: object) -> str:
    if not isinstance(cell, float):
        return str(cell)
    return f'{cell:.3g}' if abs(cell) < 1000 else f'{cell:.0f}'
