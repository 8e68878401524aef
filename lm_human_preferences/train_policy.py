"""Fine-tune a language model with PPO against a reward model (section 2.2 of the paper).

Each step: sample responses to a batch of queries, score them, charge for the KL divergence from the initial language
model, and take a few epochs of clipped policy and value updates on those episodes.
"""

import contextlib
import copy
import functools
import os
from typing import Dict, List, Optional

import numpy as np

from lm_human_preferences import train_reward
from lm_human_preferences.graph.optimizer import GradientSum, minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TrainPolicyHParams as HParams
from lm_human_preferences.language.trained_models import find_model, find_reward_model, save_model_folder
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.ppo import Rollouts, Targets, adaptive_kl_coef, ppo_loss, ppo_targets, token_rewards
from lm_human_preferences.method.rewards import RewardModel
from lm_human_preferences.method.sample_rows import sample_rows
from lm_human_preferences.mpi.collectives import gradient_average, initialize_variables, mean_over_batch
from lm_human_preferences.mpi.ranks import Ranks, shared_temporary_folder
from lm_human_preferences.mpi.seeds import step_generator
from lm_human_preferences.online import OnlineRewardModel
from lm_human_preferences.runs.checkpoints import Checkpoints
from lm_human_preferences.runs.divergence import GRADIENT_NORM, check_finite
from lm_human_preferences.runs.resuming import save_hparams
from lm_human_preferences.runs.samples import keep_samples
from lm_human_preferences.runs.summaries import SummaryWriter, brief
from lm_human_preferences.utils.gc_pause import gc_paused
from lm_human_preferences.utils.progress import progress, say
from lm_human_preferences.utils.text import one_line

SAMPLES_SHOWN = 4
TEXTS_EVERY = 10  # log intervals
FIGURES_SHOWN = ('objective/score', 'objective/kl', 'objective/entropy')


class PPOTrainer:
    """The graph of fine-tuning: roll out the policy on a batch of queries, and update it on a minibatch of episodes."""

    @gc_paused()
    def __init__(self, hparams: HParams, task: Task, model_hparams, reward_model_hparams, ranks: Ranks):
        self.hparams = hparams
        self.task = task
        dtype = hparams.run.dtype
        self.policy = Policy(model_hparams, task, scope='policy', dtype=dtype)
        self.ref_policy = Policy(model_hparams, task, scope='ref_policy', dtype=dtype)
        self.reward_model = RewardModel(reward_model_hparams, task, dtype=dtype)
        self.batch = ranks.share(hparams.ppo.batch_size)
        self._build_rollout()
        self._build_update(ranks)

    def _build_rollout(self):
        task = self.hparams.task
        self._chunk = min(self.batch, self.hparams.ppo.rollout_batch_size)
        self._queries = tf.placeholder(tf.int32, [self._chunk, task.query_length], name='queries')
        self._uniforms = tf.placeholder(tf.float32, [self._chunk, task.response_length], name='uniforms')
        rollout = self.policy.respond(self._queries, self._uniforms)
        reference = self.ref_policy.analyze_responses(self._queries, rollout['responses'])
        truncated, valid = self.task.truncate(rollout['responses'])
        scores = self.task.penalize(self.reward_model.rewards(self._queries, truncated), valid)
        self._rollout = dict(rollout, ref_logprobs=reference['logprobs'], truncated=truncated, scores=scores)

    def _build_update(self, ranks):
        ppo, minibatch = self.hparams.ppo, self.batch // self.hparams.ppo.nminibatches
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        self._minibatch = self._episodes(minibatch)
        self._targets, self._minibatch_stats = ppo_targets(ppo, self._minibatch, mean_over_batch(ranks))
        variables = list(self.policy.model.variables.values())
        self._parts = minibatch // (ppo.microbatch_size or minibatch)
        if self._parts == 1:
            loss, self._stats = self._loss(self._minibatch, self._targets)
            self._train_op, norm = minimize(
                loss, variables, self._lr, scope='ppo_adam', average=gradient_average(ranks)
            )
        else:
            per_token = [ppo.microbatch_size, self.hparams.task.response_length]
            self._part = self._episodes(ppo.microbatch_size)
            self._part_targets = Targets(*(tf.placeholder(tf.float32, per_token) for _ in Targets._fields))
            loss, self._stats = self._loss(self._part, self._part_targets)
            self._gradients = GradientSum(loss / self._parts, variables)
            self._train_op, norm = self._gradients.minimize(self._lr, scope='ppo_adam', average=gradient_average(ranks))
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

    def rollout(self, session: tf.Session, queries: np.ndarray, uniforms: np.ndarray) -> Dict[str, np.ndarray]:
        """Respond to queries [batch, query_length] and score the responses, `ppo.rollout_batch_size` at a time.

        Returns:
          queries, responses, truncated (the responses as scored), scores [batch], and for every token the policy's
          logprobs and values and the reference's ref_logprobs.
        """
        return dict(self._in_chunks(session, self._rollout, queries, uniforms), queries=queries)

    def respond(self, session: tf.Session, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Responses as they are scored, [n, response_length], to any number of queries [n, query_length]."""
        truncated = {'truncated': self._rollout['truncated']}
        return self._in_chunks(session, truncated, queries, uniforms)['truncated']

    def _in_chunks(self, session, tensors, queries, uniforms):
        """The values of named tensors of the rollout for any number of queries."""
        parts = []
        for start in range(0, len(queries), self._chunk):
            rows = np.arange(start, start + self._chunk) % len(queries)  # the last chunk is filled up with rows again
            parts.append(session.run(tensors, {self._queries: queries[rows], self._uniforms: uniforms[rows]}))
        return {name: np.concatenate([part[name] for part in parts])[: len(queries)] for name in tensors}

    def update(self, session: tf.Session, rollouts: Rollouts, lr: float) -> Dict[str, float]:
        """One step of Adam on a minibatch of episodes; returns its statistics."""
        feed = dict(zip(self._minibatch, rollouts))
        feed[self._lr] = lr
        if self._parts == 1:
            return run_with_stats(session, self._train_op, dict(self._minibatch_stats, **self._stats), feed)
        targets = session.run(self._targets, feed)
        placeholders = self._part + self._part_targets
        split = [np.split(array, self._parts) for array in rollouts + targets]
        feeds = [dict(zip(placeholders, part)) for part in zip(*split)]
        stats = [
            run_with_stats(session, self._gradients.add if i else self._gradients.set, self._stats, part)
            for i, part in enumerate(feeds)
        ]
        return dict(_mean_of(stats), **run_with_stats(session, self._train_op, self._minibatch_stats, feed))

    def train_on(self, session: tf.Session, rollouts: Rollouts, lr: float, generator) -> Dict[str, float]:
        """All epochs of updates on a batch of episodes, in minibatches shuffled for each epoch; mean statistics."""
        ppo = self.hparams.ppo
        stats = []
        for _ in range(ppo.noptepochs):
            order = generator.permutation(self.batch)
            for minibatch in np.split(order, ppo.nminibatches):
                stats.append(self.update(session, Rollouts(*(array[minibatch] for array in rollouts)), lr))
        return {'ppo/' + tag: value for tag, value in _mean_of(stats).items()}


def _mean_of(stats):
    return {tag: float(np.mean([s[tag] for s in stats])) for tag in stats[0]}


def objective_stats(rollout: Dict[str, np.ndarray], penalties: np.ndarray, kl_coef: float) -> Dict[str, float]:
    """What the policy is after, per episode: score, KL from the reference (nats), and the two together."""
    kl = (rollout['logprobs'] - rollout['ref_logprobs']).sum(axis=1)
    score = float(rollout['scores'].mean())
    return {
        'objective/kl': float(kl.mean()),
        'objective/kl_coef': kl_coef,
        'objective/entropy': float(-rollout['logprobs'].sum(axis=1).mean()),
        'objective/score': score,
        'objective/score_total': score + float(penalties.sum(axis=1).mean()),
    }


def elapsed_stats(step: int, hparams: HParams, seconds: float) -> Dict[str, float]:
    """How far the run is after `step` steps and `seconds`; `fps` counts response tokens over all ranks."""
    episodes = step * hparams.ppo.batch_size
    tokens = episodes * hparams.task.response_length
    return {
        'elapsed/updates': step,
        'elapsed/episodes': episodes,
        'elapsed/steps/serial': step * hparams.task.response_length,
        'elapsed/steps/total': tokens,
        'elapsed/fps': tokens / max(seconds, 1e-9),
        'elapsed/time': seconds,
    }


def sample_lines(rollout: Dict[str, np.ndarray], encoding) -> List[str]:
    """A few queries and responses with score and KL, one a line."""
    lines = []
    for i in range(min(SAMPLES_SHOWN, len(rollout['queries']))):
        query = one_line(encoding.decode(rollout['queries'][i]))
        response = one_line(encoding.decode(rollout['truncated'][i]))
        kl = float((rollout['logprobs'][i] - rollout['ref_logprobs'][i]).sum())
        lines.append(f'{query} ▸ {response}   [score {rollout["scores"][i]:.2f}, KL {kl:.1f}]')
    return lines


def show_samples(title: str, rollout: Dict[str, np.ndarray], encoding) -> None:
    """Print a few queries and responses with score and KL."""
    say('\n'.join(['', title, *(f'  {line}' for line in sample_lines(rollout, encoding)), '']))


def train_new_reward_model(hparams: HParams, save_dir: str) -> None:
    """Train the reward model of a policy's run first, under `save_dir`/reward_model."""
    new = copy.deepcopy(hparams.rewards.train_new_model)
    new.run.save_dir = save_dir
    if new.run.seed is None:
        new.run.seed = hparams.run.seed
    train_reward.train(new)


def train(hparams: HParams) -> None:
    """Fine-tune a policy as `hparams` say and save it under `run.save_dir`/policy."""
    ranks = Ranks()
    hparams.validate(num_ranks=ranks.size)
    save_dir = hparams.run.save_dir
    new_model = hparams.rewards.train_new_model
    if new_model is None:
        fine_tune(hparams, hparams.rewards.trained_model, ranks)
        return
    with contextlib.ExitStack() as stack:
        folder = save_dir or stack.enter_context(shared_temporary_folder(ranks))
        online = None
        if new_model.labels.schedule is None:
            train_new_reward_model(hparams, folder)
        else:
            online = stack.enter_context(OnlineRewardModel(hparams, folder, ranks))
            online.train_first()
        fine_tune(hparams, folder, ranks, online)


def fine_tune(
    hparams: HParams, trained_reward_model: str, ranks: Ranks, online: Optional[OnlineRewardModel] = None
) -> None:
    """The PPO run against the reward model at `trained_reward_model`, which `online` trains anew as labels come."""
    ppo = hparams.ppo
    num_steps = max(1, ppo.total_episodes // ppo.batch_size)
    save_dir = hparams.run.save_dir if ranks.is_first else None
    folder = os.path.join(save_dir, 'policy') if save_dir else None
    checkpoints = Checkpoints(folder, hparams, ranks)
    if checkpoints.step >= num_steps:
        say(f'the policy in {hparams.run.save_dir} is finished: {checkpoints.step} steps', ranks.is_first)
        return
    initial_model = find_model(hparams.task.policy.initial_model)
    # A new reward model is of the initial model's kind; on other hosts there may be no folder of it.
    is_here = ranks.is_first or hparams.rewards.train_new_model is None
    reward_source = find_reward_model(trained_reward_model) if is_here else initial_model
    encoding = initial_model.encoding()
    if not reward_source.encoding().same_tokens(encoding):
        raise ValueError(
            f'rewards.trained_model {trained_reward_model} reads another vocabulary than '
            f'task.policy.initial_model {hparams.task.policy.initial_model}'
        )
    task = Task(hparams.task, encoding)
    queries = task.query_stream('train', checkpoints.seed, ranks, checkpoints.position)
    queries.check()

    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        tf.set_random_seed(checkpoints.seed)
        trainer = PPOTrainer(hparams, task, initial_model.hparams, reward_source.hparams, ranks)
        if folder:
            save_model_folder(folder, initial_model.hparams, encoding)
            save_hparams(save_dir, hparams)
        summaries = SummaryWriter(os.path.join(save_dir, 'tb', 'ppo') if save_dir else None, checkpoints.step)
        loaded = checkpoints.restore(session, tf.global_variables())
        if ranks.is_first and checkpoints.step == 0:
            loaded += initial_model.load(session, trainer.policy.model)
            loaded += initial_model.load(session, trainer.ref_policy.model)
            loaded += trainer.reward_model.load(session, reward_source)
        initialize_variables(session, loaded, ranks)
        graph.finalize()

        kl_coef = checkpoints.state.get('kl_coef', hparams.rewards.kl_coef)
        bar = progress(range(checkpoints.step, num_steps), 'ppo', ranks.is_first)
        for step in bar:
            save = functools.partial(checkpoints.save, session, step, queries.position, kl_coef=kl_coef)
            if online and online.refresh(step, functools.partial(trainer.respond, session), trainer.batch, save):
                if ranks.is_first:
                    trainer.reward_model.load(session, find_reward_model(trained_reward_model))
                ranks.broadcast_variables(session, trainer.reward_model.variables)
            random = step_generator(checkpoints.seed, ranks, step)
            rollout = trainer.rollout(
                session,
                queries.next_batch(trainer.batch),
                random.random_sample([trainer.batch, hparams.task.response_length]),
            )
            rewards, penalties = token_rewards(rollout['logprobs'], rollout['ref_logprobs'], rollout['scores'], kl_coef)
            episodes = Rollouts(
                rollout['queries'], rollout['responses'], rollout['logprobs'], rollout['values'], rewards
            )
            lr = ppo.lr * (1 - step / num_steps)
            stats = trainer.train_on(session, episodes, lr, random)

            stats.update(objective_stats(rollout, penalties, kl_coef))
            stats = ranks.mean_stats(stats)
            check_finite(stats, step + 1)
            stats['ppo/val/var_explained'] = 1 - stats['ppo/val/error'] / max(stats['ppo/returns/var'], 1e-12)
            if hparams.rewards.adaptive_kl is not None:
                adaptive = hparams.rewards.adaptive_kl
                kl_coef = adaptive_kl_coef(
                    kl_coef, stats['objective/kl'], adaptive.target, ppo.batch_size, adaptive.horizon
                )

            stats.update(elapsed_stats(step + 1, hparams, checkpoints.seconds()))
            bar.set_postfix_str(brief(stats, FIGURES_SHOWN))
            if step % hparams.run.log_interval == 0 or step == num_steps - 1:
                if step % (TEXTS_EVERY * hparams.run.log_interval) == 0 or step == num_steps - 1:
                    summaries.write_texts('samples', sample_lines(rollout, encoding), step)
                summaries.write_histogram('objective/scores', rollout['scores'], step)
                summaries.write(stats, step)
                say(f'step {step + 1}/{num_steps}  {brief(stats, FIGURES_SHOWN)}', ranks.is_first)
            if step == 0 and ranks.is_first:
                show_samples('Samples before fine-tuning:', rollout, encoding)
                if save_dir:
                    keep_samples(save_dir, sample_rows('initial', rollout, encoding))
            if step == num_steps - 1 and ranks.is_first:
                show_samples('Samples after fine-tuning:', rollout, encoding)
            if step + 1 < num_steps:
                checkpoints.after_step(session, step + 1, queries.position, kl_coef=kl_coef)
        if save_dir:
            # What the policy now makes of the first step's queries, by the same random numbers.
            first_queries = task.query_stream('train', checkpoints.seed, ranks).next_batch(trainer.batch)
            random = step_generator(checkpoints.seed, ranks, step=0)
            rollout = trainer.rollout(
                session, first_queries, random.random_sample([trainer.batch, hparams.task.response_length])
            )
            keep_samples(save_dir, sample_rows('fine-tuned', rollout, encoding))
        checkpoints.finish(session, num_steps, queries.position, kl_coef=kl_coef)
        summaries.close()
