"""Sampling from the model, one token at a time, by given uniform random numbers.

The graph draws nothing itself: the caller feeds one uniform number for each token, so the text depends on the seed of
the caller's generator alone, not on the batch it is sampled in or on the version of TensorFlow.
"""

from typing import NamedTuple, Optional

from lm_human_preferences.language.model import Model, Past
from lm_human_preferences.utils.tf_versions import tf


class Samples(NamedTuple):
    """Continuations of a batch of contexts."""

    tokens: tf.Tensor  # [batch, length] int32
    logprobs: tf.Tensor  # [batch, length], of the tokens under the tempered (and filtered) distribution
    hidden: tf.Tensor  # [batch, length, n_embd], the states the tokens were sampled from


def sample_sequence(
    model: Model,
    context: tf.Tensor,
    uniforms: tf.Tensor,
    padding_token: Optional[int] = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Samples:
    """Continue each context by as many tokens as there are uniform numbers for it.

    Args:
      context: [batch, context_length] int32; the last position may be padding.
      uniforms: [batch, length] in [0, 1), one for each token; `length` is known while the graph is built.
      temperature: divides the logits.
      top_k: sample among this many likeliest tokens only; 0: among all.
      top_p: sample among the fewest tokens whose probabilities sum to at least this; 1: among all.
    """
    length = uniforms.shape.as_list()[1]

    def next_token(hidden, step):
        logits = model.logits(hidden) / temperature
        logits = keep_top_p(keep_top_k(logits, top_k), top_p)
        tokens = tokens_at(logits, uniforms[:, step])
        return tokens, token_logprobs(logits, tokens)

    states = model(context, padding_token, read=[context.shape.as_list()[1] - 1])
    hidden = states.hidden[:, 0]
    tokens, logprobs = next_token(hidden, 0)
    arrays = [
        tf.TensorArray(value.dtype, size=length, element_shape=value.shape).write(0, value)
        for value in (tokens, logprobs, hidden)
    ]

    def body(step, tokens, past, *arrays):
        states = model(tokens[:, tf.newaxis], past=past)
        hidden = states.hidden[:, 0]
        tokens, logprobs = next_token(hidden, step)
        written = [array.write(step, value) for array, value in zip(arrays, (tokens, logprobs, hidden))]
        return (step + 1, tokens, states.past) + tuple(written)

    growing = Past(
        tuple((_growing(keys, axis=2), _growing(values, axis=2)) for keys, values in states.past.keys_values),
        _growing(states.past.real, axis=1),
    )
    scalar = tf.TensorShape([])
    outputs = tf.while_loop(
        cond=lambda step, *_: step < length,
        body=body,
        loop_vars=(tf.constant(1), tokens, states.past) + tuple(arrays),
        shape_invariants=(scalar, tokens.shape, growing) + (scalar,) * 3,
        back_prop=False,
    )
    stacked = []
    for array, first in zip(outputs[3:], (tokens, logprobs, hidden)):
        steps = array.stack()
        steps.set_shape([length] + first.shape.as_list())  # TensorFlow 1.13 forgets how many
        stacked.append(tf.transpose(steps, [1, 0] + list(range(2, steps.shape.ndims))))
    return Samples(*stacked)


def _growing(tensor, axis):
    """The shape of a tensor that gets longer along one axis."""
    shape = tensor.shape.as_list()
    return tf.TensorShape(shape[:axis] + [None] + shape[axis + 1 :])


def token_logprobs(logits: tf.Tensor, tokens: tf.Tensor) -> tf.Tensor:
    """Log-probabilities [...] of `tokens` [...] under `logits` [..., n_vocab]."""
    return -tf.nn.sparse_softmax_cross_entropy_with_logits(labels=tokens, logits=logits)


def tokens_at(logits: tf.Tensor, uniforms: tf.Tensor) -> tf.Tensor:
    """Sample by inverting the cumulative distribution: tokens [batch] int32 for `uniforms` [batch] in [0, 1).

    A token of probability zero is never chosen.
    """
    cumulative = tf.cumsum(tf.nn.softmax(logits), axis=-1)  # [batch, n_vocab]
    # A little below the total even for the largest uniform number, whatever the rounding of the sum.
    threshold = uniforms * cumulative[:, -1] * (1 - 1e-6)
    return tf.reduce_sum(tf.cast(cumulative <= threshold[:, tf.newaxis], tf.int32), axis=-1)


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
