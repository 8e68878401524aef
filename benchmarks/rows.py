"""What the row scripts of `peers.py` share: model sizes, flags, and the timing of phases.

This module needs neither TensorFlow nor PyTorch. The scripts print one line of JSON: `seconds` (the median of each
phase, and of all of them together: `step`), `processor` (the same in processor seconds), `peak_gigabytes` (largest
resident memory, in 2³⁰ bytes), and `batch_checksum` (the checksum of the batch).
"""

import argparse
import json
import resource
import statistics
import time
from typing import Callable, Dict, Tuple

import ragged

SIZES = {  # of GPT-2, by number of parameters; `tiny` is for trying a benchmark
    'tiny': dict(n_vocab=512, n_ctx=128, n_embd=64, n_head=4, n_layer=2),
    '124M': dict(n_embd=768, n_head=12, n_layer=12),
    '355M': dict(n_embd=1024, n_head=16, n_layer=24),
    '774M': dict(n_embd=1280, n_head=20, n_layer=36),
    '1558M': dict(n_embd=1600, n_head=25, n_layer=48),
}


class Parser(argparse.ArgumentParser):
    """A parser that refuses a wrong flag in one line."""

    def error(self, message):
        self.exit(2, f'error: {message}\n')


def row_parser(description: str) -> Parser:
    """Return the flags of a row's script."""
    flags = Parser(description=description.splitlines()[0])
    flags.add_argument('--model', choices=sorted(SIZES), default='124M')
    for name, value in dict(batch=8, query=64, response=24, epochs=4, repeats=3).items():
        flags.add_argument('--' + name, type=int, default=value)
    ragged.add_share(flags)
    flags.add_argument('--phases', nargs='+', help='phases to time; the phases before them run too')
    return flags


def time_call(run: Callable[[], object]) -> Tuple[float, float]:
    """Return the seconds that a call took, and those that this process spent on the cores meanwhile."""
    start = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - start[0], time.process_time() - start[1]


def time_phases(phases: Dict[str, Callable[[], None]], flags: argparse.Namespace, checksum: int) -> None:
    """Run the phases of a step in order, once to warm up, then `flags.repeats` times; print the medians as JSON."""
    timed = flags.phases or list(phases)
    while list(phases)[-1] not in timed:
        phases.popitem()
    times = {name: [] for name in phases}
    for repeat in range(1 + flags.repeats):
        for name, phase in phases.items():
            spent = time_call(phase)
            if repeat:
                times[name].append(spent)
    figures = [{}, {}]
    for clock, medians in enumerate(figures):
        measured = [[spent[clock] for spent in times[name]] for name in timed]
        medians.update(zip(timed, map(statistics.median, measured)))
        medians['step'] = statistics.median(map(sum, zip(*measured)))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    print(json.dumps(dict(seconds=figures[0], processor=figures[1], peak_gigabytes=memory, batch_checksum=checksum)))
