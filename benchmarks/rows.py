"""What the rows of `peers.py` share, their flags and how phases are timed; needs neither TensorFlow nor PyTorch."""

import argparse
import json
import resource
import statistics
import time
from typing import Callable, Dict, Sequence


def row_parser(description: str, models: Sequence[str]) -> argparse.ArgumentParser:
    """Flags of a row's script, which can have these `models`."""
    flags = argparse.ArgumentParser(description=description.splitlines()[0])
    flags.add_argument('--model', choices=sorted(models), default='124M')
    for name, value in dict(batch=8, query=64, response=24, epochs=4, repeats=3).items():
        flags.add_argument('--' + name, type=int, default=value)
    flags.add_argument('--phases', nargs='+', help='to be timed; those before them run too')
    return flags


def time_phases(phases: Dict[str, Callable[[], None]], flags: argparse.Namespace) -> None:
    """Run a step's phases in order, `flags.repeats` times after one for warming up, and print their medians as JSON."""
    asked = flags.phases or list(phases)
    while list(phases)[-1] not in asked:
        phases.popitem()
    times = {name: [] for name in phases}
    for repeat in range(1 + flags.repeats):
        for name, phase in phases.items():
            start = time.perf_counter()
            phase()
            if repeat:
                times[name].append(time.perf_counter() - start)
    times = {name: times[name] for name in asked}
    step = statistics.median(sum(parts) for parts in zip(*times.values()))
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    medians = {name: statistics.median(measured) for name, measured in times.items()}
    print(json.dumps(dict(phases=medians, step=step, peak_gigabytes=memory)))
