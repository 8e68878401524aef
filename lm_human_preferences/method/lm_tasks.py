"""A language task: the text around a query, and where a response ends (section 2 of the paper)."""

from typing import Tuple

import numpy as np

from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.mpi.ranks import Ranks


class Task:
    """The hyperparameters of a task, and the encoding that turns its texts into tokens."""

    def __init__(self, hparams: TaskHParams, encoding: Encoding):
        self.hparams = hparams
        self.encoding = encoding
        self.padding_token = encoding.padding_token
        self.prefix = encoding.encode(hparams.query_prefix)
        self.suffix = encoding.encode(hparams.query_suffix)
        if hparams.truncate_token is not None and hparams.truncate_token >= encoding.n_vocab:
            raise ValueError(
                f'task.truncate_token {hparams.truncate_token} is no token of the vocabulary of {encoding.n_vocab}'
            )

    def query_stream(self, split: str, seed: int, ranks: Ranks, position: int = 0) -> QueryStream:
        """Return this rank's endless stream of queries from a split (train, valid, test) of the task's data set.

        The stream resumes at the `position` of an earlier stream.
        """
        return QueryStream.of_task(self.hparams, split, self.encoding, seed, ranks.rank, ranks.size, position)

    @property
    def context_length(self) -> int:
        """The number of tokens before the response: prefix, query and suffix."""
        return len(self.prefix) + self.hparams.query_length + len(self.suffix)

    def context(self, queries: tf.Tensor) -> tf.Tensor:
        """Put prefix and suffix around queries [batch, query_length]; return [batch, context_length]."""
        batch = tf.shape(queries)[0]
        parts = [self._repeat(self.prefix, batch), queries, self._repeat(self.suffix, batch)]
        context = tf.concat(parts, axis=1)
        context.set_shape([queries.shape[0], self.context_length])
        return context

    def check_fits(self, n_ctx: int, context_length: int, model: str = 'task.policy.initial_model') -> None:
        """Check that a model reads enough tokens for a context and a response; ValueError if not."""
        length = context_length + self.hparams.response_length
        if length > n_ctx:
            raise ValueError(
                f'a context of {context_length} tokens and a response of {self.hparams.response_length} '
                f'are {length}, but the model of {model} reads at most {n_ctx} (n_ctx): '
                'lower task.query_length or task.response_length'
            )

    @staticmethod
    def _repeat(tokens, batch):
        row = np.array(tokens, np.int32).reshape(1, -1)
        return tf.tile(row, [batch, 1])

    def truncate(self, responses: tf.Tensor) -> Tuple[tf.Tensor, tf.Tensor]:
        """Return responses [batch, length] as they are scored, and whether each is valid, [batch] bool."""
        if self.hparams.truncate_token is None:
            return responses, tf.ones(tf.shape(responses)[:1], tf.bool)
        return truncate_responses(
            responses, self.hparams.truncate_token, self.hparams.truncate_after, self.padding_token
        )

    def penalize(self, scores: tf.Tensor, valid: tf.Tensor) -> tf.Tensor:
        """Replace the scores [batch] of responses that are not valid by `penalty_reward_value`."""
        return tf.where(valid, scores, tf.fill(tf.shape(scores), float(self.hparams.penalty_reward_value)))


def truncate_responses(
    responses: tf.Tensor, truncate_token: int, truncate_after: int, padding_token: int
) -> Tuple[tf.Tensor, tf.Tensor]:
    """End each response at its first `truncate_token` at or after position `truncate_after`.

    Args:
      responses: [batch, length] int32.

    Returns:
      the responses, with padding after that token, and whether each response has such a token, [batch] bool.
      A response without one is left whole.
    """
    late_enough = tf.range(tf.shape(responses)[1]) >= truncate_after
    # Counted in float32: TensorFlow 1.13 has no running total of integers for GPUs.
    ends = tf.cast(tf.logical_and(tf.equal(responses, truncate_token), late_enough), tf.float32)
    ended_before = tf.cumsum(ends, axis=1, exclusive=True) > 0
    truncated = tf.where(ended_before, tf.fill(tf.shape(responses), padding_token), responses)
    return truncated, tf.reduce_sum(ends, axis=1) > 0
