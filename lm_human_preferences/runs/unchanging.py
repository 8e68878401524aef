"""Write variables that do not change once, for many checkpoints.

TensorFlow's checkpoints may have several data files beside one index. Here the second one has the variables that do not
change. It is a hard link to the data file of the checkpoint before, so it takes neither time nor space. Each checkpoint
is complete by itself for every program. Each may be moved or removed alone.

A damaged file spoils all checkpoints that share it. So each process writes it anew, and so does the process after
CHECKPOINTS_THAT_SHARE checkpoints, or if the file is not what was written. Where there are no hard links, it is written
for each checkpoint.
"""

import contextlib
import os
from typing import NamedTuple, Optional, Sequence

from lm_human_preferences.graph.tf_versions import merge_checkpoints, tf, write_checkpoint
from lm_human_preferences.runs.manifests import crc32c

CHECKPOINTS_THAT_SHARE = 10
_ONLY = '.data-00000-of-00001'
_SECOND = '.data-00001-of-00002'


class _Written(NamedTuple):
    """The unchanging variables as a checkpoint of their own: data file, its checksum, content of its index."""

    data: str
    checksum: str
    index: bytes


class TwoPartSaver:
    """Saves changing and unchanging variables of a graph in the two data files of one checkpoint."""

    def __init__(self, changing: Sequence[tf.Variable], unchanging: Sequence[tf.Variable]):
        self._prefix = tf.placeholder(tf.string, [])
        self._parts = tf.placeholder(tf.string, [2])
        self._write_changing = write_checkpoint(self._prefix, changing)
        self._write_unchanging = write_checkpoint(self._prefix, unchanging)
        self._merge = merge_checkpoints(self._parts, self._prefix)
        self._written: Optional[_Written] = None
        self._shared_by = 0

    def save(self, session: tf.Session, path: str, final_path: str) -> None:
        """Write the checkpoint with the prefix `path`. Then its files are moved, so that the prefix is `final_path`.

        tf.errors.OpError or OSError if that fails.
        """
        changing, unchanging = f'{path}.changing', f'{path}.unchanging'
        session.run(self._write_changing, {self._prefix: changing})
        if not self._link(unchanging):
            session.run(self._write_unchanging, {self._prefix: unchanging})
            with open(f'{unchanging}.index', 'rb') as file:
                self._written = _Written('', crc32c(unchanging + _ONLY), file.read())
            self._shared_by = 0
        session.run(self._merge, {self._parts: [changing, unchanging], self._prefix: path})
        self._written = self._written._replace(data=final_path + _SECOND)
        self._shared_by += 1

    def _link(self, unchanging: str) -> bool:
        """Link what was written to the prefix `unchanging`; return False where that is not possible."""
        if self._written is None or self._shared_by >= CHECKPOINTS_THAT_SHARE:
            return False
        with contextlib.suppress(OSError):
            os.link(self._written.data, unchanging + _ONLY)
            if crc32c(unchanging + _ONLY) == self._written.checksum:
                with open(f'{unchanging}.index', 'wb') as file:
                    file.write(self._written.index)
                return True
            os.unlink(unchanging + _ONLY)  # or TensorFlow might write into the damaged file
        return False
