"""The graph of fine-tuning with PPO: roll out the policy on queries, and update it on a minibatch of episodes.

The algorithm itself is in ppo.py, as plain functions. This module feeds it: placeholders, batches and sessions. All
methods run in the default session.
"""

from typing import Dict, List, Optional

import numpy as np

from lm_human_preferences.graph.optimizer import GradientSum, minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import gpu_memory, tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainPolicyHParams
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import in_batches
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.ppo import Rollouts, Targets, ppo_loss, ppo_targets
from lm_human_preferences.method.rewards import RewardModel
from lm_human_preferences.mpi.collectives import gradient_average, mean_over_batch
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs.divergence import GRADIENT_NORM
from lm_human_preferences.utils.gc_pause import gc_paused

CPU_EPISODES = 64  # sampled and scored at a time
GPU_SHARE = 0.25  # of a GPU's memory, for sampling and scoring: the models, Adam and a minibatch take the rest


class PPOTrainer:
    """Policy, reference policy and reward model, and the operations of one PPO step on one rank's share of a batch."""

    @gc_paused()
    def __init__(
        self,
        hparams: TrainPolicyHParams,
        task: Task,
        model_hparams: ModelHParams,
        reward_model_hparams: ModelHParams,
        ranks: Ranks,
        rollout_batch_size: Optional[int] = None,
    ):
        """Build the graph.

        Args:
          rollout_batch_size: `ppo.rollout_batch_size` of the run so far, where the hyperparameters give none. None: it
            is chosen, on all ranks as on the first one.
        """
        self.hparams = hparams
        self.task = task
        dtype = hparams.run.dtype
        self.policy = Policy(model_hparams, task, scope='policy', dtype=dtype)
        self.ref_policy = Policy(model_hparams, task, scope='ref_policy', dtype=dtype)
        self.reward_model = RewardModel(reward_model_hparams, task, dtype=dtype)
        self.batch = ranks.share(hparams.ppo.batch_size)  # episodes of this rank
        self.rollout_batch_size = hparams.ppo.rollout_batch_size or rollout_batch_size
        if self.rollout_batch_size is None:
            tokens = [task.context_length + task.hparams.response_length, task.hparams.response_length]
            fitting = episodes_that_fit(model_hparams, *tokens, gpu_memory(), dtype)
            self.rollout_batch_size = int(ranks.broadcast(np.array(min(fitting, self.batch), np.int64)))
        self._build_rollout()
        self._build_update(ranks)

    def _build_rollout(self):
        task = self.hparams.task
        self._chunk = min(self.batch, self.rollout_batch_size)
        self._queries = tf.placeholder(tf.int32, [self._chunk, task.query_length], name='queries')
        self._uniforms = tf.placeholder(tf.float32, [self._chunk, task.response_length], name='uniforms')
        rollout = self.policy.respond(self._queries, self._uniforms)
        reference = self.ref_policy.analyze_responses(self._queries, rollout['responses'])
        truncated, valid = self.task.truncate(rollout['responses'])
        scores = self.task.penalize(self.reward_model.rewards(self._queries, truncated), valid)
        self._rollout = dict(rollout, ref_logprobs=reference['logprobs'], truncated=truncated, scores=scores)

    def _build_update(self, ranks):
        ppo, minibatch = self.hparams.ppo, self.batch // self.hparams.ppo.nminibatches
        average = gradient_average(ranks)
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        self._minibatch = self._episodes(minibatch)
        self._targets, self._minibatch_stats = ppo_targets(ppo, self._minibatch, mean_over_batch(ranks))
        variables = list(self.policy.model.variables.values())
        self._parts = minibatch // (ppo.microbatch_size or minibatch)
        if self._parts == 1:
            loss, self._stats = self._loss(self._minibatch, self._targets)
            self._train_op, norm = minimize(loss, variables, self._lr, 'ppo_adam', average)
        else:
            per_token = [ppo.microbatch_size, self.hparams.task.response_length]
            self._part = self._episodes(ppo.microbatch_size)
            self._part_targets = Targets(*(tf.placeholder(tf.float32, per_token) for _ in Targets._fields))
            loss, self._stats = self._loss(self._part, self._part_targets)
            self._gradients = GradientSum(loss / self._parts, variables)
            self._train_op, norm = self._gradients.minimize(self._lr, 'ppo_adam', average)
        self._minibatch_stats[GRADIENT_NORM] = norm

    def _episodes(self, number):
        """Placeholders for a number of episodes."""
        task, per_token = self.hparams.task, [number, self.hparams.task.response_length]
        return Rollouts(
            queries=tf.placeholder(tf.int32, [number, task.query_length], name='rollout_queries'),
            responses=tf.placeholder(tf.int32, per_token, name='rollout_responses'),
            logprobs=tf.placeholder(tf.float32, per_token, name='rollout_logprobs'),
            values=tf.placeholder(tf.float32, per_token, name='rollout_values'),
            rewards=tf.placeholder(tf.float32, per_token, name='rollout_rewards'),
        )

    def _loss(self, rollouts, targets):
        now = self.policy.analyze_responses(rollouts.queries, rollouts.responses)
        return ppo_loss(self.hparams.ppo, rollouts, targets, now['logprobs'], now['entropies'], now['values'])

    def load(self, initial_model: TrainedModel, reward_model: TrainedModel) -> List[tf.Variable]:
        """Start policy and reference from the initial model; return the variables that were set."""
        session = tf.get_default_session()
        loaded = initial_model.load(session, self.policy.model)
        loaded += initial_model.load(session, self.ref_policy.model)
        return loaded + self.load_reward_model(reward_model)

    def load_reward_model(self, reward_model: TrainedModel) -> List[tf.Variable]:
        """Score with this reward model from now on; return the variables that were set."""
        return self.reward_model.load(tf.get_default_session(), reward_model)

    def rollout(self, queries: np.ndarray, uniforms: np.ndarray) -> Dict[str, np.ndarray]:
        """Respond to queries and score the responses, `ppo.rollout_batch_size` at a time.

        Args:
          queries: [batch, query_length].
          uniforms: [batch, response_length], the random numbers that choose the tokens.

        Returns:
          queries; responses and truncated (the responses as they are scored) [batch, response_length]; scores [batch];
          and for every token the policy's logprobs and values and the reference's ref_logprobs.
        """
        return dict(self._in_chunks(self._rollout, queries, uniforms), queries=queries)

    def respond(self, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return responses as they are scored, [n, response_length], to any number of queries [n, query_length]."""
        return self._in_chunks({'truncated': self._rollout['truncated']}, queries, uniforms)['truncated']

    def _in_chunks(self, tensors, queries, uniforms):
        """The values of named tensors of the rollout, for any number of queries."""

        def run(queries, uniforms):
            return tf.get_default_session().run(tensors, {self._queries: queries, self._uniforms: uniforms})

        return in_batches(run, [queries, uniforms], self._chunk)

    def train_on(self, rollouts: Rollouts, lr: float, random: np.random.RandomState) -> Dict[str, float]:
        """Train for `ppo.noptepochs` epochs on a batch of episodes, in minibatches shuffled anew for each epoch.

        Returns:
          the mean statistics of all updates, by their TensorBoard tags.
        """
        ppo = self.hparams.ppo
        stats = []
        for _ in range(ppo.noptepochs):
            order = random.permutation(self.batch)
            for minibatch in np.split(order, ppo.nminibatches):
                stats.append(self.update(Rollouts(*(array[minibatch] for array in rollouts)), lr))
        return {'ppo/' + tag: value for tag, value in _mean_of(stats).items()}

    def update(self, rollouts: Rollouts, lr: float) -> Dict[str, float]:
        """Take one step of Adam on a minibatch of episodes; return its statistics."""
        session = tf.get_default_session()
        feed = dict(zip(self._minibatch, rollouts))
        feed[self._lr] = lr
        if self._parts == 1:
            return run_with_stats(session, self._train_op, dict(self._minibatch_stats, **self._stats), feed)
        # The whitened targets need the whole minibatch; the gradient is a sum over its parts.
        targets = session.run(self._targets, feed)
        placeholders = self._part + self._part_targets
        split = [np.split(array, self._parts) for array in rollouts + targets]
        feeds = [dict(zip(placeholders, part)) for part in zip(*split)]
        stats = [
            run_with_stats(session, self._gradients.add if i else self._gradients.set, self._stats, part)
            for i, part in enumerate(feeds)
        ]
        return dict(_mean_of(stats), **run_with_stats(session, self._train_op, self._minibatch_stats, feed))


def episodes_that_fit(model: ModelHParams, tokens: int, response: int, memory: Optional[int], dtype: str) -> int:
    """Return how many episodes a GPU samples and scores at a time: those that fit GPU_SHARE of its memory, at least 1.

    A GPU samples 64 or 512 responses in about the same time. On a CPU, CPU_EPISODES measured best.

    Args:
      tokens: of an episode, context and response.
      response: tokens of the response.
      memory: bytes that TensorFlow may use on the GPU; None on a CPU.
    """
    if memory is None:
        return CPU_EPISODES
    # Keys and values of all tokens, twice: those of the context are copied into an array with room for the response.
    cache = 2 * 2 * model.n_layer * tokens * model.n_embd * (2 if dtype == 'bfloat16' else 4)
    # The reference's logits at all tokens of the response, their softmax, and the products of the two.
    logits = 3 * response * model.n_vocab * 4
    return max(1, int(memory * GPU_SHARE / (cache + logits)))


def _mean_of(stats):
    return {tag: float(np.mean([s[tag] for s in stats])) for tag in stats[0]}
