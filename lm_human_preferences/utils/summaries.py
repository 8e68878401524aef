"""Statistics of a run, as TensorBoard's event files and as lines on the terminal."""

from typing import Dict, Optional, Sequence

import numpy as np

from lm_human_preferences.utils.tf_versions import tf

HISTOGRAM_BINS = 30


class SummaryWriter:
    """Writes scalars to an event file in `folder`; to nothing when that is None."""

    def __init__(self, folder: Optional[str]):
        self._writer = tf.summary.FileWriter(folder) if folder else None

    def write(self, stats: Dict[str, float], step: int) -> None:
        """Record each number under its tag."""
        if self._writer is None:
            return
        values = [tf.Summary.Value(tag=tag, simple_value=value) for tag, value in sorted(stats.items())]
        self._writer.add_summary(tf.Summary(value=values), step)
        self._writer.flush()

    def write_texts(self, tag: str, texts: Sequence[str], step: int) -> None:
        """Record texts, which TensorBoard shows as Markdown, one below the other."""
        if self._writer is None:
            return
        plugin = tf.SummaryMetadata.PluginData(plugin_name='text')
        tensor = tf.make_tensor_proto([text.encode('utf-8') for text in texts], tf.string)
        value = tf.Summary.Value(tag=tag, metadata=tf.SummaryMetadata(plugin_data=plugin), tensor=tensor)
        self._writer.add_summary(tf.Summary(value=[value]), step)

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
        self._writer.add_summary(tf.Summary(value=[tf.Summary.Value(tag=tag, histo=histogram)]), step)

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def brief(stats: Dict[str, float], tags: Sequence[str]) -> str:
    """One line of the chosen statistics, named by the last part of their tags."""
    return '  '.join(f'{tag.split("/")[-1]} {stats[tag]:.4g}' for tag in tags if tag in stats)
