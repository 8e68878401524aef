"""Learning curves from TensorBoard's event files."""

import glob
import itertools
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
    """Yield the events of one file, without damaged ones, or half a one that a killed process left at its end."""
    count = 0
    try:
        for event in tf.train.summary_iterator(path):
            yield event
            count += 1
    except tf.errors.DataLossError:
        yield from itertools.islice(_sound_events(path), count, None)


def _sound_events(path: str) -> Iterator[tf.Event]:
    """Yield the events with a right checksum. A wrong length hides what follows it; a wrong event hides itself.

    A record is the length of its content (8 bytes, little-endian), the checksum of that (4 bytes), the content, and the
    checksum of the content.
    """
    with open(path, 'rb') as file:
        while True:
            head = file.read(12)
            if len(head) < 12 or _masked_crc32c(head[:8]) != head[8:]:
                return
            content, checksum = file.read(int.from_bytes(head[:8], 'little')), file.read(4)
            if _masked_crc32c(content) == checksum:
                yield tf.Event.FromString(content)


def _masked_crc32c(content: bytes) -> bytes:
    """Return TensorFlow's form of the CRC-32C of some bytes."""
    import google_crc32c

    value = google_crc32c.value(content)
    return (((value >> 15 | value << 17) + 0xA282EAD8) & 0xFFFFFFFF).to_bytes(4, 'little')


def _discard_from(points: List[Tuple[int, float]], step: int) -> None:
    """Remove the points of `step` and later ones."""
    while points and points[-1][0] >= step:
        points.pop()
