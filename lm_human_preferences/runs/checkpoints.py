"""Checkpoints of a run. A run that resumes from one ends as if it had not been interrupted."""

import re
import time
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.tf_versions import tf, what_failed
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import shared_seed
from lm_human_preferences.remote.storage import is_remote
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.checkpoint_files import (
    checkpoint_path,
    create,
    latest_checkpoint,
    new_checkpoint,
    recover,
    resume_at,
)
from lm_human_preferences.runs.divergence import refuse_variable
from lm_human_preferences.runs.ownership import FolderWatch
from lm_human_preferences.runs.resuming import check_same_ranks, check_same_run
from lm_human_preferences.runs.unchanging import TwoPartSaver
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.progress import say

__all__ = ['CHECKPOINTS_KEPT', 'CheckpointWriter', 'Checkpoints', 'latest_checkpoint']

CHECKPOINTS_KEPT = 20


class CheckpointWriter:
    """Save `variables` in FOLDER/checkpoints and keep the last `keep` checkpoints. Do nothing if `folder` is None.

    Those of the `variables` that are `unchanging` are written once for several checkpoints.
    """

    def __init__(
        self,
        folder: Optional[str],
        variables: Sequence[tf.Variable],
        keep: int = CHECKPOINTS_KEPT,
        unchanging: Callable[[tf.Variable], bool] = lambda variable: False,
    ):
        self._folder = folder
        self._keep = keep
        if folder:
            # A checkpoint with a NaN or infinite variable must not replace the last good one.
            graph = tf.get_default_graph()
            floating = [variable for variable in variables if variable.dtype.base_dtype.is_floating]
            self._checks = [tf.check_numerics(graph.as_graph_element(v), v.name).op for v in floating]
            self._saver = tf.train.Saver(list(variables), max_to_keep=None)
            fixed = [variable for variable in variables if unchanging(variable)]
            changing = [variable for variable in variables if not unchanging(variable)]
            self._two_part_saver = TwoPartSaver(changing, fixed) if fixed else None
            self._watch = FolderWatch(create(folder))

    def restore(self, session: tf.Session, step: int) -> None:
        """Set the variables to their values in the checkpoint of a step. UserError if that cannot be read."""
        path = checkpoint_path(self._folder, step)
        try:
            self._saver.restore(session, path)
        except tf.errors.OpError as error:
            raise UserError(
                f'{path}: damaged, or from another model: {what_failed(error)}; '
                f'remove its files ({path}.*), and the same command resumes from the previous checkpoint, if any'
            ) from error

    def check_folder(self) -> None:
        """Raise UserError if the folder was moved or removed. Another run may have its place by now."""
        if self._folder:
            self._watch.check()

    def save(self, session: tf.Session, step: int, state: Optional[Dict[str, Any]] = None, alone: bool = False) -> None:
        """Write a checkpoint, with `state` as JSON beside it; with `alone`, it shares no file with another checkpoint.

        UserError if a variable is not finite, if the folder was moved, or if the checkpoint cannot be written. The last
        checkpoint is then unchanged.
        """
        if not self._folder:
            return
        self.check_folder()
        try:
            session.run(self._checks)
        except tf.errors.InvalidArgumentError as error:
            refuse_variable(re.search(r'(\S+) : Tensor had', error.message).group(1), step)
        try:
            with new_checkpoint(self._folder, step, state or {}, self._keep) as path:
                if self._two_part_saver and not alone:
                    self._two_part_saver.save(session, path, checkpoint_path(self._folder, step))
                else:
                    self._saver.save(session, path, write_meta_graph=False, write_state=False)
        except (tf.errors.OpError, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else what_failed(error)
            raise UserError(
                f'cannot save the checkpoint of step {step} in {self._folder}: {reason}; '
                'free some space, and the same command resumes from the previous checkpoint'
            ) from error


class Checkpoints:
    """The point where a stage of a run starts or resumes, and the checkpoints that it saves.

    TensorFlow's checkpoints hold the variables. A small JSON file beside each holds the rest of the run's state: seed,
    step, the position of each rank in the stream of queries, seconds, and what the stage adds. Random numbers depend
    only on seed, rank and step, so that no generator's state needs to be saved.

    Attributes:
      seed: the seed of the run; a random one if the hyperparameters give none.
      step: the number of steps done.
      position: this rank's position in the stream of queries.
      finished: whether the stage is finished.
      state: everything that was saved; {} in a new run.
      num_texts: the number of texts of the data set, saved with each checkpoint; None if it is not known.
    """

    def __init__(self, folder: Optional[str], hparams: HParams, ranks: Ranks):
        """Read the last state in `folder`, the folder of the model in training.

        Args:
          folder: None on all ranks but the first, and in a run without files.

        UserError if the run in the folder has other hyperparameters or another number of ranks.
        """
        if folder and is_remote(folder):
            raise UserError(
                f'{folder}: runs are written to local folders; launch.py --save_dir copies one to its bucket'
            )
        self._folder = folder
        self._hparams = hparams
        self._ranks = ranks
        self.state = ranks.from_first(lambda: recover(folder) if folder else None) or {}
        if self.state:
            check_same_run(self.state['hparams'], hparams)
            check_same_ranks(self.state['ranks'], ranks.size, hparams.run.save_dir)
        self.seed = self.state['seed'] if self.state else shared_seed(hparams.run.seed, ranks)
        self.step = self.state.get('step', 0)
        self.position = self.state['positions'][ranks.rank] if self.state else 0
        self.finished = self.state.get('finished', False)
        self.num_texts: Optional[int] = self.state.get('num_texts')
        self._seconds_before = self.state.get('seconds', 0.0)

    def restore(
        self,
        session: tf.Session,
        variables: Sequence[tf.Variable],
        keep: int = CHECKPOINTS_KEPT,
        unchanging: Callable[[tf.Variable], bool] = lambda variable: False,
    ) -> List[tf.Variable]:
        """Set the variables to their values in the last checkpoint, and save these variables from now on.

        The first rank sets them. Call this before the graph is finalized. `keep` and `unchanging` are those of
        `CheckpointWriter`.

        Returns:
          the variables that have their values from the checkpoint: none in a new run.
        """
        self._writer = CheckpointWriter(self._folder, variables, keep, unchanging)
        self._start = time.time()
        if self._folder:
            resume_at(self._folder, self.step)
        if not self.state:
            return []
        say(f'{self._folder}: resuming after step {self.step}', self._ranks.is_first)
        if self._folder:
            self._writer.restore(session, self.step)
        return list(variables)

    def seconds(self) -> float:
        """Return the seconds spent on the run, without the time between its processes."""
        return self._seconds_before + time.time() - self._start

    def check_folder(self) -> None:
        """Raise UserError if the folder of the model in training was moved or removed."""
        self._writer.check_folder()

    def after_step(self, session: tf.Session, step: int, position: int = 0, **own: Any) -> None:
        """Save if a save is due after `step` steps. If a rank was asked to end, save and end the process.

        All ranks call this, each with its `position`. `own` is what else the stage needs to resume; `manifests` knows
        these fields.
        """
        self.check_folder()
        interval = self._hparams.run.save_interval
        stop = self._ranks.mean(preemption.requested()) > 0
        if stop or (interval and step % interval == 0):
            self._save(session, step, position, finished=False, **own)
        if stop:
            say(f'saved after step {step} because of {preemption.reason()}', self._ranks.is_first)
            self._ranks.wait_for_all()  # when the first rank ends, the launcher may kill the others
            raise preemption.ended()

    def save(self, session: tf.Session, step: int, position: int = 0, **own: Any) -> None:
        """Save now, with the arguments of `after_step`. The run continues."""
        self._save(session, step, position, finished=False, **own)

    def finish(self, session: tf.Session, step: int, position: int = 0, **own: Any) -> None:
        """Save the finished stage."""
        self._save(session, step, position, finished=True, **own)

    def _save(self, session, step, position, finished, **own):
        state = dict(
            own,
            seed=self.seed,
            num_texts=self.num_texts,
            positions=_from_all_ranks(position, self._ranks),
            seconds=self.seconds(),
            finished=finished,
            ranks=self._ranks.size,
            hparams=self._hparams.to_shared_dict(),
        )
        self._writer.save(session, step, state, alone=finished)  # others may copy or fetch the finished model


def _from_all_ranks(number: int, ranks: Ranks) -> List[int]:
    """Return the numbers of all ranks on each rank."""
    mine = np.zeros(ranks.size)
    mine[ranks.rank] = number
    return np.rint(ranks.mean(mine) * ranks.size).astype(int).tolist()
