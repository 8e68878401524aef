"""One stage of a run: it trains one model, and it saves that model so that the stage can resume.

A run has one or two stages: `train_reward` trains `reward_model`, `train_policy` trains `reward_model` and then
`policy`, and `train_lm` trains `training`. `Stage` holds all that a training loop needs and that is not the algorithm:
ranks, folder, checkpoints, graph, session and statistics.
"""

import contextlib
import os
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, TypeVar

from lm_human_preferences.graph.tf_versions import new_session, tensor_float_32, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import save_model_folder
from lm_human_preferences.mpi.collectives import initialize_variables
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.remote import hub
from lm_human_preferences.runs.checkpoints import CHECKPOINTS_KEPT, Checkpoints
from lm_human_preferences.runs.run_folder import EVENTS, save_hparams
from lm_human_preferences.runs.statistics import last_statistics
from lm_human_preferences.runs.summaries import SummaryWriter, brief
from lm_human_preferences.runs.trackers import tracked
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.hyperparams import HParams
from lm_human_preferences.utils.progress import progress, say

Trainer = TypeVar('Trainer')


class Trained(NamedTuple):
    """What a training did. Called again for a finished run, it returns the same."""

    folder: Optional[str]  # of the run, which `load_policy` and `load_reward_model` take; None if nothing was saved
    steps: int
    statistics: Dict[str, float]  # of the last step; {} on another rank than the first where the run was finished


class Stage:
    """A stage of a run on all its ranks.

    Attributes:
      ranks: the processes of the run. The first one reads checkpoints, writes files and prints.
      run_folder, folder: the folders of the run and of the model in training; None where this rank writes nothing.
      checkpoints: where the stage starts or resumes (`seed`, `step`, `position`, `state`), and what it saves.
      summaries: the statistics for TensorBoard, in tb/EVENTS. They exist within `session`.
    """

    def __init__(self, hparams: HParams, model: str, events: str):
        """Check `hparams`, and find the last checkpoint of the folder `model` in the run's folder.

        Raises UserError for a folder that other hyperparameters or another number of ranks began.
        """
        self.ranks = Ranks()
        hparams.validate(num_ranks=self.ranks.size)
        self.hparams = hparams
        self.run_folder: Optional[str] = hparams.run.save_dir if self.ranks.is_first else None
        self.folder = os.path.join(self.run_folder, model) if self.run_folder else None
        self.checkpoints = Checkpoints(self.folder, hparams, self.ranks)
        self._events = os.path.join(self.run_folder, EVENTS, events) if self.run_folder else None
        self.summaries: Optional[SummaryWriter] = None

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return self.checkpoints.seed

    @property
    def step(self) -> int:
        """The number of steps done."""
        return self.checkpoints.step

    @property
    def is_new(self) -> bool:
        """Whether no step was saved yet, so that models start from their initial weights."""
        return self.checkpoints.step == 0

    def say(self, line: str) -> None:
        """Print a line, once for all ranks."""
        say(line, self.ranks.is_first)

    def count_texts(self, dataset: str, num_texts: int) -> None:
        """Say if the data set has another number of texts than when the run was saved: their order depends on it."""
        before = self.checkpoints.num_texts
        if before not in (None, num_texts):
            self.say(
                f'the data set {dataset!r} has {num_texts} texts, and had {before} when step {self.step} was saved: '
                'from here on the texts come in another order'
            )
        self.checkpoints.num_texts = num_texts

    @contextlib.contextmanager
    def session(
        self,
        build: Callable[[], Trainer],
        load: Callable[[Trainer], List[tf.Variable]],
        model_hparams: ModelHParams,
        encoding: Encoding,
        saved: Callable[[tf.Variable], bool] = lambda variable: True,
        keep: int = CHECKPOINTS_KEPT,
        model_folder: Optional[str] = None,
        unchanging: Callable[[tf.Variable], bool] = lambda variable: False,
    ) -> Iterator[Trainer]:
        """Open the stage's session: build the graph, set all variables, and give the trainer.

        Args:
          build: makes the trainer, and with it the graph.
          load: sets variables from trained models and returns them. The first rank calls it; the others receive its
            values. On a resumed stage, the checkpoint has been restored before.
          model_hparams, encoding: are written into the model's folder.
          saved: whether a checkpoint holds a variable.
          keep: how many checkpoints are kept.
          model_folder: the folder of the finished model, where that is not the folder of the checkpoints.
          unchanging: whether training never changes a variable, so that checkpoints can share a file with it.
        """
        hub.check_commits(self.ranks.from_first(hub.commits))
        with contextlib.ExitStack() as opened:
            opened.enter_context(tensor_float_32(self.hparams.run.tf32))
            graph = opened.enter_context(tf.Graph().as_default())
            session = opened.enter_context(new_session(graph, self.ranks.threads()))
            tf.set_random_seed(self.seed)
            trainer = build()
            if self.run_folder:
                save_model_folder(model_folder or self.folder, model_hparams, encoding)
                save_hparams(self.run_folder, self.hparams)
            on_step = opened.enter_context(tracked(self._events, self.hparams, self.step))
            self.summaries = SummaryWriter(self._events, self.step, on_step)
            variables = [variable for variable in tf.global_variables() if saved(variable)]
            loaded = self.checkpoints.restore(session, variables, keep, unchanging)
            if self.ranks.is_first:
                loaded += load(trainer)
            initialize_variables(session, loaded, self.ranks)
            graph.finalize()
            try:
                yield trainer
            except (OSError, UserError):
                self.checkpoints.check_folder()  # if it was moved, this says more
                raise
            self.summaries.close()

    def steps(self, num_steps: int, description: str) -> Iterable[int]:
        """Count the steps that are still to do, with a progress bar."""
        first = min(self.step, num_steps)
        self._bar = progress(range(first, num_steps), description, self.ranks.is_first, num_steps, first)
        return self._bar

    def show(self, stats: Dict[str, float], tags: Sequence[str]) -> str:
        """Show some statistics beside the progress bar; return them as one line."""
        line = brief(stats, tags)
        self._bar.set_postfix_str(line)
        return line

    def is_logged(self, step: int, num_steps: int) -> bool:
        """Whether the statistics of a step are reported: every `run.log_interval` steps, and at the end."""
        return step % self.hparams.run.log_interval == 0 or step == num_steps - 1

    def after_step(self, step: int, position: int = 0, **state: Any) -> None:
        """Save after `step` steps if it is time to, or if the process was asked to end (it ends then)."""
        self.checkpoints.after_step(tf.get_default_session(), step, position, **state)

    def save(self, step: int, position: int = 0, **state: Any) -> None:
        """Save at once; training continues."""
        self.checkpoints.save(tf.get_default_session(), step, position, **state)

    def finish(self, step: int, position: int = 0, **state: Any) -> None:
        """Save the finished model of the stage."""
        self.checkpoints.finish(tf.get_default_session(), step, position, **state)

    def outcome(self, steps: int) -> Trained:
        """Return what the finished stage did in `steps` steps, in this process or in an earlier one."""
        statistics = self.summaries.last if self.summaries else {}
        if not statistics and self._events:
            statistics = last_statistics(self._events)
        return Trained(self.hparams.run.save_dir, steps, statistics)
