"""Mean and variance of a batch, of which each rank may hold a share."""

from typing import Callable, Tuple

from lm_human_preferences.graph.tf_versions import tf

# Averages all entries of a tensor: `tf.reduce_mean`, or the mean over the tensors of all ranks.
Mean = Callable[[tf.Tensor], tf.Tensor]


def moments(values: tf.Tensor, mean: Mean = tf.reduce_mean) -> Tuple[tf.Tensor, tf.Tensor]:
    """Compute mean and variance of all entries, both scalar."""
    average = mean(values)
    return average, mean(tf.squared_difference(values, average))
