"""Train a reward model on human choices between texts (section 2.1 of the paper).

The model starts from the language model that will be fine-tuned, sees every label once in random order, and is
normalized so that its rewards on that language model's own samples have mean 0 and standard deviation 1.
"""

import os

import numpy as np

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.graph.optimizer import minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TrainRewardHParams as HParams
from lm_human_preferences.language.trained_models import find_model, save_model_folder
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.rewards import RewardModel, normalizing_gain_bias
from lm_human_preferences.mpi.collectives import gradient_average, initialize_variables, mean_over_batch
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import step_generator
from lm_human_preferences.runs.checkpoints import Checkpoints
from lm_human_preferences.runs.divergence import GRADIENT_NORM, check_finite
from lm_human_preferences.runs.resuming import save_hparams
from lm_human_preferences.runs.summaries import SummaryWriter, brief
from lm_human_preferences.utils.gc_pause import gc_paused
from lm_human_preferences.utils.progress import progress, say


class RewardTrainer:
    """The graph of reward training: one step on a batch of labels, and rewards of the initial policy's samples."""

    @gc_paused()
    def __init__(self, hparams: HParams, task: Task, model_hparams, ranks: Ranks):
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
        rollouts = hparams.rollout_batch_size
        if hparams.normalize_samples:
            rollouts = min(rollouts, hparams.normalize_samples)
        self.rollout_batch = -(-rollouts // ranks.size)
        self._queries = tf.placeholder(tf.int32, [self.rollout_batch, hparams.task.query_length], name='queries')
        self._uniforms = tf.placeholder(tf.float32, [self.rollout_batch, hparams.task.response_length], name='uniforms')
        responses, _ = task.truncate(self.ref_policy.respond(self._queries, self._uniforms)['responses'])
        self._sample_rewards = self.reward_model.rewards(self._queries, responses)

    def step(self, session: tf.Session, labels, lr: float):
        """One step of Adam on this rank's share of a batch; returns the statistics of that share."""
        feed = {placeholder: labels[name] for name, placeholder in self._labels.items()}
        feed[self._lr] = lr
        return run_with_stats(session, self._train_op, self._stats, feed)

    def sample_rewards(self, session: tf.Session, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Rewards [rollout_batch] of what the initial policy responds to the queries."""
        return session.run(self._sample_rewards, {self._queries: queries, self._uniforms: uniforms})


class Normalizer:
    """Sets the reward model's gain and bias by its rewards on samples of the initial policy."""

    def __init__(self, trainer: RewardTrainer, session: tf.Session, queries: QueryStream, seed: int, ranks: Ranks):
        self._trainer = trainer
        self._session = session
        self._queries = queries
        self._seed = seed
        self._ranks = ranks

    def _measure(self, samples, stage, random):
        """Mean and standard deviation of the rewards of at least `samples` samples, over all ranks."""
        trainer = self._trainer
        length = trainer.hparams.task.response_length
        batches = -(-samples // (trainer.rollout_batch * self._ranks.size))
        rewards = [
            trainer.sample_rewards(
                self._session,
                self._queries.next_batch(trainer.rollout_batch),
                random.random_sample([trainer.rollout_batch, length]),
            )
            for _ in progress(range(batches), stage, self._ranks.is_first)
        ]
        rewards = np.array(rewards, np.float64)  # their variance may be small beside their mean
        mean, mean_of_squares = self._ranks.mean([np.mean(rewards), np.mean(np.square(rewards))])
        return mean, np.sqrt(max(mean_of_squares - mean**2, 0))

    def normalize(self, target_mean: float, target_std: float, stage: str, step: int) -> None:
        """Give the rewards of the initial policy's samples the target's mean and standard deviation.

        `stage` is its name for people; the samples have the random numbers of `step`.
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

    def _set(self, gain, bias):
        self._trainer.reward_model.gain.load(gain, self._session)
        self._trainer.reward_model.bias.load(bias, self._session)


def train(hparams: HParams) -> None:
    """Train a reward model as `hparams` say and save it under `run.save_dir`/reward_model."""
    ranks = Ranks()
    hparams.validate(num_ranks=ranks.size)
    if hparams.labels.schedule is not None:
        raise ValueError('labels.schedule buys labels while a policy trains: give it to train_policy')
    save_dir = hparams.run.save_dir if ranks.is_first else None
    folder = os.path.join(save_dir, 'reward_model') if save_dir else None
    checkpoints = Checkpoints(folder, hparams, ranks)
    if checkpoints.finished:
        say(f'the reward model in {hparams.run.save_dir} is finished: {checkpoints.step} steps', ranks.is_first)
        return
    seed = checkpoints.seed

    initial_model = find_model(hparams.task.policy.initial_model)
    encoding = initial_model.encoding()
    task = Task(hparams.task, encoding)
    task.check_fits(initial_model.hparams.n_ctx, task.context_length)
    label_type = get_label_type(hparams.labels.type)
    schema = label_schema(label_type, hparams.task.query_length, hparams.task.response_length)
    labels = load_labels(hparams.labels.source, schema, hparams.labels.num_train, encoding)
    queries = task.query_stream('train', seed, ranks, checkpoints.position)
    if hparams.normalize_before or hparams.normalize_after:
        queries.check()

    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        tf.set_random_seed(seed)
        trainer = RewardTrainer(hparams, task, initial_model.hparams, ranks)
        if folder:
            save_model_folder(folder, initial_model.hparams, encoding)
            save_hparams(save_dir, hparams)
        summaries = SummaryWriter(os.path.join(save_dir, 'tb', 'reward_model') if save_dir else None, checkpoints.step)
        loaded = initial_model.load(session, trainer.ref_policy.model) if ranks.is_first else []
        loaded += checkpoints.restore(
            session, [v for v in tf.global_variables() if not v.name.startswith('ref_policy/')]
        )
        if ranks.is_first and checkpoints.step == 0:
            loaded += initial_model.load(session, trainer.reward_model.model)
        initialize_variables(session, loaded, ranks)
        graph.finalize()

        normalizer = Normalizer(trainer, session, queries, seed, ranks)
        if hparams.normalize_before and checkpoints.step == 0:
            target_mean, target_std = label_type.target_moments(labels) or (0.0, 1.0)
            normalizer.normalize(target_mean, target_std, 'normalize before', step=0)

        # One pass in an order that all ranks share; each rank takes its stride of every batch.
        order = np.random.RandomState(seed).permutation(hparams.labels.num_train)
        num_steps = hparams.labels.num_train // hparams.batch_size
        bar = progress(range(checkpoints.step, num_steps), 'reward model', ranks.is_first)
        for step in bar:
            batch = order[step * hparams.batch_size : (step + 1) * hparams.batch_size][ranks.rank :: ranks.size]
            lr = hparams.lr * (1 - step / num_steps)
            stats = trainer.step(session, {name: values[batch] for name, values in labels.items()}, lr)
            check_finite(stats, step + 1)
            if step % hparams.run.log_interval == 0 or step == num_steps - 1:
                stats = ranks.mean_stats(stats)
                summaries.write(stats, step)
                figures = brief(stats, ['loss', 'accuracy', 'correlation'])
                bar.set_postfix_str(figures)
                say(f'reward model step {step + 1}/{num_steps}  {figures}', ranks.is_first)
            if step + 1 < num_steps:
                checkpoints.after_step(session, step + 1, queries.position)

        if hparams.normalize_after:
            normalizer.normalize(0.0, 1.0, 'normalize after', step=num_steps)
        checkpoints.finish(session, num_steps, queries.position)
        summaries.close()
    ranks.wait_for_all()  # whoever reads the model next finds it whole
