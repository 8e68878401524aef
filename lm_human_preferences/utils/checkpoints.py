"""Checkpoints: TensorFlow's own files, `checkpoints/model.ckpt-STEP` in a model folder."""

import os
from typing import Optional, Sequence

from lm_human_preferences.utils.tf_versions import tf

CHECKPOINTS_KEPT = 20


class CheckpointWriter:
    """Saves `variables` under FOLDER/checkpoints, the last 20 times kept; does nothing when folder is None."""

    def __init__(self, folder: Optional[str], variables: Sequence[tf.Variable]):
        self._prefix = None
        if folder:
            os.makedirs(os.path.join(folder, 'checkpoints'), exist_ok=True)
            self._prefix = os.path.join(folder, 'checkpoints', 'model.ckpt')
            self._saver = tf.train.Saver(list(variables), max_to_keep=CHECKPOINTS_KEPT, save_relative_paths=True)

    def save(self, session: tf.Session, step: int) -> None:
        """Write one checkpoint."""
        if self._prefix:
            self._saver.save(session, self._prefix, global_step=step, write_meta_graph=False)


def latest_checkpoint(folder: str) -> str:
    """The path prefix of the newest checkpoint in a model folder: of FOLDER/checkpoints, or of FOLDER itself.

    Only file names are read from TensorFlow's `checkpoint` file, since a folder may have been moved or downloaded.
    """
    for place in (os.path.join(folder, 'checkpoints'), folder):
        state = tf.train.get_checkpoint_state(place)
        if state and state.model_checkpoint_path:
            path = os.path.join(place, os.path.basename(state.model_checkpoint_path))
            if tf.train.checkpoint_exists(path):
                return path
    raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there')
