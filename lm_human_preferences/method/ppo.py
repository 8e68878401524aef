"""Proximal policy optimization for text, as plain functions on tensors (section 2.2 of the paper).

Every array is [batch, length]: each row is an episode, each column a response token. Normalizing functions take the
averaging function as an argument: `tf.reduce_mean`, or the mean over all ranks when each rank holds a share of the
minibatch.
"""

from typing import Dict, NamedTuple, Tuple

import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import PpoHParams
from lm_human_preferences.method.moments import Mean, moments


def token_rewards(
    logprobs: np.ndarray, ref_logprobs: np.ndarray, scores: np.ndarray, kl_coef: float
) -> Tuple[np.ndarray, np.ndarray]:
    """Compute the reward of every token: −kl_coef·(logprob − ref logprob), plus the score on the last token.

    Args:
      logprobs, ref_logprobs: of the response tokens under the policy and under the initial model, [batch, length].
      scores: of the responses, by the reward model, [batch].

    Returns:
      the rewards, and the KL penalties alone, both [batch, length].
    """
    penalties = -kl_coef * (logprobs - ref_logprobs)
    rewards = penalties.copy()
    rewards[:, -1] += scores
    return rewards, penalties


def adaptive_kl_coef(kl_coef: float, kl: float, target: float, episodes: int, horizon: int) -> float:
    """Update the KL coefficient after `episodes` episodes, so that the KL approaches `target` (section 2.2).

    Args:
      kl: the mean KL of these episodes, in nats per response.
      horizon: in how many episodes the coefficient can change by 20 %.
    """
    proportional_error = float(np.clip(kl / target - 1, -0.2, 0.2))
    return kl_coef * (1 + proportional_error * episodes / horizon)


def whiten(values: tf.Tensor, shift_mean: bool = True, mean: Mean = tf.reduce_mean) -> tf.Tensor:
    """Scale `values` to variance 1 over all entries. Shift them to mean 0 too, unless `shift_mean` is False."""
    average, variance = moments(values, mean)
    whitened = (values - average) * tf.rsqrt(variance + 1e-8)
    return whitened if shift_mean else whitened + average


def generalized_advantages(rewards: tf.Tensor, values: tf.Tensor, gamma: float, lam: float) -> tf.Tensor:
    """Estimate advantages (Schulman et al. 2015): Σ_l (γλ)^l δ_{t+l}, with δ_t = r_t + γ v_{t+1} − v_t.

    The value after the last token is 0. The sum over later tokens is a product with a constant triangular matrix.

    Args:
      rewards, values: of every token, [batch, length].
    """
    length = rewards.shape.as_list()[1]
    next_values = tf.pad(values[:, 1:], [[0, 0], [0, 1]])
    deltas = rewards + gamma * next_values - values
    steps_ahead = np.arange(length)[:, np.newaxis] - np.arange(length)  # from the column's token to the row's
    weights = np.where(steps_ahead >= 0, (gamma * lam) ** np.maximum(steps_ahead, 0), 0)
    return tf.matmul(deltas, tf.constant(weights, tf.float32))


class Rollouts(NamedTuple):
    """A minibatch of episodes, with the logprobs and values at the time when they were sampled."""

    queries: tf.Tensor  # [batch, query_length]
    responses: tf.Tensor  # [batch, length], as are all fields below
    logprobs: tf.Tensor
    values: tf.Tensor
    rewards: tf.Tensor


class Targets(NamedTuple):
    """What the policy and the value function are trained towards."""

    advantages: tf.Tensor  # [batch, length], whitened
    returns: tf.Tensor  # [batch, length], what the value function should predict


def ppo_targets(
    hparams: PpoHParams, rollouts: Rollouts, mean: Mean = tf.reduce_mean
) -> Tuple[Targets, Dict[str, tf.Tensor]]:
    """Compute whitened advantages and returns of a minibatch, and its statistics by their TensorBoard tags.

    Args:
      mean: averages over the whole minibatch. `rollouts` may be one rank's share of it.
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
    # With whitened advantages the step size does not depend on the scale of the rewards.
    return Targets(whiten(advantages, mean=mean), returns), stats


def ppo_loss(
    hparams: PpoHParams,
    rollouts: Rollouts,
    targets: Targets,
    logprobs: tf.Tensor,
    entropies: tf.Tensor,
    values: tf.Tensor,
) -> Tuple[tf.Tensor, Dict[str, tf.Tensor]]:
    """Compute the clipped loss of policy and value function: a mean over the tokens of a minibatch, or of a part of it.

    Args:
      rollouts: the episodes, with the logprobs and values of the policy that sampled them.
      targets: advantages and returns of these episodes. No gradient flows into them.
      logprobs, entropies, values: of the policy in training, for the same tokens, [batch, length].

    Returns:
      the loss to minimize (scalar), and the statistics of the update by their TensorBoard tags.
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
