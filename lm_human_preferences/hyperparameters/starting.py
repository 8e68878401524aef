"""Rules for starting a run: hyperparameters with which it could not learn.

Saved runs that break them can still be read, sampled and reported.
"""

from lm_human_preferences.hyperparameters.rules import TEMPERATURE, check, check_float32
from lm_human_preferences.utils.hyperparams import HParams

MOST_KL_CHANGE = 0.2  # of the coefficient in a step, per batch_size / horizon (section 2.2 of the paper)
LEAST_MINIBATCH = 8  # episodes over which rewards are whitened


def check_shared(hparams: HParams, prefix: str) -> None:
    """Check what all training commands share; ValueError for a float that is no float32."""
    check_float32(hparams, prefix)


def check_task(task: HParams, prefix: str) -> None:
    """Check a task; ValueError for one whose responses cannot be sampled, or would all get the penalty."""
    check(task.policy, f'{prefix}policy.', 'temperature', TEMPERATURE)
    if task.truncate_token is not None and task.truncate_after >= task.response_length:
        raise ValueError(
            f'{prefix}truncate_after ({task.truncate_after}) must be below {prefix}response_length '
            f'({task.response_length}): otherwise every response gets {prefix}penalty_reward_value'
        )


def check_ppo(ppo: HParams, prefix: str) -> None:
    """Check PPO; ValueError for a run without a whole batch."""
    if ppo.total_episodes < ppo.batch_size:
        raise ValueError(
            f'{prefix}total_episodes ({ppo.total_episodes}) must be at least {prefix}batch_size ({ppo.batch_size})'
        )


def check_rewards(rewards: HParams, batch_size: int, prefix: str) -> None:
    """Check the control of the KL coefficient with batches of `batch_size` episodes; ValueError if it cannot work."""
    control = rewards.adaptive_kl
    if control is None:
        return
    if rewards.kl_coef == 0:
        raise ValueError(f'{prefix}kl_coef is 0 and {prefix}adaptive_kl cannot change that: give a value above 0')
    least = MOST_KL_CHANGE * batch_size
    if control.horizon <= least:
        raise ValueError(
            f'{prefix}adaptive_kl.horizon ({control.horizon}) must be above {least:g}, which is '
            f'{MOST_KL_CHANGE:g} × ppo.batch_size: otherwise a step could make the KL coefficient 0 or negative'
        )


def check_reward_training(hparams: HParams, num_ranks: int, prefix: str) -> None:
    """Check the training of a reward model; ValueError for settings that cannot work or would have no effect."""
    samples = max(hparams.normalize_samples, hparams.rollout_batch_size, num_ranks)
    if (hparams.normalize_before or hparams.normalize_after) and samples < 2:
        raise ValueError(f'{prefix}normalize_samples must be 2 or more: one sample has no standard deviation')
    schedule = hparams.labels.schedule
    if schedule is not None and schedule.overlap and schedule.labeler != 'page':
        group = f'{prefix}labels.schedule.'
        raise ValueError(f'{group}overlap is for people, and {group}labeler is {schedule.labeler}: leave it out')


def check_lm(hparams: HParams, prefix: str) -> None:
    """Check the training of a language model; ValueError for settings that cannot work or would have no effect."""
    decay = hparams.lr * hparams.weight_decay
    if decay >= 1:
        raise ValueError(
            f'{prefix}lr × {prefix}weight_decay must be below 1, not {decay:g}: '
            'otherwise a step removes all of a weight, or changes its sign'
        )
    rates = {name: field.default for name, field in type(hparams.model).tree().items() if name.endswith('_pdrop')}
    for name, default in rates.items():
        rate = getattr(hparams.model, name)
        if rate not in (default, hparams.dropout):
            raise ValueError(
                f'{prefix}model.{name} ({rate:g}) has no effect: {prefix}dropout is the rate of all dropouts in '
                f'training: give --{prefix}dropout={rate:g} and leave out {prefix}model.{name}'
            )
