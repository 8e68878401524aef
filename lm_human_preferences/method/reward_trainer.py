"""The graph of reward training: one step on a batch of labels, and rewards of the initial policy's samples.

The losses are in label_types.py and the reward model in rewards.py. All methods run in the default session.
"""

from typing import Dict, List, Tuple

import numpy as np

from lm_human_preferences.datasets.query_batches import QueryBatches
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.graph.optimizer import minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainRewardHParams
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.rewards import RewardModel, normalizing_gain_bias
from lm_human_preferences.mpi.collectives import gradient_average, mean_over_batch
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import step_generator
from lm_human_preferences.runs.divergence import GRADIENT_NORM
from lm_human_preferences.utils.gc_pause import gc_paused
from lm_human_preferences.utils.progress import progress, say


class RewardTrainer:
    """The reward model in training, and the initial policy whose samples normalize it."""

    @gc_paused()
    def __init__(self, hparams: TrainRewardHParams, task: Task, model_hparams: ModelHParams, ranks: Ranks):
        self.hparams = hparams
        self.label_type = get_label_type(hparams.labels.type)
        self.ref_policy = Policy(model_hparams, task, scope='ref_policy', dtype=hparams.run.dtype)
        self.reward_model = RewardModel(model_hparams, task, dtype=hparams.run.dtype)
        self._build_step(ranks)
        self._build_sampling(task, ranks)

    def _build_step(self, ranks):
        batch = ranks.share(self.hparams.batch_size)
        schema = label_schema(self.label_type, self.hparams.task.query_length, self.hparams.task.response_length)
        self._labels = {
            name: tf.placeholder(dtype, (batch,) + shape, name='label_' + name)
            for name, (dtype, shape) in schema.items()
        }
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        samples = tf.stack([self._labels[name] for name in self.label_type.sample_names], axis=1)
        rewards = self.reward_model.rewards_of_samples(self._labels['query'], samples)
        self._stats = self.label_type.loss(rewards, self._labels, mean_over_batch(ranks))
        self.trained_variables = self.reward_model.variables
        self._train_op, self._stats[GRADIENT_NORM] = minimize(
            self._stats['loss'], self.trained_variables, self._lr, 'reward_adam', gradient_average(ranks)
        )

    def _build_sampling(self, task, ranks):
        hparams = self.hparams
        self.rollout_batch = -(-hparams.rollout_batch_size // ranks.size)
        self._queries = tf.placeholder(tf.int32, [self.rollout_batch, hparams.task.query_length], name='queries')
        self._uniforms = tf.placeholder(tf.float32, [self.rollout_batch, hparams.task.response_length], name='uniforms')
        self._responses = self.ref_policy.respond(self._queries, self._uniforms)['responses']
        scored = task.truncate(self._responses)[0] if hparams.normalize_truncated else self._responses
        self._sample_rewards = self.reward_model.rewards(self._queries, scored)

    def load(self, initial_model: TrainedModel, is_new: bool) -> List[tf.Variable]:
        """Set the reference policy, and in a new run the reward model too, to the initial language model's weights.

        Returns:
          the variables that were set.
        """
        session = tf.get_default_session()
        loaded = initial_model.load(session, self.ref_policy.model)
        return loaded + (initial_model.load(session, self.reward_model.model) if is_new else [])

    def step(self, labels: Dict[str, np.ndarray], lr: float) -> Dict[str, float]:
        """Take one step of Adam on this rank's share of a batch of labels; return the statistics of that share."""
        feed = {placeholder: labels[name] for name, placeholder in self._labels.items()}
        feed[self._lr] = lr
        return run_with_stats(tf.get_default_session(), self._train_op, self._stats, feed)

    def sample_rewards(self, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return the rewards [rollout_batch] of responses of the initial policy, whole or truncated as the run asks.

        Args:
          queries: [rollout_batch, query_length].
          uniforms: [rollout_batch, response_length], the random numbers that choose the tokens.
        """
        feed = {self._queries: queries, self._uniforms: uniforms}
        return tf.get_default_session().run(self._sample_rewards, feed)


class Normalizer:
    """Sets the reward model's gain and bias by its rewards on samples of the initial policy."""

    def __init__(self, trainer: RewardTrainer, queries: QueryStream, seed: int, ranks: Ranks):
        self._trainer = trainer
        self._queries = queries
        self._seed = seed
        self._ranks = ranks

    def normalize(self, target_mean: float, target_std: float, stage: str, step: int) -> None:
        """Give rewards of the initial policy's samples this mean and this standard deviation.

        Args:
          stage: the name that is printed.
          step: chooses the random numbers of the samples.
        """
        hparams = self._trainer.hparams
        random = step_generator(self._seed, self._ranks, step)
        self._set(1.0, 0.0)
        mean, std = self._measure(hparams.normalize_samples, stage, random)
        self._set(*normalizing_gain_bias(mean, std, target_mean, target_std))
        line = f'{stage}: rewards had mean {mean:.3f}, std {std:.3f}; now {target_mean:.3f}, {target_std:.3f}'
        if hparams.debug_normalize:
            line += ' (measured anew: {:.3f}, {:.3f})'.format(*self._measure(hparams.debug_normalize, stage, random))
        say(line, self._ranks.is_first)

    def _measure(self, num_samples: int, stage: str, random: np.random.RandomState) -> Tuple[float, float]:
        """Mean and standard deviation of rewards over all ranks, on at least `num_samples` samples (whole batches)."""
        trainer = self._trainer
        length = trainer.hparams.task.response_length
        num_batches = -(-num_samples // (trainer.rollout_batch * self._ranks.size))
        batches = QueryBatches(self._queries, trainer.rollout_batch, num_batches)
        rewards = [
            trainer.sample_rewards(queries, random.random_sample([trainer.rollout_batch, length]))
            for queries in progress(batches, stage, self._ranks.is_first, total=num_batches)
        ]
        rewards = np.array(rewards, np.float64)  # the variance may be small beside the mean
        mean, mean_of_squares = self._ranks.mean([np.mean(rewards), np.mean(np.square(rewards))])
        return mean, np.sqrt(max(mean_of_squares - mean**2, 0))

    def _set(self, gain, bias):
        session = tf.get_default_session()
        self._trainer.reward_model.gain.load(gain, session)
        self._trainer.reward_model.bias.load(bias, session)
