"""Fine-tune a language model with PPO against a reward model (section 2.2 of the paper).

Each step of PPO (`ppo_step`): sample responses to a batch of queries, score them, subtract a penalty for the KL
divergence from the initial language model, and take a few epochs of clipped policy and value updates.
"""

import contextlib
import copy
import functools
import math
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from lm_human_preferences import train_reward
from lm_human_preferences.datasets.query_batches import QueryBatches
from lm_human_preferences.graph.tf_versions import check_available, gpu_memory, tf
from lm_human_preferences.hyperparameters import TrainPolicyHParams as HParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import TrainedModel, check_vocabulary, find_model, find_reward_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.ppo import Rollouts, adaptive_kl_coef, token_rewards
from lm_human_preferences.method.ppo_trainer import PPOTrainer
from lm_human_preferences.method.sample_rows import sample_rows
from lm_human_preferences.mpi.ranks import Ranks, shared_temporary_folder
from lm_human_preferences.mpi.seeds import step_generator
from lm_human_preferences.online import OnlineRewardModel
from lm_human_preferences.runs.divergence import check_finite
from lm_human_preferences.runs.run_folder import POLICY
from lm_human_preferences.runs.samples import keep_samples
from lm_human_preferences.training_stage import Stage, Trained
from lm_human_preferences.utils.text import one_line

NUM_SHOWN = 4  # samples before and after fine-tuning, and for TensorBoard
NUM_LOGGED = 3  # samples at each other log interval
TEXTS_EVERY = 10  # log intervals
FIGURES_SHOWN = ('objective/score', 'objective/kl', 'objective/entropy')


def train(hparams: HParams) -> Trained:
    """Fine-tune a policy as `hparams` say and save it under `run.save_dir`/policy.

    With `rewards.train_new_model` the reward model is trained first, under `run.save_dir`/reward_model.
    Return where that is, and the statistics of the last step of PPO.
    """
    ranks = Ranks()
    hparams.validate(num_ranks=ranks.size)
    check_available(hparams.run.dtype, hparams.run.tf32)  # before a reward model is trained
    new_model = hparams.rewards.train_new_model
    if new_model is None:
        return fine_tune(hparams, hparams.rewards.trained_model)
    with contextlib.ExitStack() as stack:
        folder = hparams.run.save_dir or stack.enter_context(shared_temporary_folder(ranks))
        online = None
        if new_model.labels.schedule is None:
            train_new_reward_model(hparams, folder)
        else:
            online = stack.enter_context(OnlineRewardModel(hparams, folder, ranks))
            online.train_first()
        return fine_tune(hparams, folder, online)


def train_new_reward_model(hparams: HParams, save_dir: str) -> None:
    """Train the reward model of a policy's run under `save_dir`/reward_model."""
    new = copy.deepcopy(hparams.rewards.train_new_model)
    new.run.save_dir = save_dir
    if new.run.seed is None:
        new.run.seed = hparams.run.seed
    train_reward.train(new)


def fine_tune(hparams: HParams, reward_model: str, online: Optional[OnlineRewardModel] = None) -> Trained:
    """Run PPO against the reward model at `reward_model`, which `online` trains anew as labels come in."""
    stage = Stage(hparams, POLICY, events='ppo')
    num_steps = math.ceil(hparams.ppo.total_episodes / hparams.ppo.batch_size)
    if stage.step >= num_steps:
        stage.say(f'the policy in {hparams.run.save_dir} is finished: {stage.step} steps')
        return stage.outcome(stage.step)
    initial_model, scoring_model = find_models(hparams, reward_model, stage.ranks)
    task = Task(hparams.task, initial_model.encoding())
    stream = task.query_stream('train', stage.seed, stage.ranks, stage.checkpoints.position)
    stage.count_texts(hparams.task.query_dataset, stream.num_texts)
    stream.check()

    def build():
        begun_with = rollout_batch_size_so_far(stage.checkpoints.state)
        return PPOTrainer(hparams, task, initial_model.hparams, scoring_model.hparams, stage.ranks, begun_with)

    def load(trainer):
        return trainer.load(initial_model, scoring_model) if stage.is_new else []

    unchanging = ('ref_policy/',) if online else ('ref_policy/', 'reward_model/')

    def never_changes(variable):
        return variable.name.startswith(unchanging)

    with stage.session(build, load, initial_model.hparams, task.encoding, unchanging=never_changes) as trainer:
        queries = QueryBatches(stream, trainer.batch, num_steps - stage.step)
        kl_coef = stage.checkpoints.state.get('kl_coef', hparams.rewards.kl_coef)
        chosen = dict(rollout_batch_size=trainer.rollout_batch_size)
        if hparams.ppo.rollout_batch_size is None and gpu_memory() is not None:
            stage.say(f'{trainer.rollout_batch_size} episodes are sampled at a time (ppo.rollout_batch_size)')
        for step in stage.steps(num_steps, 'ppo'):
            save = functools.partial(stage.save, step, queries.position, kl_coef=kl_coef, **chosen)
            if online and online.refresh(step, trainer.respond, trainer.batch, save):
                reload_reward_model(stage, trainer, reward_model)
            random = step_generator(stage.seed, stage.ranks, step)
            lr = hparams.ppo.lr * (1 - step / num_steps)
            rollout, stats = ppo_step(trainer, next(queries), kl_coef, lr, random)
            stats = over_ranks(stats, stage.ranks, step)
            kl_coef = next_kl_coef(hparams, kl_coef, stats['objective/kl'])
            stats.update(elapsed_stats(step + 1, hparams, stage.checkpoints.seconds()), **{'ppo/lr': lr})
            report(stage, step, num_steps, rollout, stats, task.encoding)
            if step + 1 < num_steps:
                stage.after_step(step + 1, queries.position, kl_coef=kl_coef, **chosen)
        keep_final_samples(stage, trainer, task)
        stage.finish(num_steps, queries.position, kl_coef=kl_coef, **chosen)
    return stage.outcome(num_steps)


def rollout_batch_size_so_far(state: Dict[str, Any]) -> Optional[int]:
    """Return how many episodes a run that saved `state` samples at a time; None for a new run.

    A resumed run keeps this number, as rounding in batches of another size can tip a sampled token.
    """
    if not state:
        return None
    return state.get('rollout_batch_size') or state['hparams']['ppo'].get('rollout_batch_size')


def ppo_step(
    trainer: PPOTrainer, queries: np.ndarray, kl_coef: float, lr: float, random: np.random.RandomState
) -> Tuple[Dict[str, np.ndarray], Dict[str, float]]:
    """Take one step of PPO, from queries [batch, query_length] to statistics.

    Returns:
      the rollout, as `PPOTrainer.rollout` gives it, and the statistics of this rank's share of the batch.
    """
    # Respond, and score the responses.
    uniforms = random.random_sample([len(queries), trainer.hparams.task.response_length])
    rollout = trainer.rollout(queries, uniforms)
    # Each token is penalized for its divergence from the initial model; the last one gets the score.
    rewards, penalties = token_rewards(rollout['logprobs'], rollout['ref_logprobs'], rollout['scores'], kl_coef)
    # Update policy and value function.
    episodes = Rollouts(rollout['queries'], rollout['responses'], rollout['logprobs'], rollout['values'], rewards)
    stats = trainer.train_on(episodes, lr, random)
    stats.update(objective_stats(rollout, penalties, kl_coef))
    return rollout, stats


def next_kl_coef(hparams: HParams, kl_coef: float, kl: float) -> float:
    """Return the KL coefficient of the next step, after a step with this mean KL in nats."""
    adaptive = hparams.rewards.adaptive_kl
    if adaptive is None:
        return kl_coef
    return adaptive_kl_coef(kl_coef, kl, adaptive.target, hparams.ppo.batch_size, adaptive.horizon)


def over_ranks(stats: Dict[str, float], ranks: Ranks, step: int) -> Dict[str, float]:
    """Average statistics over ranks. UserError if one is NaN or infinite, before anything of the step is saved."""
    stats = ranks.mean_stats(stats)
    check_finite(stats, step + 1)
    stats['ppo/val/var_explained'] = 1 - stats['ppo/val/error'] / max(stats['ppo/returns/var'], 1e-12)
    return stats


def objective_stats(rollout: Dict[str, np.ndarray], penalties: np.ndarray, kl_coef: float) -> Dict[str, float]:
    """What PPO maximizes, as means over episodes: score, KL from the reference (nats), and the two together."""
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


def find_models(hparams: HParams, reward_model: str, ranks: Ranks) -> Tuple[TrainedModel, TrainedModel]:
    """Find the initial language model and the reward model. UserError if they read different vocabularies."""
    initial_model = find_model(hparams.task.policy.initial_model)
    # A new reward model has the size of the initial model. On other hosts its folder may not exist.
    is_here = ranks.is_first or hparams.rewards.train_new_model is None
    scoring_model = find_reward_model(reward_model) if is_here else initial_model
    owner = f'task.policy.initial_model {hparams.task.policy.initial_model}'
    check_vocabulary(initial_model.encoding(), owner, {f'rewards.trained_model {reward_model}': scoring_model})
    return initial_model, scoring_model


def reload_reward_model(stage: Stage, trainer: PPOTrainer, reward_model: str) -> None:
    """Score with the reward model that is now at `reward_model`, on all ranks."""
    if stage.ranks.is_first:
        trainer.load_reward_model(find_reward_model(reward_model))
    stage.ranks.broadcast_variables(tf.get_default_session(), trainer.reward_model.variables)


def report(
    stage: Stage,
    step: int,
    num_steps: int,
    rollout: Dict[str, np.ndarray],
    stats: Dict[str, float],
    encoding: Encoding,
) -> None:
    """Write the statistics of a step, and every `run.log_interval` steps print them with a few samples."""
    figures = stage.show(stats, FIGURES_SHOWN)
    is_first, is_last = step == 0, step == num_steps - 1
    stage.summaries.write(stats, step)
    if stage.is_logged(step, num_steps):
        lines = sample_lines(rollout, stats['objective/kl_coef'], encoding)
        if step % (TEXTS_EVERY * stage.hparams.run.log_interval) == 0 or is_last:
            stage.summaries.write_texts('samples', lines[:NUM_SHOWN], step)
        stage.summaries.write_histogram('objective/scores', rollout['scores'], step)
        titles = ['Samples before fine-tuning:'] * is_first + ['Samples after fine-tuning:'] * is_last
        logged = [] if titles else lines[:NUM_LOGGED]
        stage.say('\n  '.join([f'step {step + 1}/{num_steps}  {figures}', *logged]))
        for title in titles:
            stage.say('\n'.join(['', title, *(f'  {line}' for line in lines[:NUM_SHOWN]), '']))
    if is_first and stage.run_folder:
        keep_samples(stage.run_folder, sample_rows('initial', rollout, encoding))


def keep_final_samples(stage: Stage, trainer: PPOTrainer, task: Task) -> None:
    """Write what the policy now responds to the first step's queries, by the same random numbers."""
    if stage.run_folder is None:
        return
    queries = task.query_stream('train', stage.seed, stage.ranks).next_batch(trainer.batch)
    random = step_generator(stage.seed, stage.ranks, step=0)
    rollout = trainer.rollout(queries, random.random_sample([trainer.batch, task.hparams.response_length]))
    keep_samples(stage.run_folder, sample_rows('fine-tuned', rollout, task.encoding))


def sample_lines(rollout: Dict[str, np.ndarray], kl_coef: float, encoding: Encoding) -> List[str]:
    """Return queries and responses, one a line, with score, KL (nats) and their total: score − kl_coef·KL."""
    lines = []
    for i, score in enumerate(rollout['scores'][:NUM_SHOWN]):
        query, response = (one_line(encoding.decode(rollout[name][i])) for name in ('queries', 'truncated'))
        kl = float((rollout['logprobs'][i] - rollout['ref_logprobs'][i]).sum())
        lines.append(f'{query} ▸ {response}   [score {score:.2f}, KL {kl:.1f}, total {score - kl_coef * kl:.2f}]')
    return lines
