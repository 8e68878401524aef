"""The cache of keys and values: what attention needs from the tokens that the model has already read."""

from typing import NamedTuple, Sequence, Tuple

from lm_human_preferences.graph.tf_versions import empty_array, tf, write_in_place
from lm_human_preferences.language.shapes import Size, last_size, shape_of


class Past(NamedTuple):
    """The keys and values of the tokens already read, perhaps with free positions for further tokens."""

    keys_values: Sequence[Tuple[tf.Tensor, tf.Tensor]]  # for each layer, each [batch, n_head, size, head_dim]
    real: tf.Tensor  # [batch, size] bool: False where the token was padding
    length: tf.Tensor  # int32: the number of positions in use; later positions are free

    def with_room(self, tokens: int) -> 'Past':
        """Return a copy with space for `tokens` more real tokens, which later calls write in place."""
        batch, n_head, length, head_dim = shape_of(self.keys_values[0][0])
        shape = [batch, n_head, length + tokens, head_dim]
        rows = rows_of_positions(shape, 0, length)
        keys_values = tuple(
            tuple(write_rows(empty_array(shape, old.dtype), rows, old) for old in layer) for layer in self.keys_values
        )
        real = tf.pad(self.real, [[0, 0], [0, tokens]], constant_values=True)
        return Past(keys_values, real, self.length)


def rows_of_positions(shape: Sequence[Size], start: Size, num_tokens: Size) -> tf.Tensor:
    """Return where `num_tokens` positions from `start` on are in an array of keys or values.

    Args:
      shape: of the array, [batch, n_head, size, head_dim].

    Returns:
      row indices [batch * n_head * num_tokens] into the array seen as a matrix with rows of head_dim numbers.
    """
    batch, n_head, size, _ = shape
    heads = tf.range(batch * n_head)[:, tf.newaxis]
    return tf.reshape(heads * size + start + tf.range(num_tokens), [-1])


def write_rows(array: tf.Tensor, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Return `array` (keys or values) after `values` were written, in place, into its `rows` of head_dim numbers."""
    head_dim = last_size(array)
    written = write_in_place(tf.reshape(array, [-1, head_dim]), rows, tf.reshape(values, [-1, head_dim]))
    return tf.reshape(written, shape_of(array))
