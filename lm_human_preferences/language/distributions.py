"""Distributions over the next token, given by logits: log-probabilities, entropies, and sampling.

A softmax over 50 257 tokens at every position of a batch is a large array. Each function here passes over it as few
times as possible.

Indices are computed in int64 or float32: TensorFlow does arithmetic on int32 in the memory of the host, so that a GPU
would wait for the host at every token.
"""

import math
from typing import Tuple

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.tf_versions import tf


def logprobs_and_entropies(logits: tf.Tensor, tokens: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Return log-probabilities [...] of `tokens` [...] under `logits` [..., n_vocab], and entropies [...] in nats.

    The entropies are for reporting: no gradient flows through them.
    """

    @with_gradient
    def by_one_softmax(logits):
        probabilities = tf.nn.softmax(logits)
        # log Σ exp(logits), from the most likely token, whose probability is exp(logit) / Σ exp(logits).
        log_normalizer = tf.reduce_max(logits, axis=-1) - tf.log(tf.reduce_max(probabilities, axis=-1))
        entropies = log_normalizer - tf.reduce_sum(probabilities * logits, axis=-1)

        def gradient(slopes, _):
            chosen = tf.one_hot(tokens, logits.shape.as_list()[-1])
            return slopes[..., tf.newaxis] * (chosen - probabilities)

        return (at(logits, tokens) - log_normalizer, entropies), gradient

    return by_one_softmax(logits)


def token_logprobs(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """Return the log-probabilities [...] of `tokens` [...] under `logits` [..., n_vocab]."""
    return logprobs_and_entropies(logits, tokens)[0]


def at(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """Return the entry [...] of each of the `rows` [..., n] at its column in `columns` [...]."""
    return tf.squeeze(tf.batch_gather(rows, tf.cast(columns, tf.int64)[..., tf.newaxis]), axis=-1)


def draw(probabilities: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draw a token for each of the `uniforms` [batch] in [0, 1) from `probabilities` [batch, n_vocab].

    The cumulative distribution is inverted: first over sums of blocks of tokens, then within one block. That is cheaper
    than one running total over all tokens, and has less rounding error. A token of probability zero is never drawn.

    Returns:
      tokens [batch] int64.
    """
    tokens = probabilities.shape.as_list()[1]
    size = math.ceil(math.sqrt(tokens))
    padded = tf.pad(probabilities, [[0, 0], [0, -tokens % size]])
    blocks = tf.reshape(padded, [-1, math.ceil(tokens / size), size])
    sums = tf.reduce_sum(blocks, axis=-1)
    block, rest = _exceeding(sums, uniforms * tf.reduce_sum(sums, axis=-1))
    chosen = tf.batch_gather(blocks, tf.cast(block, tf.int64)[:, tf.newaxis])
    index, _ = _exceeding(tf.squeeze(chosen, axis=1), rest)
    return tf.cast(block * size + index, tf.int64)  # float32 is exact: a vocabulary has far fewer than 2²⁴ tokens


def _exceeding(masses, threshold):
    """Find where the running total of `masses` [batch, n] first exceeds `threshold` [batch].

    Returns:
      that index [batch] float32, and the threshold minus the total before it [batch].
    """
    totals = tf.cumsum(masses, axis=-1)
    # Keep the threshold below the total in spite of rounding.
    threshold = tf.minimum(threshold, totals[:, -1] * (1 - 1e-6))
    below = tf.cast(totals <= threshold[:, tf.newaxis], tf.float32)
    before = tf.reduce_max(below * totals, axis=-1)
    return tf.reduce_sum(below, axis=-1), threshold - before


def keep_top_k(logits: tf.Tensor, k: int) -> tf.Tensor:
    """Set all but the `k` largest logits [batch, n_vocab] of each row to -1e10. A `k` of 0 keeps all."""
    if k == 0:
        return logits
    smallest_kept = tf.nn.top_k(logits, k=min(k, logits.shape.as_list()[-1])).values[:, -1:]
    return tf.where(logits < smallest_kept, tf.fill(tf.shape(logits), -1e10), logits)


def keep_top_p(logits: tf.Tensor, p: float) -> tf.Tensor:
    """Keep the fewest most likely tokens whose probabilities sum to at least `p`. Set all other logits to -1e10."""
    if p >= 1:
        return logits
    ordered = tf.nn.top_k(logits, k=logits.shape.as_list()[-1]).values
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # total probability of all more likely tokens
    kept = tf.where(before < p, ordered, tf.fill(tf.shape(ordered), float('inf')))
    smallest_kept = tf.reduce_min(kept, axis=-1, keepdims=True)
    return tf.where(logits < smallest_kept, tf.fill(tf.shape(logits), -1e10), logits)
