"""Distributions over the next token, given by logits: log-probabilities, entropies, and drawing from them.

A softmax over 50257 tokens at every position of a batch is a large array: each function passes over it as few times as
it can.
"""

import math
from typing import Tuple

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.tf_versions import tf


def logprobs_and_entropies(logits: tf.Tensor, tokens: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
    """Log-probabilities [...] of `tokens` [...] under `logits` [..., n_vocab], and the entropies [...] in nats.

    The entropies are for reporting: no gradient goes through them.
    """

    @with_gradient
    def by_one_softmax(logits):
        probabilities = tf.nn.softmax(logits)
        # The likeliest token has probability exp(logit) / Σ exp(logits).
        log_normalizer = tf.reduce_max(logits, axis=-1) - tf.log(tf.reduce_max(probabilities, axis=-1))
        entropies = log_normalizer - tf.reduce_sum(probabilities * logits, axis=-1)

        def gradient(slopes, _):
            chosen = tf.one_hot(tokens, logits.shape.as_list()[-1])
            return slopes[..., tf.newaxis] * (chosen - probabilities)

        return (at(logits, tokens) - log_normalizer, entropies), gradient

    return by_one_softmax(logits)


def token_logprobs(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """Log-probabilities [...] of `tokens` [...] under `logits` [..., n_vocab]."""
    return logprobs_and_entropies(logits, tokens)[0]


def at(rows: tf.Tensor, columns: tf.Tensor) -> tf.Tensor:
    """The entries [...] of `rows` [..., n] at the `columns` [...] given."""
    return tf.squeeze(tf.batch_gather(rows, columns[..., tf.newaxis]), axis=-1)


def draw(probabilities: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Draw by inverting the cumulative distribution: tokens [batch] int32 for `uniforms` [batch] in [0, 1).

    Running totals are taken over blocks of tokens and then within one block: they cost more than plain sums, and add up
    more rounding. A token of probability zero is never drawn.
    """
    tokens = probabilities.shape.as_list()[1]
    size = math.ceil(math.sqrt(tokens))
    padded = tf.pad(probabilities, [[0, 0], [0, -tokens % size]])
    blocks = tf.reshape(padded, [-1, math.ceil(tokens / size), size])
    sums = tf.reduce_sum(blocks, axis=-1)
    block, rest = _exceeding(sums, uniforms * tf.reduce_sum(sums, axis=-1))
    place, _ = _exceeding(tf.squeeze(tf.batch_gather(blocks, block[:, tf.newaxis]), axis=1), rest)
    return block * size + place


def _exceeding(masses, threshold):
    """Where the running total of `masses` [batch, n] first exceeds `threshold` [batch], and how far before it is."""
    totals = tf.cumsum(masses, axis=-1)
    # A little below the total, whatever the rounding of the sums.
    threshold = tf.minimum(threshold, totals[:, -1] * (1 - 1e-6))
    below = tf.cast(totals <= threshold[:, tf.newaxis], tf.float32)
    before = tf.reduce_max(below * totals, axis=-1)
    return tf.cast(tf.reduce_sum(below, axis=-1), tf.int32), threshold - before


def keep_top_k(logits: tf.Tensor, k: int) -> tf.Tensor:
    """Set all but the `k` largest logits [batch, n_vocab] of each row to -1e10; 0 keeps all."""
    if k == 0:
        return logits
    smallest_kept = tf.nn.top_k(logits, k=min(k, logits.shape.as_list()[-1])).values[:, -1:]
    return tf.where(logits < smallest_kept, tf.fill(tf.shape(logits), -1e10), logits)


def keep_top_p(logits: tf.Tensor, p: float) -> tf.Tensor:
    """Keep the fewest likeliest tokens whose probabilities sum to at least `p`; set other logits to -1e10."""
    if p >= 1:
        return logits
    ordered = tf.nn.top_k(logits, k=logits.shape.as_list()[-1]).values
    before = tf.cumsum(tf.nn.softmax(ordered), axis=-1, exclusive=True)  # probability of all likelier tokens
    kept = tf.where(before < p, ordered, tf.fill(tf.shape(ordered), float('inf')))
    smallest_kept = tf.reduce_min(kept, axis=-1, keepdims=True)
    return tf.where(logits < smallest_kept, tf.fill(tf.shape(logits), -1e10), logits)
