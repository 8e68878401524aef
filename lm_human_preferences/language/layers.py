"""The layers of GPT-2 on matrices of activations, one row for each position.

Layer norm, GELU and softmax have gradients of their own: TensorFlow would derive them from each elementary operation,
which takes more passes over memory and keeps more arrays. A function under `with_gradient` returns its result and its
gradient function; its callers get the result.
"""

import math
from typing import List

import numpy as np

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.shapes import Size, last_size, shape_of

PANEL_WIDTH = {'float32': 32, 'bfloat16': 64}  # columns; the fastest of the widths tried, see benchmarks/README.md
MAX_PANEL_ROWS = 16  # with more rows, the arithmetic takes longer than reading the matrix


@with_gradient
def layer_norm(x: tf.Tensor, gain: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Normalize each row of x [rows, n_embd] to mean 0 and variance 1, then multiply by `gain` and add `bias` [n_embd].

    The gradient keeps only the normalized rows and their scales.
    """
    centred = x - tf.reduce_mean(x, axis=-1, keepdims=True)
    scale = tf.rsqrt(tf.reduce_mean(tf.square(centred), axis=-1, keepdims=True) + 1e-5)
    y = centred * scale

    def gradient(dy):
        to_y = dy * gain
        along = tf.reduce_mean(to_y * y, axis=-1, keepdims=True)
        to_x = (to_y - tf.reduce_mean(to_y, axis=-1, keepdims=True) - y * along) * scale
        return to_x, tf.reduce_sum(dy * y, axis=0), tf.reduce_sum(dy, axis=0)

    return y * gain + bias, gradient


@with_gradient
def gelu(x: tf.Tensor) -> tf.Tensor:
    """Return GELU in its tanh form, 0.5 x (1 + tanh(√(2/π) (x + 0.044715 x³))).

    It is computed as x · sigmoid(2 √(2/π) (x + 0.044715 x³)), which is equal and takes fewer passes over memory.
    """
    slope, cubic = 2 * math.sqrt(2 / math.pi), 2 * math.sqrt(2 / math.pi) * 0.044715
    gate = tf.sigmoid(x * (slope + cubic * tf.square(x)))
    y = x * gate

    def gradient(dy):
        return dy * (gate + (y - y * gate) * (slope + 3 * cubic * tf.square(x)))

    return y, gradient


@with_gradient
def attention_weights(scores: tf.Tensor, mask: tf.Tensor) -> tf.Tensor:
    """Return the softmax of scores [batch, n_head, queries, keys] plus `mask`. No gradient flows to `mask`."""
    weights = tf.nn.softmax(scores + mask)

    def gradient(dy):
        return weights * (dy - tf.reduce_sum(dy * weights, axis=-1, keepdims=True)), None

    return weights, gradient


def linear(x: tf.Tensor, weights: tf.Tensor, bias: tf.Tensor) -> tf.Tensor:
    """Return x [rows, n_in] times weights [n_in, n_out], plus bias [n_out]. The weights may be in panels."""
    return tf.nn.bias_add(product(tf.cast(x, weights.dtype), weights), bias)


def product(x: tf.Tensor, matrix: tf.Tensor) -> tf.Tensor:
    """Return x [rows, n_in] times a matrix [n_in, n_out], which may be in panels (see `in_panels`)."""
    if matrix.shape.ndims == 2:
        return tf.matmul(x, matrix)
    panels, _, width = matrix.shape.as_list()
    rows = x.shape.as_list()[0]
    pieces = tf.reshape(tf.matmul(x, matrix), [-1, width])  # pieces of result rows, panel by panel
    in_order = np.arange(panels * rows).reshape([panels, rows]).T.ravel()
    return tf.reshape(tf.gather(pieces, in_order), [rows, panels * width])  # faster than a transposition


def in_panels(matrix: tf.Tensor) -> tf.Tensor:
    """Return a matrix [n_in, n_out] as panels of columns, [n_out / width, n_in, width], each contiguous in memory.

    A product with few rows takes as long as reading the matrix, and panels are read fastest. If the width does not
    divide n_out, the matrix stays as it is.
    """
    n_in, n_out = matrix.shape.as_list()
    width = PANEL_WIDTH[matrix.dtype.name]
    return matrix if n_out % width else tf.transpose(tf.reshape(matrix, [n_in, -1, width]), [1, 0, 2])


def centred(matrix: tf.Tensor) -> tf.Tensor:
    """Return a matrix [rows, columns] less the mean of its rows."""
    rows = matrix.shape.as_list()[0]
    return matrix - tf.matmul(
        tf.fill([1, rows], 1 / rows), matrix
    )  # this product takes a sixth of a reduce_mean's time


def transposed_product(x: tf.Tensor, matrix: tf.Tensor, dtype: str) -> tf.Tensor:
    """Return x [rows, n] times the transpose of a matrix [m, n], all in float32.

    The gradient's products are computed in `dtype`.
    """
    if dtype == 'float32':
        return tf.matmul(x, matrix, transpose_b=True)

    @with_gradient
    def mixed_product(x, matrix):
        def gradient(dy):
            dy = tf.cast(dy, dtype)
            to_x = tf.matmul(dy, tf.cast(matrix, dtype))
            to_matrix = tf.matmul(dy, tf.cast(x, dtype), transpose_a=True)
            return tf.cast(to_x, tf.float32), tf.cast(to_matrix, tf.float32)

        return tf.matmul(x, matrix, transpose_b=True), gradient

    return mixed_product(x, matrix)


def take_rows(x: tf.Tensor, rows: tf.Tensor) -> tf.Tensor:
    """Return the `rows` [batch, n] of x [rows of x, …]: [batch * n, …]."""
    rows = tf.reshape(rows, [-1])

    @with_gradient
    def take(x):
        # The gradient of `tf.gather` is sparse. TensorFlow 1.13 warns where it is made dense.
        return tf.gather(x, rows), lambda slope: tf.unsorted_segment_sum(slope, rows, tf.shape(x)[0])

    return take(x)


def split_heads(x: tf.Tensor, num_arrays: int, heads: int, positions: Size) -> List[tf.Tensor]:
    """Split x [batch * positions, num_arrays * n_embd] into arrays [batch, heads, positions, head_dim]."""
    head_dim = last_size(x) // (num_arrays * heads)
    return tf.unstack(tf.transpose(tf.reshape(x, [-1, positions, num_arrays, heads, head_dim]), [2, 0, 3, 1, 4]))


def join_heads(x: tf.Tensor) -> tf.Tensor:
    """Join the heads of x [batch, heads, positions, head_dim]: [batch * positions, n_embd]."""
    _, heads, _, head_dim = shape_of(x)
    return tf.reshape(tf.transpose(x, [0, 2, 1, 3]), [-1, heads * head_dim])
