"""Statistics of a run, as TensorBoard's event files and as lines on the terminal."""

import contextlib
import glob
import os
import re
import socket
import struct
import time
from typing import Dict, Iterator, Optional, Sequence

import google_crc32c
import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.utils.errors import UserError

HISTOGRAM_BINS = 30
_PREFIX = 'events.out.tfevents.'


class SummaryWriter:
    """Writes scalars to the one event file of `folder`; to nothing when that is None.

    A run that goes on at `first_step` keeps what is there of earlier steps, and drops later ones: it will reach them
    again. The kept ones are copied to a new file that replaces the old one as a whole, under a later name, which is
    what a TensorBoard that has the folder open looks for.
    """

    def __init__(self, folder: Optional[str], first_step: int = 0):
        self._folder = folder
        self._writer = None
        if not folder:
            return
        os.makedirs(folder, exist_ok=True)
        for partial in glob.glob(os.path.join(glob.escape(folder), '.*.partial')):
            os.unlink(partial)
        old = sorted(name for name in os.listdir(folder) if name.startswith(_PREFIX))
        stamp = int(time.time())
        if old:
            stamp = max(stamp, int(re.match(r'[0-9]*', old[-1][len(_PREFIX) :]).group() or 0) + 1)
        name = f'{_PREFIX}{stamp:010d}.{socket.gethostname()}'
        partial = os.path.join(folder, f'.{name}.partial')
        with self._full_disk_told():
            self._writer = open(partial, 'wb')  # noqa: SIM115
            self._add(file_version='brain.Event:2')
            # Tells a TensorBoard that has read the old file to forget it.
            self._add(session_log=tf.SessionLog(status=tf.SessionLog.START))
            if old:  # the last holds all before it
                for event in _statistics(os.path.join(folder, old[-1])):
                    if event.step < first_step:
                        self._writer.write(_record(event))
            self._writer.flush()
        os.replace(partial, os.path.join(folder, name))
        for before in old:
            os.unlink(os.path.join(folder, before))

    def write(self, stats: Dict[str, float], step: int) -> None:
        """Record each number under its tag. UserError where the disk is full."""
        if self._writer is None:
            return
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(stats.items())]
        self._write(values, step)

    def write_texts(self, tag: str, texts: Sequence[str], step: int) -> None:
        """Record texts, which TensorBoard shows as Markdown, one below the other."""
        if self._writer is None:
            return
        plugin = tf.SummaryMetadata.PluginData(plugin_name='text')
        tensor = tf.make_tensor_proto([text.encode('utf-8') for text in texts], tf.string)
        value = tf.Summary.Value(tag=tag, metadata=tf.SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._write([value], step)

    def write_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Record how the finite ones of `values` are spread."""
        values = np.asarray(values, np.float64)[np.isfinite(values)]
        if self._writer is None or not len(values):
            return
        counts, edges = np.histogram(values, bins=HISTOGRAM_BINS)
        histogram = tf.HistogramProto(
            min=values.min(),
            max=values.max(),
            num=len(values),
            sum=values.sum(),
            sum_squares=(values**2).sum(),
            bucket_limit=edges[1:],
            bucket=counts,
        )
        self._write([tf.Summary.Value(tag=tag, histo=histogram)], step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()

    def _write(self, values, step):
        with self._full_disk_told():
            self._add(step=step, summary=tf.Summary(value=values))
            self._writer.flush()

    def _add(self, **event):
        self._writer.write(_record(tf.Event(wall_time=time.time(), **event)))

    @contextlib.contextmanager
    def _full_disk_told(self):
        try:
            yield
        except OSError as error:
            raise UserError(
                f'cannot write statistics to {self._folder}: {error.strerror}; '
                'make room, and the same command goes on from the last checkpoint'
            ) from error


def _record(event: tf.Event) -> bytes:
    """An event as TensorFlow's record files hold it. (TensorFlow 1.13's own writer keeps records back from a flush.)"""
    data = event.SerializeToString()
    length = struct.pack('<Q', len(data))
    return length + _masked_crc(length) + data + _masked_crc(data)


def _masked_crc(data: bytes) -> bytes:
    crc = google_crc32c.value(data)
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _statistics(path: str) -> Iterator[tf.Event]:
    """The statistics in an event file, up to where its writer was killed."""
    try:
        for record in tf.io.tf_record_iterator(path):
            event = tf.Event.FromString(record)
            if event.HasField('summary'):
                yield event
    except tf.errors.DataLossError:
        return


def brief(stats: Dict[str, float], tags: Sequence[str]) -> str:
    """One line of the chosen statistics, named by the last part of their tags."""
    return '  '.join(f'{tag.split("/")[-1]} {stats[tag]:.4g}' for tag in tags if tag in stats)
