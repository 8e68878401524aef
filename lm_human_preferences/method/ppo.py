"""Proximal policy optimization for text, as plain functions on tensors (section 2.2 of the paper).

Every array is [batch, length]: one episode a row, one response token a column. Functions that normalize take
the mean to do it by: that of the tensor they see, or where a minibatch is shared out to ranks, that of all shares.
"""

from typing import Dict, NamedTuple, Tuple

import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import PpoHParams
from lm_human_preferences.method.moments import Mean, moments


def token_rewards(
    logprobs: np.ndarray, ref_logprobs: np.ndarray, scores: np.ndarray, kl_coef: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Rewards of every token: the KL penalty −kl_coef·(logprob − ref logprob), plus the score [batch] on the last one.

    Returns the rewards and the penalty alone, both [batch, length].
    """
    penalties = -kl_coef * (logprobs - ref_logprobs)
    rewards = penalties.copy()
    rewards[:, -1] += scores
    return rewards, penalties


def adaptive_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """The KL coefficient after `episodes` more, moved so that the KL tends to `target` (equation 4 of the paper)."""
    proportional_error = float(np.clip(kl / target - 1, -0.2, 0.2))
    return kl_coef * (1 + proportional_error * episodes / horizon)


def whiten(values: tf.Tensor, shift_mean: bool = True, mean: Mean = tf.reduce_mean) -> tf.Tensor:
    """Scale `values` to variance 1 over all entries, and to mean 0 unless the mean is to be kept."""
    average, variance = moments(values, mean)
    whitened = (values - average) * tf.rsqrt(variance + 1e-8)
    return whitened if shift_mean else whitened + average


def generalized_advantages(rewards: tf.Tensor, values: tf.Tensor, gamma: float, lam: float) -> tf.Tensor:
    """Generalized advantage estimates (Schulman et al. 2015): Σ_l (γλ)^l δ_{t+l}, δ_t = r_t + γ v_{t+1} − v_t.

    The value after the last token is 0. The sum over later tokens is one product with a constant triangular matrix.
    """
    length = rewards.shape.as_list()[1]
    next_values = tf.pad(values[:, 1:], [[0, 0], [0, 1]])
    deltas = rewards + gamma * next_values - values
    steps_ahead = np.arange(length)[:, np.newaxis] - np.arange(length)  # of the row's token after the column's
    weights = np.where(steps_ahead >= 0, (gamma * lam) ** np.maximum(steps_ahead, 0), 0)
    return tf.matmul(deltas, tf.constant(weights, tf.float32))


class Rollouts(NamedTuple):
    """A minibatch of episodes, as they were when the policy sampled them."""

    queries: tf.Tensor  # [batch, query_length]
    responses: tf.Tensor  # this and the rest: [batch, length]
    logprobs: tf.Tensor
    values: tf.Tensor
    rewards: tf.Tensor


class Targets(NamedTuple):
    """What a minibatch of episodes asks of the policy in training."""

    advantages: tf.Tensor  # [batch, length], whitened
    returns: tf.Tensor  # [batch, length], which the value function is to predict


def ppo_targets(
    hparams: PpoHParams, rollouts: Rollouts, mean: Mean = tf.reduce_mean
) -> Tuple[Targets, Dict[str, tf.Tensor]]:
    """Whitened advantages and returns of a minibatch, and statistics of it by their TensorBoard tags.

    Args:
      mean: over the whole minibatch, of which `rollouts` may be one rank's share.
    """
    rewards = whiten(rollouts.rewards, shift_mean=False, mean=mean) if hparams.whiten_rewards else rollouts.rewards
    advantages = generalized_advantages(rewards, rollouts.values, hparams.gamma, hparams.lam)
    returns = advantages + rollouts.values
    return_mean, return_var = moments(returns, mean)
    value_mean, value_var = moments(rollouts.values, mean)
    stats = {
        'returns/mean': return_mean,
        'returns/var': return_var,
        'val/mean': value_mean,
        'val/var': value_var,
    }
    # Whitened per minibatch: the step size does not depend on the scale of the rewards.
    return Targets(whiten(advantages, mean=mean), returns), stats


def ppo_loss(
    hparams: PpoHParams,
    rollouts: Rollouts,
    targets: Targets,
    logprobs: tf.Tensor,
    entropies: tf.Tensor,
    values: tf.Tensor,
) -> Tuple[tf.Tensor, Dict[str, tf.Tensor]]:
    """The clipped loss of policy and value function on a minibatch, or on a part of it: a mean over its tokens.

    Args:
      rollouts: the episodes with the logprobs and values of the policy that sampled them.
      targets: theirs, constants to the gradient.
      logprobs, entropies, values: of the policy in training, on the same tokens.

    Returns:
      the loss to minimize (scalar) and the statistics of the update by their TensorBoard tags.
    """
    advantages, returns = map(tf.stop_gradient, targets)
    clipped_values = tf.clip_by_value(
        values, rollouts.values - hparams.cliprange_value, rollouts.values + hparams.cliprange_value
    )
    value_losses = tf.square(values - returns)
    clipped_value_losses = tf.square(clipped_values - returns)
    value_loss = 0.5 * tf.reduce_mean(tf.maximum(value_losses, clipped_value_losses))

    ratio = tf.exp(logprobs - rollouts.logprobs)
    policy_losses = -advantages * ratio
    clipped_policy_losses = -advantages * tf.clip_by_value(ratio, 1 - hparams.cliprange, 1 + hparams.cliprange)
    policy_loss = tf.reduce_mean(tf.maximum(policy_losses, clipped_policy_losses))

    loss = policy_loss + hparams.vf_coef * value_loss

    stats = {
        'loss/policy': policy_loss,
        'loss/value': value_loss,
        'loss/total': loss,
        'policy/entropy': tf.reduce_mean(entropies),
        'policy/approxkl': 0.5 * tf.reduce_mean(tf.square(logprobs - rollouts.logprobs)),
        'policy/clipfrac': _fraction(clipped_policy_losses > policy_losses),
        'val/vpred': tf.reduce_mean(values),
        'val/error': tf.reduce_mean(value_losses),
        'val/clipfrac': _fraction(clipped_value_losses > value_losses),
    }
    return loss, stats


def _fraction(conditions):
    return tf.reduce_mean(tf.cast(conditions, tf.float32))
