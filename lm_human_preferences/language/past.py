"""The cache of keys and values: what attention needs from the tokens that the model has already read."""

from typing import NamedTuple, Optional, Sequence, Tuple

from lm_human_preferences.graph.tf_versions import empty_array, tf, write_in_place
from lm_human_preferences.language.shapes import count_to, last_size, shape_of


class Past(NamedTuple):
    """The keys and values of the tokens already read, perhaps with free slots for further tokens."""

    keys_values: Sequence[Tuple[tf.Tensor, tf.Tensor]]  # for each layer, each [batch, n_head, slots, head_dim]
    order: tf.Tensor  # [batch, slots] float32, the number of each slot; infinite if no real token is in it
    length: tf.Tensor  # int64, the number of slots in use; later ones are free
    first_rows: Optional[tf.Tensor] = None  # [batch * n_head] int64, see `with_room`

    def with_room(self, tokens: int) -> 'Past':
        """Return a copy with space for `tokens` more real tokens, which later calls write in place.

        Its `first_rows` are where each head's slots begin in keys or values, seen as a matrix with rows of head_dim
        numbers.
        """
        batch, heads, _, head_dim = shape_of(self.keys_values[0][0])

        def extended(old):
            # TensorFlow computes equal operations once, except for stateful ones, such as that of the empty array. So
            # no other copy shares this one's memory.
            return tf.concat([old, empty_array([batch, heads, tokens, head_dim], old.dtype)], axis=2)

        keys_values = tuple(tuple(map(extended, layer)) for layer in self.keys_values)
        free = tf.tile((tf.cast(self.length, tf.float32) + count_to(tokens))[tf.newaxis], [batch, 1])
        first_rows = count_to(batch * heads, tf.int64) * (self.length + tokens)
        return Past(keys_values, tf.concat([self.order, free], axis=1), self.length, first_rows)

    def write(self, layer: int, keys: tf.Tensor, values: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """Return a layer's keys and values after those of new tokens were written, in place, into the first free slots.

        Args:
          keys, values: [batch, n_head, sequence, head_dim].
        """
        rows = (self.first_rows + self.length)[:, tf.newaxis] + count_to(shape_of(keys)[2], tf.int64)
        rows = tf.cast(tf.reshape(rows, [-1]), tf.int32)
        return tuple(_write_rows(old, rows, new) for old, new in zip(self.keys_values[layer], (keys, values)))


def _write_rows(array, rows, values):
    """Return `array` (keys or values) after `values` were written, in place, into its `rows` of head_dim numbers."""
    head_dim = last_size(array)
    written = write_in_place(tf.reshape(array, [-1, head_dim]), rows, tf.reshape(values, [-1, head_dim]))
    return tf.reshape(written, shape_of(array))
