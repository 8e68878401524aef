"""Load the data of runs for a report, and group the runs that differ only in their seed."""

import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

import numpy as np

from lm_human_preferences.reporting.charts import Line
from lm_human_preferences.reporting.event_files import Curve, read_curves
from lm_human_preferences.runs.results import read_results
from lm_human_preferences.runs.run_folder import (
    EVENT_FOLDERS,
    EVENTS,
    HELD_OUT_SAMPLES_FILE,
    ONLINE,
    SAMPLES_FILE,
    command_of,
    hparams_file,
    short_names,
)
from lm_human_preferences.runs.samples import read_samples
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.text import shared

_OLDER_TAGS = {'correlation': 'corr'}


class RunData(NamedTuple):
    """The data of one run."""

    name: str
    command: str
    hparams: Dict[str, str]  # by dotted name
    curves: Dict[str, Dict[str, Curve]]  # event folder → tag → curve
    results: Dict[str, Any]  # of its evaluations (runs/results.py)
    samples: List[Dict[str, Any]]
    held_out: bool  # whether the samples come from an evaluation on held-out queries


class Group(NamedTuple):
    """Runs that differ only in their seed; a chart shows them as one line with a band."""

    name: str
    color: int
    runs: List[RunData]

    def line(self, folder: str, tag: str) -> List[Line]:
        """Return the group's line in the chart of a tag; [] if no run has the tag.

        The line is the curve of a single run, or the mean of several runs with a band from their minimum to their
        maximum.
        """
        curves = [run.curves[folder][tag] for run in self.runs if tag in run.curves[folder]]
        if len(curves) < 2:
            return [Line(self.color, curve.steps, curve.values) for curve in curves]
        last = min(curve.steps[-1] for curve in curves)
        steps = curves[0].steps[curves[0].steps <= last]
        values = np.array([np.interp(steps, curve.steps, curve.values) for curve in curves])
        return [Line(self.color, steps, values.mean(axis=0), values.min(axis=0), values.max(axis=0))]


def find_runs(folders: Sequence[str]) -> List[RunData]:
    """Load the runs in folders; each is the folder of a run, or holds such folders as that of a sweep does.

    FileNotFoundError for a folder without a run.
    """
    found = []
    for folder in folders:
        below = list(_runs_below(os.path.abspath(os.path.expanduser(folder))))
        if not below:
            raise FileNotFoundError(
                f'{folder}: no run there: it has no file such as {hparams_file("", "train_policy")}'
            )
        found += below
    return [_load(path, name) for path, name in zip(found, short_names(found))]


def group_by_seed(runs: Sequence[RunData]) -> List[Group]:
    """Group the runs that differ only in seeds and folders."""
    groups: Dict[str, List[RunData]] = {}
    for run in runs:
        same = {name: value for name, value in run.hparams.items() if not name.endswith(('run.seed', 'run.save_dir'))}
        groups.setdefault(json.dumps([run.command, same], sort_keys=True), []).append(run)
    return [Group(_group_name(members), color, members) for color, members in enumerate(groups.values())]


def differing(runs: Sequence[RunData]) -> List[str]:
    """Return the dotted names of the hyperparameters that differ between runs, without folders."""
    names = {name for run in runs for name in run.hparams if not name.endswith('run.save_dir')}
    return sorted(name for name in names if len({run.hparams.get(name) for run in runs}) > 1)


def _group_name(runs: Sequence[RunData]) -> str:
    if len(runs) == 1:
        return runs[0].name
    common = os.path.commonprefix([run.name for run in runs]).rstrip('-_/.')
    return f'{common or runs[0].name} ({len(runs)} seeds)'


def _runs_below(folder: str) -> Iterator[str]:
    """Yield the run folders in a folder, itself included.

    The folders of an online run's trainings belong to that run and are left out.
    """
    for path, names, _ in os.walk(folder):
        names.sort()
        if command_of(path):
            names[:] = [name for name in names if name != ONLINE]
            yield path


def _load(folder: str, name: str) -> RunData:
    command = command_of(folder)
    path = hparams_file(folder, command)
    hparams = read_json(path)
    if not isinstance(hparams, dict):
        raise ValueError(f'{path} should hold a JSON object, not {type(hparams).__name__}')
    held_out = read_samples(os.path.join(folder, HELD_OUT_SAMPLES_FILE))
    return RunData(
        name=name,
        command=command,
        hparams=_flat(shared(hparams)),
        curves={events: _curves(os.path.join(folder, EVENTS, events)) for events in EVENT_FOLDERS},
        results=shared(read_results(folder)),
        samples=held_out or read_samples(os.path.join(folder, SAMPLES_FILE)),
        held_out=bool(held_out),
    )


def _curves(folder: str) -> Dict[str, Curve]:
    """Return the curves of an event folder by their tags of today."""
    curves = read_curves(folder)
    return {_OLDER_TAGS.get(tag, tag): curve for tag, curve in curves.items()}


def _flat(nested: Dict[str, Any], prefix: str = '') -> Dict[str, str]:
    """Return nested hyperparameters as JSON text by dotted name."""
    flat = {}
    for key, value in nested.items():
        if isinstance(value, dict):
            flat.update(_flat(value, f'{prefix}{key}.'))
        else:
            flat[prefix + key] = json.dumps(value, ensure_ascii=False)
    return flat
