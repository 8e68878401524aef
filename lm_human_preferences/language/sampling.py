"""Sample from the model, one token at a time.

The graph contains no random number generator. The caller feeds one uniform random number for each token. So a text
depends only on the caller's seed, and not on the batch that it is sampled in or on the version of TensorFlow.
"""

from typing import NamedTuple, Optional

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.distributions import at, draw, keep_top_k, keep_top_p
from lm_human_preferences.language.model import Model


class Samples(NamedTuple):
    """Continuations of a batch of contexts."""

    tokens: tf.Tensor  # [batch, length] int32
    logprobs: tf.Tensor  # [batch, length], of the tokens under the tempered and filtered distribution
    hidden: tf.Tensor  # [batch, length, n_embd], the states from which the tokens were sampled


def sample_sequence(
    model: Model,
    context: tf.Tensor,
    uniforms: tf.Tensor,
    padding_token: Optional[int] = None,
    temperature: float = 1.0,
    top_k: int = 0,
    top_p: float = 1.0,
) -> Samples:
    """Continue each context by one token for each of its uniform numbers.

    Args:
      context: [batch, context_length] int32. The last positions may be padding.
      uniforms: [batch, length] in [0, 1), one for each token. `length` must be known while the graph is built.
      temperature: divides the logits. 0: each token is the most likely one, the first of equal ones; its logprob is 0.
      top_k: sample only from this many most likely tokens. 0: from all.
      top_p: sample only from the fewest most likely tokens whose probabilities sum to at least this. 1: from all.
    """
    batch, length = uniforms.shape.as_list()
    decoder = model.for_decoding(batch)

    def next_token(hidden, step):
        if temperature == 0:
            tokens = tf.argmax(decoder.logits(hidden), axis=-1)
            return tokens, tf.zeros_like(tokens, tf.float32)
        logits = decoder.logits(hidden) / temperature
        probabilities = tf.nn.softmax(keep_top_p(keep_top_k(logits, top_k), top_p))
        tokens = draw(probabilities, uniforms[:, step])
        return tokens, tf.log(at(probabilities, tokens))

    states = model(context, padding_token, read=[context.shape.as_list()[1] - 1])
    hidden = states.hidden[:, 0]
    first = next_token(hidden, 0) + (hidden,)
    # Tokens are stored as floats, too: TensorFlow has no arrays of integers on GPUs.
    arrays = [tf.TensorArray(tf.float32, size=length, element_shape=value.shape) for value in first]
    arrays = _written(arrays, 0, first)
    past = states.past.with_room(length - 1)

    def body(step, tokens, position, keys_values, arrays):
        states = decoder(tokens[:, tf.newaxis], past=past._replace(keys_values=keys_values, length=position))
        hidden = states.hidden[:, 0]
        new = next_token(hidden, step) + (hidden,)
        return step + 1, new[0], states.past.length, states.past.keys_values, _written(arrays, step, new)

    *_, arrays = tf.while_loop(
        cond=lambda step, *_: step < length,
        body=body,
        loop_vars=(tf.constant(1), first[0], past.length, past.keys_values, arrays),
        back_prop=False,
        parallel_iterations=1,
    )
    stacked = []
    for array, value in zip(arrays, first):
        steps = array.stack()
        steps.set_shape([length] + value.shape.as_list())  # TensorFlow 1.13 does not know the number of steps
        stacked.append(tf.transpose(steps, [1, 0] + list(range(2, steps.shape.ndims))))
    return Samples(tf.cast(stacked[0], tf.int32), *stacked[1:])


def _written(arrays, step, values):
    return [array.write(step, tf.cast(value, tf.float32)) for array, value in zip(arrays, values)]
