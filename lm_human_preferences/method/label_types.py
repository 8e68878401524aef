"""Types of human labels: what people were asked, and the loss of a reward model on their answers (section 2)."""

from typing import Dict, Optional, Tuple

import numpy as np

from lm_human_preferences.datasets.labels import Schema
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import best_of
from lm_human_preferences.method.moments import Mean, moments


def best_of_n_loss(rewards: tf.Tensor, best: tf.Tensor) -> Dict[str, tf.Tensor]:
    """Compute the softmax cross entropy of choosing sample `best` [batch] by `rewards` [batch, n] (equation 1)."""
    error = tf.reduce_mean(tf.nn.sparse_softmax_cross_entropy_with_logits(labels=best, logits=rewards))
    chosen = tf.argmax(rewards, axis=1, output_type=tf.int32)
    return dict(loss=error, error=error, accuracy=tf.reduce_mean(tf.cast(tf.equal(chosen, best), tf.float32)))


def scalar_rating_loss(rewards: tf.Tensor, scores: tf.Tensor, mean: Mean = tf.reduce_mean) -> Dict[str, tf.Tensor]:
    """Compute the squared error between `rewards` and people's `scores`, both [batch], and Pearson's `corr`.

    `mean` averages over the whole batch. The tensors may be one rank's share of it.
    """
    error = tf.reduce_mean(tf.squared_difference(rewards, scores))
    (mean_reward, var_reward), (mean_score, var_score) = moments(rewards, mean), moments(scores, mean)
    covariance = mean((rewards - mean_reward) * (scores - mean_score))
    corr = covariance * tf.rsqrt(var_reward * var_score + 1e-12)
    return dict(loss=error, error=error, label_mean=mean_score, label_var=var_score, corr=corr)


def scalar_compare_loss(rewards: tf.Tensor, difference: tf.Tensor) -> Dict[str, tf.Tensor]:
    """Compute the squared error between reward1 − reward0 (`rewards` [batch, 2]) and people's `difference` [batch]."""
    error = tf.reduce_mean(tf.squared_difference(rewards[:, 1] - rewards[:, 0], difference))
    return dict(loss=error, error=error)


class BestOfN:
    """A person picked the best of n samples."""

    def __init__(self, n: int):
        self.sample_names = [f'sample{i}' for i in range(n)]

    def answer_schema(self) -> Schema:
        return dict(best=(np.int32, ()))

    def loss(
        self, rewards: tf.Tensor, labels: Dict[str, tf.Tensor], mean: Mean = tf.reduce_mean
    ) -> Dict[str, tf.Tensor]:
        return best_of_n_loss(rewards, labels['best'])

    def target_moments(self, labels: Dict[str, np.ndarray]) -> Optional[Tuple[float, float]]:
        return None


class ScalarRating:
    """A person rated one sample by a number."""

    sample_names = ['sample']

    def answer_schema(self) -> Schema:
        return dict(score=(np.float32, ()))

    def loss(
        self, rewards: tf.Tensor, labels: Dict[str, tf.Tensor], mean: Mean = tf.reduce_mean
    ) -> Dict[str, tf.Tensor]:
        return scalar_rating_loss(rewards[:, 0], labels['score'], mean)

    def target_moments(self, labels: Dict[str, np.ndarray]) -> Optional[Tuple[float, float]]:
        return float(labels['score'].mean()), float(labels['score'].std())


class ScalarCompare:
    """A person said by how much sample 1 is better than sample 0."""

    sample_names = ['sample0', 'sample1']

    def answer_schema(self) -> Schema:
        return dict(difference=(np.float32, ()))

    def loss(
        self, rewards: tf.Tensor, labels: Dict[str, tf.Tensor], mean: Mean = tf.reduce_mean
    ) -> Dict[str, tf.Tensor]:
        return scalar_compare_loss(rewards, labels['difference'])

    def target_moments(self, labels: Dict[str, np.ndarray]) -> Optional[Tuple[float, float]]:
        # A difference between two rewards of mean 0 is twice as large as each of them.
        half = labels['difference'] / 2
        return float(half.mean()), float(half.std())


def get_label_type(name: str):
    """Return the label type called `best_of_N`, `scalar_rating` or `scalar_compare`. ValueError for another name.

    Each type has:
      sample_names: the names of the samples in a label.
      answer_schema(): the field of a person's answer.
      loss(rewards [batch, samples], labels, mean): named scalars, `loss` and `error` among them.
      target_moments(labels): the mean and std that rewards should have before training, or None for any.
    """
    samples = best_of(name)
    if samples:
        return BestOfN(samples)
    types = dict(scalar_rating=ScalarRating, scalar_compare=ScalarCompare)
    if name not in types:
        raise ValueError(f'labels.type: {name!r} is not best_of_N (N at least 2), scalar_rating or scalar_compare')
    return types[name]()


def label_schema(label_type, query_length: int, response_length: int) -> Schema:
    """Return the fields of one label of `label_type`: query and samples as token ids, and the person's answer."""
    schema = dict(query=(np.int32, (query_length,)))
    schema.update((name, (np.int32, (response_length,))) for name in label_type.sample_names)
    schema.update(label_type.answer_schema())
    return schema
