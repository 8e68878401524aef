"""Learning curves from TensorBoard's event files."""

import glob
import os
from typing import Dict, Iterator, List, NamedTuple, Tuple

import numpy as np

from lm_human_preferences.graph.tf_versions import tf


class Curve(NamedTuple):
    """A scalar over the steps of a run."""

    steps: np.ndarray  # [n], rising
    values: np.ndarray  # [n]


def read_curves(folder: str) -> Dict[str, Curve]:
    """Return the scalars in a folder's event files by their tags; none if there is no such folder.

    A resumed run repeats the steps after its last checkpoint. As in TensorBoard, a session log that marks a start at
    step S discards all earlier values of steps S and later. In files without session logs, a value of step S discards
    the earlier values of its own tag in the same way.
    """
    found: Dict[str, List[Tuple[int, float]]] = {}  # by tag, in the order of the steps
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'events.out.tfevents.*'))):
        for event in _events(path):
            if event.session_log.status == tf.SessionLog.START:
                for points in found.values():
                    _discard_from(points, event.step)
            for value in event.summary.value:
                if value.HasField('simple_value'):
                    points = found.setdefault(value.tag, [])
                    _discard_from(points, event.step)
                    points.append((event.step, value.simple_value))
    columns = {tag: zip(*points) for tag, points in found.items() if points}
    return {tag: Curve(np.array(steps), np.array(values)) for tag, (steps, values) in columns.items()}


def _events(path: str) -> Iterator[tf.Event]:
    """Yield the events of one file, without half an event that a killed process may have left at its end."""
    try:
        yield from tf.train.summary_iterator(path)
    except tf.errors.DataLossError:
        return


def _discard_from(points: List[Tuple[int, float]], step: int) -> None:
    """Remove the points of `step` and later ones."""
    while points and points[-1][0] >= step:
        points.pop()
