"""Shapes of tensors while the graph is built: numbers where they are known, tensors elsewhere."""

from typing import List, Union

import numpy as np

from lm_human_preferences.graph.tf_versions import tf

Size = Union[int, tf.Tensor]


def shape_of(x: tf.Tensor) -> List[Size]:
    """Return the size of each dimension: a number if it is known while the graph is built, else a scalar tensor."""
    known = x.shape.as_list()
    dynamic = tf.shape(x) if None in known else known
    return [dynamic[i] if size is None else size for i, size in enumerate(known)]


def last_size(x: tf.Tensor) -> Size:
    """Return the size of the last dimension."""
    return shape_of(x)[-1]


def count_to(size: Size, dtype: tf.DType = tf.float32) -> Union[np.ndarray, tf.Tensor]:
    """Return 0, 1, …, size - 1, as an array if `size` is known while the graph is built."""
    if isinstance(size, int):
        return np.arange(size, dtype=dtype.as_numpy_dtype)
    return tf.cast(tf.range(size), dtype)
