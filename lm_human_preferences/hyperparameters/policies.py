"""Hyperparameters of `train_policy`: the reward, PPO, and the whole run."""

from dataclasses import dataclass
from typing import Optional

from lm_human_preferences.hyperparameters.reward_models import TrainRewardHParams
from lm_human_preferences.hyperparameters.rules import (
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    UNIT_INTERVAL,
    check,
    check_multiple,
)
from lm_human_preferences.hyperparameters.starting import (
    LEAST_MINIBATCH,
    check_ppo,
    check_rewards,
    check_shared,
    check_task,
)
from lm_human_preferences.hyperparameters.tasks import RunHParams, TaskHParams
from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class AdaptiveKLHParams(HParams):
    """Control of the KL coefficient towards a target (section 2.2 of the paper)."""

    target: float = hparam(None, 'Wanted KL divergence from the initial policy, in nats per response (section 2.2).')
    horizon: int = hparam(
        10000, 'Slowness of the control, in episodes: a step changes kl_coef by at most 20 % × batch_size / horizon.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'target horizon', POSITIVE)


@dataclass
class RewardHParams(HParams):
    """What PPO maximizes: the reward model's score minus kl_coef times the KL from the initial policy (section 2)."""

    kl_coef: float = hparam(0.2, 'Weight β of the KL penalty (section 2). With adaptive_kl: its first value.')
    adaptive_kl: Optional[AdaptiveKLHParams] = hparam(
        None, 'Adjust kl_coef after each step, to hold the KL at a target (section 2.2).'
    )
    trained_model: Optional[str] = hparam(None, 'Folder of the run whose reward model scores the responses.')
    train_new_model: Optional[TrainRewardHParams] = hparam(
        None, 'Train a new reward model first, with these hyperparameters of train_reward.'
    )

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'kl_coef', NOT_NEGATIVE)
        check(self, prefix, 'trained_model', NOT_EMPTY)
        trained, new = f'{prefix}trained_model', f'{prefix}train_new_model'
        if self.trained_model is not None and self.train_new_model is not None:
            raise ValueError(f'{trained} and {new} are both set: add --{new} off to use the trained model')
        if self.trained_model is None and self.train_new_model is None:
            raise ValueError(f'neither {trained} nor {new} is set: give --{trained}=DIR or --{new}=on')


@dataclass
class PpoHParams(HParams):
    """Proximal policy optimization (section 2.2 of the paper)."""

    total_episodes: int = hparam(2000000, 'Episodes of the whole run; one episode is one response (section 2.2).')
    batch_size: int = hparam(64, 'Episodes of a step, over all ranks.')
    nminibatches: int = hparam(1, 'Minibatches that a batch is divided into; each gives one update (section 2.2).')
    noptepochs: int = hparam(4, 'Epochs of updates on each batch (section 2.2).')
    lr: float = hparam(5e-6, 'Learning rate of the first step. It falls linearly to 0.')
    vf_coef: float = hparam(0.1, 'Weight of the value loss.')
    cliprange: float = hparam(0.2, 'Clip range of the ratio between new and old probabilities.')
    cliprange_value: float = hparam(0.2, 'Clip range of the change of a value.')
    gamma: float = hparam(1.0, 'Discount of later rewards, per token (section 2.2).')
    lam: float = hparam(0.95, 'λ of generalized advantage estimation.')
    whiten_rewards: bool = hparam(True, "Divide a minibatch's rewards by their standard deviation; keep their mean.")
    rollout_batch_size: Optional[int] = hparam(
        None,
        'Episodes that a rank samples at a time. None: 64 on a CPU; on a GPU, what fits a quarter of its memory.',
    )
    microbatch_size: int = hparam(
        0, 'Episodes whose gradient a rank computes at a time, to save memory. 0: its whole minibatch.'
    )

    def validate(self, prefix: str = '', num_ranks: Optional[int] = None) -> None:
        super().validate(prefix)
        check(self, prefix, 'total_episodes batch_size nminibatches noptepochs rollout_batch_size', POSITIVE)
        check(self, prefix, 'cliprange cliprange_value', POSITIVE)
        check(self, prefix, 'lr vf_coef microbatch_size', NOT_NEGATIVE)
        check(self, prefix, 'gamma lam', UNIT_INTERVAL)
        shares = self.nminibatches * (num_ranks or 1)
        check_multiple(f'{prefix}batch_size', self.batch_size, f'{prefix}nminibatches times ranks', shares)
        if self.microbatch_size:
            minibatch = self.batch_size // shares
            check_multiple("a rank's minibatch", minibatch, f'{prefix}microbatch_size', self.microbatch_size)
        least = LEAST_MINIBATCH * self.nminibatches
        if self.whiten_rewards and self.batch_size < least:
            raise ValueError(
                f'{prefix}batch_size must be at least {least}, not {self.batch_size}: '
                f'with {prefix}whiten_rewards a minibatch needs {LEAST_MINIBATCH} episodes'
            )
        if num_ranks is not None:
            check_ppo(self, prefix)


@dataclass
class TrainPolicyHParams(HParams):
    """Fine-tuning of a policy against a reward model; `rewards.train_new_model` trains that model first."""

    run: RunHParams = hparam(RunHParams, 'How the run is seeded, logged and saved.')
    task: TaskHParams = hparam(TaskHParams, 'The task that the policy learns.')
    rewards: RewardHParams = hparam(RewardHParams, 'What PPO maximizes.')
    ppo: PpoHParams = hparam(PpoHParams, 'Proximal policy optimization.')

    def validate(self, prefix: str = '', num_ranks: Optional[int] = None) -> None:
        super().validate(prefix)
        self.ppo.validate(f'{prefix}ppo.', num_ranks)
        if num_ranks is not None:
            check_shared(self, prefix)
            check_task(self.task, f'{prefix}task.')
            check_rewards(self.rewards, self.ppo.batch_size, f'{prefix}rewards.')
        new_model = self.rewards.train_new_model
        if new_model is not None:
            new_prefix = f'{prefix}rewards.train_new_model.'
            new_model.validate(new_prefix, num_ranks)
            differing = self.task.differences(new_model.task)
            if differing:
                names = ', '.join(f'task.{name}' for name in differing)
                raise ValueError(f'{new_prefix}task must equal {prefix}task; they differ in {names}')
