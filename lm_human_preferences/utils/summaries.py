"""Statistics of a run, as TensorBoard's event files and as lines on the terminal."""

from typing import Dict, Optional, Sequence

from lm_human_preferences.utils.tf_versions import tf


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

    def close(self) -> None:
        if self._writer is not None:
            self._writer.close()


def brief(stats: Dict[str, float], tags: Sequence[str]) -> str:
    """One line of the chosen statistics, named by the last part of their tags."""
    return '  '.join(f'{tag.split("/")[-1]} {stats[tag]:.4g}' for tag in tags if tag in stats)
