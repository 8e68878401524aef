"""Online data collection: collect labels on the policy's own samples while it trains (section 2.3 of the paper).

Let N_π be the number of PPO episodes, N_r the number of labels, and N_r⁰ the number of labels before the first episode.
Before the n-th episode the reward model needs l(n) labels:

    l(n) = N_r⁰ + (N_r − N_r⁰)·(1 − (1 − n/N_π)²)

So most labels are collected early. Training waits if there are fewer. The reward model is trained before the first
episode, and again at evenly spaced values of l(n). Each training starts from the initial language model, uses all
labels so far, and normalizes rewards as offline training does. Offline training is the case N_r = N_r⁰.
"""

import contextlib
import copy
import os
import shutil
from typing import Callable, Optional

import numpy as np

from lm_human_preferences import train_reward
from lm_human_preferences.hyperparameters import TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.labeling.collector import Ask, LabelCollector
from lm_human_preferences.labeling.questions import Respond
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.checkpoint_files import last_state, recover
from lm_human_preferences.runs.run_folder import ONLINE, ONLINE_LABELS, POLICY, REWARD_MODEL
from lm_human_preferences.utils.progress import say


class Schedule:
    """When labels are needed and when the reward model is retrained, by the number of finished episodes."""

    def __init__(self, initial: int, total: int, retrainings: int, total_episodes: int):
        self._initial, self._total = initial, total
        self._retrainings = retrainings
        self._total_episodes = total_episodes

    def wanted(self, episodes: int) -> int:
        """Return l(n), the labels needed after this many episodes, but no more than the last training uses."""
        remaining = 1 - min(1, episodes / self._total_episodes)
        collected = (self._total - self._initial) * (1 - remaining**2)
        return min(self._initial + int(collected + 1e-9), self.budget)

    def training(self, episodes: int) -> int:
        """Return which training gave the reward model in use after this many episodes; 0 is the first training."""
        return sum(self.wanted(episodes) >= self.labels(k) for k in range(1, self._retrainings + 1))

    def labels(self, training: int) -> int:
        """Return how many labels a training uses."""
        return self._initial + (self._total - self._initial) * training // (self._retrainings + 1)

    @property
    def budget(self) -> int:
        """The number of labels in all. It leaves out the last interval, whose labels no training would use."""
        return self.labels(self._retrainings)


class OnlineRewardModel:
    """The reward model of a run that collects labels while it trains. Its folder is always RUN/reward_model.

    Every rank has one. The first rank collects the labels; all ranks train. The reward model in use depends only on the
    number of the step, so a resumed run has the same one.
    """

    def __init__(self, hparams: TrainPolicyHParams, folder: str, ranks: Ranks):
        self._new = hparams.rewards.train_new_model
        self._episodes_per_step = hparams.ppo.batch_size
        self._folder = folder
        self._ranks = ranks
        schedule = self._new.labels.schedule
        self._schedule = Schedule(
            schedule.num_initial, self._new.labels.num_train, schedule.num_retrainings, hparams.ppo.total_episodes
        )
        self._seed = hparams.run.seed
        self._collector: Optional[LabelCollector] = None  # on the first rank only
        if ranks.is_first:
            self._collector = LabelCollector(self._new, self._labels_folder, self._schedule.budget, self._seed or 0)

    def __enter__(self) -> 'OnlineRewardModel':
        return self

    def __exit__(self, *_) -> None:
        if self._collector:
            self._collector.close()

    @property
    def _labels_folder(self) -> str:
        return os.path.join(self._folder, ONLINE_LABELS)

    @property
    def _reward_model(self) -> str:
        return os.path.join(self._folder, REWARD_MODEL)

    def train_first(self) -> None:
        """Train the reward model for the first episode, on labels of the initial policy's samples.

        Do nothing if the run is resumed after its first step.
        """
        has_steps = bool(recover(os.path.join(self._folder, POLICY))) if self._collector else False
        if self._from_first_rank(has_steps):
            return
        with contextlib.ExitStack() as stack:
            questions = stack.enter_context(self._collector.asking_initial_policy()) if self._collector else None
            self._get_labels(self._schedule.wanted(0), questions, save=None)
        self._train(self._schedule.training(0))

    def refresh(self, step: int, respond: Respond, batch: int, save: Callable[[], None]) -> bool:
        """Get the labels and the reward model that a step needs. Return True if this is a new reward model.

        Args:
          respond: returns the current policy's truncated responses to any number of queries.
          batch: the number of queries for which `respond` is most efficient.
          save: writes a checkpoint of the step. All ranks call it before they wait for people, which may take days.
        """
        episodes = step * self._episodes_per_step
        self._get_labels(
            self._schedule.wanted(episodes),
            lambda: self._collector.questions(respond, batch, f'step {step}'),
            save if step else None,
        )
        training = self._schedule.training(episodes)
        if step == 0 or training == self._schedule.training(episodes - self._episodes_per_step):
            return False
        self._train(training)
        return True

    def _get_labels(self, labels: int, questions: Optional[Ask], save: Optional[Callable[[], None]]) -> None:
        """Wait until there are `labels` labels. If this process is asked to end in the meantime, end it."""
        if self._collector:
            self._collector.ask(labels, questions)
        must_wait = self._collector.lacks(labels) if self._collector else False
        if not self._from_first_rank(must_wait):
            return
        if save:
            save()
        if self._collector:
            self._collector.wait_for(labels, questions)
        if self._ranks.mean(preemption.requested()) > 0:
            raise preemption.ended()

    def _train(self, training: int) -> None:
        """Train a reward model from the initial model on the labels of a training, and move it to RUN/reward_model."""
        new = self._training_hparams(training)
        if self._from_first_rank(self._is_trained(new) if self._collector else False):
            return
        say(f'reward model: training {training} on {new.labels.num_train} labels', self._ranks.is_first)
        if self._collector:
            os.makedirs(new.run.save_dir, exist_ok=True)
            self._collector.save()
        self._ranks.wait_for_all()
        train_reward.train(new)
        if self._collector:
            shutil.rmtree(self._reward_model, ignore_errors=True)
            os.rename(os.path.join(new.run.save_dir, REWARD_MODEL), self._reward_model)
        self._ranks.wait_for_all()

    def _training_hparams(self, training: int) -> TrainRewardHParams:
        """Return the hyperparameters of a training: its labels, its seed and its folder."""
        new = copy.deepcopy(self._new)
        labels = self._schedule.labels(training)
        new.labels.num_train = labels // new.batch_size * new.batch_size
        new.labels.source, new.labels.schedule = self._labels_folder, None
        first_seed = self._seed if new.run.seed is None else new.run.seed
        if first_seed is not None:
            new.run.seed = (first_seed + training - self._schedule.training(0)) % 2**31
        new.run.save_dir = os.path.join(self._folder, ONLINE, f'training-{training}')
        return new

    def _is_trained(self, new: TrainRewardHParams) -> bool:
        """Return whether RUN/reward_model is the finished result of a training, from before the run was resumed."""
        state = last_state(self._reward_model) or {}
        return bool(state.get('finished')) and state['hparams']['labels'] == new.labels.to_nested_dict()

    def _from_first_rank(self, flag: bool) -> bool:
        """Return the first rank's flag on all ranks."""
        return bool(self._ranks.broadcast(np.array(flag)))
