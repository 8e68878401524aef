"""Questions about a policy: queries of a task, each with a few responses that the policy sampled."""

from typing import Any, Callable, Dict, List, Tuple

import numpy as np

from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.method.lm_tasks import Task

Respond = Callable[[np.ndarray, np.ndarray], np.ndarray]
"""From queries [n, query_length] and uniform numbers [n, response_length] to a policy's truncated responses
[n, response_length]."""

QuestionEntry = Dict[str, Any]
"""A question as `Collection.add` takes it."""


class QuestionDraws:
    """Queries and random numbers for questions. Both follow from the seed and the query's position in its data set."""

    def __init__(self, task: Task, split: str, num_samples: int, seed: int, position: int = 0):
        """Start after the query at `position`, which is that of the last question."""
        self._stream = QueryStream.of_task(task.hparams, split, task.encoding, seed, position=position)
        self._seed = seed
        self._response_length = task.hparams.response_length
        self.num_samples = num_samples

    def next(self) -> Tuple[np.ndarray, np.ndarray, int]:
        """Return a query [query_length], uniform numbers [num_samples, response_length], and the query's position."""
        query = self._stream.next_batch(1)[0]
        position = self._stream.position
        random = np.random.RandomState([self._seed, position])
        uniforms = random.random_sample((self.num_samples, self._response_length))
        return query, uniforms.astype(np.float32), position


def distinct(samples: np.ndarray) -> bool:
    """Return whether no two of the samples [n, length] are the same: a choice between equals teaches nothing."""
    return len({sample.tobytes() for sample in samples}) == len(samples)


def ask_policy(respond: Respond, draws: QuestionDraws, count: int, **more: Any) -> List[QuestionEntry]:
    """Return questions about a policy's responses to `count` queries, each with the items `more`.

    Leave out questions with two equal samples, unless all questions have such samples.
    """
    drawn = [draws.next() for _ in range(count)]
    queries = np.repeat([query for query, _, _ in drawn], draws.num_samples, axis=0)
    responses = respond(queries, np.concatenate([uniforms for _, uniforms, _ in drawn]))
    samples = responses.reshape(count, draws.num_samples, -1)
    useful = [i for i in range(count) if distinct(samples[i])] or range(count)
    return [dict(query=drawn[i][0].tolist(), samples=samples[i].tolist(), place=drawn[i][2], **more) for i in useful]
