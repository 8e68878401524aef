"""Online data collection (section 2.3 of the paper): labels are bought on the policy's own samples while it trains.

With N_π episodes of PPO in all, N_r labels in all and N_r⁰ of them before the first episode, l(n) labels are wanted
before the n-th episode:

    l(n) = N_r⁰ + (N_r − N_r⁰)·(1 − (1 − n/N_π)²)

so most labels are bought early. Training waits where there are fewer. The reward model is trained before the first
episode and retrained at evenly spaced values of l(n), each time from the initial language model, on all labels so far,
and normalized as in the offline case, which is the limit N_r = N_r⁰.
"""

import contextlib
import copy
import os
import shutil
from typing import Callable, List, Optional

import numpy as np

from lm_human_preferences import train_reward
from lm_human_preferences.hyperparameters import TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.labeling.collector import LabelBuyer
from lm_human_preferences.labeling.questions import QuestionEntry, Respond
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.checkpoint_files import last_state
from lm_human_preferences.runs.resuming import ONLINE_FOLDER
from lm_human_preferences.utils.progress import say


class Schedule:
    """When labels are wanted and the reward model is retrained, in episodes done; known before the run."""

    def __init__(self, initial: int, total: int, retrainings: int, total_episodes: int):
        self._initial, self._total = initial, total
        self._retrainings = retrainings
        self._total_episodes = total_episodes

    def wanted(self, episodes: int) -> int:
        """l(n): labels wanted once this many episodes are done; no more than the last retraining can use."""
        remaining = 1 - min(1, episodes / self._total_episodes)
        bought = (self._total - self._initial) * (1 - remaining**2)
        return min(self._initial + int(bought + 1e-9), self.budget)

    def training(self, episodes: int) -> int:
        """Which training of the reward model is in force then: 0 is the first, before any episode."""
        return sum(self.wanted(episodes) >= self.labels(k) for k in range(1, self._retrainings + 1))

    def labels(self, training: int) -> int:
        """How many labels a training uses."""
        return self._initial + (self._total - self._initial) * training // (self._retrainings + 1)

    @property
    def budget(self) -> int:
        """All labels that are bought. Those of the last interval, which no training would use, are not."""
        return self.labels(self._retrainings)


class OnlineRewardModel:
    """The reward model of a run that buys labels as it goes, always at RUN/reward_model.

    Every rank holds one. The first rank buys the labels; all of them train. What is in force at a step depends on the
    number of the step alone, so a run that is resumed goes on with what it had.
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
        self._buyer: Optional[LabelBuyer] = None
        if ranks.is_first:
            self._buyer = LabelBuyer(self._new, self._labels_folder, self._schedule.budget, self._seed or 0)

    def __enter__(self) -> 'OnlineRewardModel':
        return self

    def __exit__(self, *_) -> None:
        if self._buyer:
            self._buyer.close()

    @property
    def _labels_folder(self) -> str:
        return os.path.join(self._folder, ONLINE_FOLDER, 'labels')

    def train_first(self) -> None:
        """Train the reward model that the first episode needs, on labels about the initial policy.

        In a run that goes on after its first episodes it is not needed.
        """
        resumed = bool(last_state(os.path.join(self._folder, 'policy'))) if self._buyer else False
        if self._ranks.broadcast(np.array(resumed)):
            return
        with contextlib.ExitStack() as stack:
            questions = stack.enter_context(self._buyer.asking_initial_policy()) if self._buyer else None
            self._get_labels(self._schedule.wanted(0), questions, save=None)
        self._train(self._schedule.training(0))

    def refresh(self, step: int, respond: Respond, batch: int, save: Callable[[], None]) -> bool:
        """See to the labels that are wanted before a step; True if another reward model is in force from then on.

        Args:
          respond: gives the current policy's responses to any number of queries; best to as many as `batch`.
          save: writes a checkpoint of the step; called by all ranks before a wait for people, which may take days.
        """
        episodes = step * self._episodes_per_step
        self._get_labels(
            self._schedule.wanted(episodes),
            lambda: self._buyer.questions(respond, batch, f'step {step}'),
            save if step else None,
        )
        training = self._schedule.training(episodes)
        if step == 0 or training == self._schedule.training(episodes - self._episodes_per_step):
            return False
        self._train(training)
        return True

    def _get_labels(
        self, labels: int, questions: Optional[Callable[[], List[QuestionEntry]]], save: Optional[Callable[[], None]]
    ) -> None:
        """Return when so many labels are there; a process that is asked to end in the meantime does so."""
        if self._buyer:
            self._buyer.ask(labels, questions)
        lacking = self._buyer.lacks(labels) if self._buyer else False
        if not self._ranks.broadcast(np.array(lacking)):
            return
        if save:
            save()
        if self._buyer:
            self._buyer.wait_for(labels, questions)
        if self._ranks.mean(preemption.requested()) > 0:
            raise preemption.Preempted()

    def _train(self, training: int) -> None:
        """Have at RUN/reward_model the one that was trained, from the start, on all labels it should have by now."""
        new = copy.deepcopy(self._new)
        labels = self._schedule.labels(training)
        new.labels.num_train = labels // new.batch_size * new.batch_size
        new.labels.source, new.labels.schedule = self._labels_folder, None
        first_seed = self._seed if new.run.seed is None else new.run.seed
        if first_seed is not None:
            new.run.seed = (first_seed + training - self._schedule.training(0)) % 2**31
        new.run.save_dir = os.path.join(self._folder, ONLINE_FOLDER, f'training-{training}')
        if self._ranks.broadcast(np.array(self._is_there(new) if self._buyer else False)):
            return
        say(f'reward model: training {training} on {new.labels.num_train} labels', self._ranks.is_first)
        if self._buyer:
            os.makedirs(new.run.save_dir, exist_ok=True)
            self._buyer.save()
        self._ranks.wait_for_all()
        train_reward.train(new)
        if self._buyer:
            shutil.rmtree(self._current, ignore_errors=True)
            os.rename(os.path.join(new.run.save_dir, 'reward_model'), self._current)
        self._ranks.wait_for_all()

    @property
    def _current(self) -> str:
        return os.path.join(self._folder, 'reward_model')

    def _is_there(self, new: TrainRewardHParams) -> bool:
        """Whether a process before this one has put the outcome of a training in its place."""
        state = last_state(self._current) or {}
        return bool(state.get('finished')) and state['hparams']['labels'] == new.labels.to_nested_dict()
