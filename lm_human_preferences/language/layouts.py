"""Which positions of a batch are computed, and where attention finds them.

The activations of a batch are a matrix with one row for each token that is computed. Attention needs the same numbers
as [batch, n_head, slots, head_dim]. Without padding, every position has a row and a slot (`Whole`). With padding, only
real tokens have a row, and those of a text fill its first slots (`Packed`). So there are as many slots as the longest
text of the batch has tokens.

Each layout has
  tokens, positions: [rows] int64, of each row of the activations.
  order: [batch, slots] float32, the number of each slot; infinite if no real token is in it.
  length: int64, the number of slots.
  mask: [batch or 1, 1, queries, slots] float32, added to the attention scores.

Slots and positions are counted in int64 and floats: on a GPU, TensorFlow leaves arithmetic on int32 to the host.
"""

from typing import List, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language import layers
from lm_human_preferences.language.past import Past
from lm_human_preferences.language.shapes import count_to, last_size, shape_of


class Whole:
    """Every position is computed, and its slot is its position after the past."""

    def __init__(self, tokens: tf.Tensor, heads: int, attend: Optional[np.ndarray] = None, past: Optional[Past] = None):
        """Lay out tokens [batch, sequence] int64 for `heads` of attention; `attend` and `past` as in `Model`."""
        self._batch, self._sequence = shape_of(tokens)
        self._heads = heads
        slots = count_to(self._sequence)
        if past is None:
            self.order = tf.tile(slots[np.newaxis], [self._batch, 1])
            self.length = tf.cast(self._sequence, tf.int64)
            visible = slots <= slots[:, np.newaxis] if attend is None else attend
            visible = tf.convert_to_tensor(visible)[tf.newaxis]
        else:
            self.order, self.length = past.order, past.length + self._sequence
            now = tf.cast(past.length, tf.float32) + slots
            visible = past.order[:, tf.newaxis] <= now[:, tf.newaxis]
        self.mask = _mask(visible)
        self.tokens = tf.reshape(tokens, [-1])
        positions = tf.cast(tf.reduce_sum(tf.cast(visible, tf.float32), axis=-1) - 1, tf.int64)  # the tokens before
        self.positions = tf.reshape(tf.tile(positions, [self._batch, 1]) if past is None else positions, [-1])

    def split_heads(self, x: tf.Tensor, num_arrays: int) -> List[tf.Tensor]:
        """Split x [rows, num_arrays * n_embd] into arrays [batch, n_head, slots, head_dim]."""
        return layers.split_heads(x, num_arrays, self._heads, self._sequence)

    def join_heads(self, x: tf.Tensor) -> tf.Tensor:
        """Join the heads of x [batch, n_head, slots, head_dim]: [rows, n_embd]."""
        return layers.join_heads(x)

    def rows_of(self, read: Optional[Sequence[int]]) -> Optional[tf.Tensor]:
        """Return the rows that have the output of the positions in `read`, [batch, len(read)] int64.

        Args:
          read: None: all positions. The result may then be None: all rows in order.
        """
        if read is None:
            return None
        starts = count_to(self._batch, tf.int64)[:, np.newaxis] * self._sequence
        return tf.convert_to_tensor(starts + np.array(read, np.int64))

    def mask_of(self, rows: tf.Tensor, read: Sequence[int]) -> tf.Tensor:
        """Return the mask [batch or 1, 1, len(read), slots] for queries at `read`, whose rows these are."""
        return tf.gather(self.mask, np.array(read, np.int64), axis=2)


class Packed:
    """Real tokens are computed. A text's slots after its last token are masked, and what is in them has no effect.

    A text that begins with padding is an exception. All its positions are computed, because those before its first
    token have the output of position 0.
    """

    def __init__(self, tokens: tf.Tensor, heads: int, padding_token: int, attend: Optional[np.ndarray] = None):
        """Lay out tokens [batch, sequence] int64 for `heads` of attention; the other arguments as in `Model`."""
        self._batch, self._sequence = shape_of(tokens)
        self._heads, self._attend = heads, attend
        self._real = tf.not_equal(tokens, padding_token)
        computed = tf.logical_or(self._real, tf.logical_not(self._real[:, :1]))
        slot_of_position = self._find_slots(computed)
        places = tf.where(computed)  # [rows, 2]: text and position
        tokens = tf.where(self._real, tokens, tf.zeros_like(tokens))
        self.tokens, positions, real, slot = (
            tf.gather(tf.reshape(array, [-1]), places[:, 0] * self._sequence + places[:, 1])
            for array in (tokens, self._tokens_before(), self._real, slot_of_position)
        )
        self.positions = tf.cast(positions, tf.int64)
        in_use = tf.logical_and(self._filled, tf.gather(real, self._row_of_slot))
        slots = count_to(tf.shape(in_use)[1])
        self.order = tf.where(in_use, tf.zeros_like(in_use, tf.float32), tf.fill(tf.shape(in_use), np.inf)) + slots
        if attend is None:
            visible = self.order[:, tf.newaxis] <= slots[:, tf.newaxis]
        else:
            position = tf.gather(places[:, 1], self._row_of_slot)
            pairs = position[:, :, tf.newaxis] * self._sequence + position[:, tf.newaxis]
            visible = tf.logical_and(tf.gather(tf.constant(attend.ravel()), pairs), in_use[:, tf.newaxis])
        self.mask = _mask(visible)
        self._index_heads(places[:, 0], tf.cast(slot, tf.int64))

    def _find_slots(self, computed):
        """Set the row of each position and slot; return the slot of each position. Counts in float64 are exact."""
        order = tf.cumsum(tf.cast(computed, tf.float64), axis=1)
        counts = order[:, -1:]  # [batch, 1], the rows of each text
        starts = tf.cumsum(counts, exclusive=True)
        slots = count_to(tf.cast(tf.reduce_max(counts), tf.int32), tf.float64)
        self.length = tf.size(slots, out_type=tf.int64)
        self._filled = slots < counts  # [batch, slots]
        # These are right for positions that are computed and for slots that are filled. Any row will do for others.
        self._row_of_position = tf.cast(starts + order - 1, tf.int64)  # [batch, sequence]
        self._row_of_slot = tf.cast(starts + tf.minimum(slots, counts - 1), tf.int64)  # [batch, slots]
        return order - 1

    def _tokens_before(self):
        """Return how many real tokens each position attends to beside itself: [batch, sequence]."""
        real = tf.cast(self._real, tf.float32)
        if self._attend is None:
            return tf.cumsum(real, axis=1, exclusive=True)
        return tf.matmul(real, self._attend.T.astype(np.float32)) - real

    def _index_heads(self, text, slot):
        """Set where rows and slots are in matrices with a row of head_dim numbers for each head.

        `text` and `slot` [rows] are those of each row.
        """
        heads = np.arange(self._heads)
        self._slot_of_row = text * self.length + slot  # among all slots of the batch
        self._in_slots = (text[:, tf.newaxis] * self._heads + heads) * self.length + slot[:, tf.newaxis]
        num_rows = tf.size(text, out_type=tf.int64)
        row = tf.where(self._filled, self._row_of_slot, tf.fill(tf.shape(self._filled), num_rows))
        self._in_rows_or_zeros = row[:, tf.newaxis] * self._heads + heads[:, np.newaxis]  # [batch, n_head, slots]
        self._in_rows = {}  # num_arrays -> [num_arrays, batch, n_head, slots]
        for num_arrays in (2, 3):
            columns = np.arange(num_arrays * self._heads).reshape([num_arrays, 1, self._heads, 1])
            self._in_rows[num_arrays] = self._row_of_slot[:, tf.newaxis] * (num_arrays * self._heads) + columns

    def split_heads(self, x: tf.Tensor, num_arrays: int) -> List[tf.Tensor]:
        """Split x [rows, num_arrays * n_embd] into arrays [batch, n_head, slots, head_dim]."""
        width = last_size(x)
        head_dim = width // (num_arrays * self._heads)

        @with_gradient
        def split(x):
            arrays = tf.gather(tf.reshape(x, [-1, head_dim]), self._in_rows[num_arrays])

            def gradient(*slopes):
                of_rows = [tf.gather(tf.reshape(slope, [-1, head_dim]), self._in_slots) for slope in slopes]
                return tf.reshape(tf.concat(of_rows, axis=1), [-1, width])

            return tuple(tf.unstack(arrays)), gradient

        return list(split(x))

    def join_heads(self, x: tf.Tensor) -> tf.Tensor:
        """Join the heads of x [batch, n_head, slots, head_dim]: [rows, n_embd]."""
        head_dim = last_size(x)
        width = self._heads * head_dim

        @with_gradient
        def join(x):
            def gradient(slope):
                with_zeros = tf.concat([slope, tf.zeros([1, width], slope.dtype)], axis=0)
                return tf.gather(tf.reshape(with_zeros, [-1, head_dim]), self._in_rows_or_zeros)

            return tf.reshape(tf.gather(tf.reshape(x, [-1, head_dim]), self._in_slots), [-1, width]), gradient

        return join(x)

    def rows_of(self, read: Optional[Sequence[int]]) -> tf.Tensor:
        """Return the rows that have the output of the positions in `read`, [batch, len(read)] int64; None: of all.

        The output of a padded position is that of the last real token it attends to.
        """
        attend = np.tri(self._sequence, dtype=bool) if self._attend is None else self._attend
        attend = attend if read is None else attend[list(read)]
        visible = tf.cast(tf.logical_and(self._real[:, tf.newaxis], attend), tf.float32)
        last = tf.reduce_max(visible * count_to(self._sequence), axis=-1)
        texts = count_to(self._batch, tf.int64) * self._sequence
        return tf.gather(tf.reshape(self._row_of_position, [-1]), tf.cast(last, tf.int64) + texts[:, np.newaxis])

    def mask_of(self, rows: tf.Tensor, read: Sequence[int]) -> tf.Tensor:
        """Return the mask [batch, 1, len(read), slots] for queries at `read`, whose rows these are."""
        of_slots = tf.reshape(self.mask, [-1, tf.shape(self.mask)[-1]])
        return tf.gather(of_slots, tf.gather(self._slot_of_row, rows))[:, tf.newaxis]


def _mask(visible):
    """Return what to add to attention scores, [batch, 1, queries, slots], so that only `visible` slots count.

    It is large enough that other scores vanish in float32.
    """
    return tf.cast(tf.logical_not(visible), tf.float32)[:, tf.newaxis] * -1e10
