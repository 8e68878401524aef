"""Statistics of a run: as TensorBoard's event files, as lines of JSON, and as lines on the terminal."""

import contextlib
import os
import re
import time
from typing import Callable, Dict, Iterator, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.tf_versions import tf, what_failed
from lm_human_preferences.runs.statistics import StatisticsFile
from lm_human_preferences.utils.errors import UserError

HISTOGRAM_BINS = 30
_EVENT_FILE = re.compile(r'(events\.out\.tfevents\.)([0-9]+)(.*)', re.DOTALL)  # prefix, seconds since 1970, host


class SummaryWriter:
    """Write statistics to a new event file in `folder`, and to its `statistics.jsonl`; nothing if `folder` is None.

    Each process of a run writes its own file, by `tf.summary.FileWriter`. The file begins with a session log that
    marks a start at `first_step`: readers then discard what earlier files hold of this step and later ones, since the
    run repeats these steps. Each write is flushed, so that a killed process loses nothing.

    The FileWriter runs in a small session of its own: only then do TensorFlow 1.13 and 2 both report a full disk as an
    exception. (Without a session, 1.13 loses the events silently, and 2 prints a traceback from another thread.)
    Create the SummaryWriter after the session that trains: the first session of a process sets its number of threads.

    Attributes:
      last: the statistics of the last step, by their tags.
    """

    def __init__(self, folder: Optional[str], first_step: int = 0, on_step: Optional[Callable[[], None]] = None):
        """UserError if the folder cannot be written. `on_step` is called when statistics are there."""
        self._folder = folder
        self._on_step = on_step
        self._writer = None
        self.last: Dict[str, float] = {}
        self._last_step: Optional[int] = None
        if not folder:
            return
        with self._errors_in_one_line():
            os.makedirs(folder, exist_ok=True)
            self._statistics = StatisticsFile(folder, first_step)
            _make_the_next_name_last(folder)
            self._session = tf.Session(graph=tf.Graph(), config=tf.ConfigProto(device_count={'GPU': 0}))
            self._writer = tf.summary.FileWriter(folder, session=self._session)
        self._add(first_step, session_log=tf.SessionLog(status=tf.SessionLog.START))

    def write(self, stats: Dict[str, float], step: int) -> None:
        """Write each number under its tag. UserError if the disk is full."""
        stats = {tag: float(value) for tag, value in stats.items()}
        self.last = {**(self.last if step == self._last_step else {}), **stats}
        self._last_step = step
        if self._writer is None:
            return
        with self._errors_in_one_line():
            self._statistics.write(stats, step)
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(stats.items())]
        self._add(step, summary=tf.Summary(value=values))
        if self._on_step:
            self._on_step()

    def write_texts(self, tag: str, texts: Sequence[str], step: int) -> None:
        """Write texts, which TensorBoard shows as Markdown, one below the other. UserError if the disk is full."""
        if self._writer is None:
            return
        plugin = tf.SummaryMetadata.PluginData(plugin_name='text')
        tensor = tf.make_tensor_proto([text.encode('utf-8') for text in texts], tf.string)
        value = tf.Summary.Value(tag=tag, metadata=tf.SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._add(step, summary=tf.Summary(value=[value]))

    def write_histogram(self, tag: str, values: np.ndarray, step: int) -> None:
        """Write a histogram of the finite entries of `values`, an array of any shape. UserError if the disk is full."""
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
        self._add(step, summary=tf.Summary(value=[tf.Summary.Value(tag=tag, histo=histogram)]))

    def close(self) -> None:
        """Close the event file. UserError if the disk is full."""
        if self._writer is not None:
            with self._errors_in_one_line():
                self._writer.close()
                self._statistics.close()
            self._session.close()

    def _add(self, step, **content):
        """Write one event and flush it."""
        with self._errors_in_one_line():
            self._writer.add_event(tf.Event(wall_time=time.time(), step=step, **content))
            self._writer.flush()

    @contextlib.contextmanager
    def _errors_in_one_line(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else what_failed(error)
            raise UserError(
                f'cannot write statistics to {self._folder}: {reason}; '
                'free some space, and the same command resumes from the last checkpoint'
            ) from error


def _make_the_next_name_last(folder: str) -> None:
    """See to it that the name of a new event file comes after all names in `folder`.

    Readers take event files in the order of their names, which begin with the second of the start. What follows is in
    no order (the host, and in TensorFlow 2 the process). So a start in the second of another one waits for the next
    second: at most two. Files that a clock further ahead of ours has named are renamed, the oldest first: if this is
    interrupted, the order is still right. No file gets a name that another one had, as an open reader would miss it.
    """
    names = sorted(name for name in os.listdir(folder) if _EVENT_FILE.match(name))
    if not names:
        return
    starts = [_EVENT_FILE.match(name).groups() for name in names]
    newest = int(starts[-1][1])
    if newest <= time.time() + 1:
        time.sleep(max(0, newest + 1 - time.time()))
        return
    now = int(time.time())
    for number, (prefix, second, rest) in enumerate(starts):
        latest = now - (len(names) - number)
        if int(second) > latest:
            os.rename(os.path.join(folder, names[number]), os.path.join(folder, f'{prefix}{latest:010d}{rest}'))


def brief(stats: Dict[str, float], tags: Sequence[str]) -> str:
    """Return one line with the chosen statistics, named by the last part of their tags."""
    return '  '.join(f'{tag.split("/")[-1]} {stats[tag]:.4g}' for tag in tags if tag in stats)
