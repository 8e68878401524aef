"""Learning curves from TensorBoard's event files."""

import glob
import os
from typing import Dict, NamedTuple

import numpy as np

from lm_human_preferences.graph.tf_versions import tf


class Curve(NamedTuple):
    """A scalar over the steps of a run."""

    steps: np.ndarray  # [n], rising
    values: np.ndarray  # [n]


def read_curves(folder: str) -> Dict[str, Curve]:
    """The scalars of a folder's event files by their tags; none where there is no such folder.

    A run that was stopped and resumed wrote some steps twice, in two files: what a later file has from its first step
    on takes the place of all that was there.
    """
    found: Dict[str, Dict[int, float]] = {}
    for path in sorted(glob.glob(os.path.join(glob.escape(folder), 'events.out.tfevents.*'))):
        in_file: Dict[str, Dict[int, float]] = {}
        try:
            for event in tf.train.summary_iterator(path):
                for value in event.summary.value:
                    if value.HasField('simple_value'):
                        in_file.setdefault(value.tag, {})[event.step] = value.simple_value
        except tf.errors.DataLossError:
            pass  # a run that is still writing, or was killed, leaves half an event at the end
        for tag, points in in_file.items():
            first = min(points)
            earlier = {step: value for step, value in found.get(tag, {}).items() if step < first}
            found[tag] = {**earlier, **points}
    return {
        tag: Curve(np.array(sorted(points)), np.array([points[step] for step in sorted(points)], float))
        for tag, points in found.items()
    }
