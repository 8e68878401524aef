"""Mean and variance of a batch that may be shared out to ranks."""

from typing import Callable, Tuple

from lm_human_preferences.graph.tf_versions import tf

# Of all entries of a tensor: `tf.reduce_mean`, or where ranks have shares of a batch, the mean over all shares.
Mean = Callable[[tf.Tensor], tf.Tensor]


def moments(values: tf.Tensor, mean: Mean = tf.reduce_mean) -> Tuple[tf.Tensor, tf.Tensor]:
    """Mean and variance of all entries, both scalar."""
    average = mean(values)
    return average, mean(tf.squared_difference(values, average))
