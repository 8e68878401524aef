"""Questions for people: queries of a task, each with a few continuations that a policy sampled."""

from typing import Any, Dict, Iterator, List

import numpy as np

from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.language.datasets import QueryStream
from lm_human_preferences.language.trained_models import TrainedModel, initialize
from lm_human_preferences.lm_tasks import Task
from lm_human_preferences.policy import Policy
from lm_human_preferences.utils.ranks import Ranks
from lm_human_preferences.utils.tf_versions import new_session, tf

MOST_ALIKE = 100
"""After so many queries in a row with two samples alike, the policy is too sure for questions."""


class QuestionDraws:
    """Queries and random numbers for questions, each fixed by the seed and the query's place in its data set."""

    def __init__(self, task: TaskHParams, mode: str, encoding, num_samples: int, seed: int, place: int = 0):
        """`place`: where to go on, as the last question had it."""
        self._stream = QueryStream.of_task(task, mode, encoding, seed, position=place)
        self._shape = (num_samples, task.response_length)
        self._seed = seed

    def next(self):
        """A query [query_length], uniform numbers [num_samples, response_length] for its samples, and its place."""
        query = self._stream.next_batch(1)[0]
        place = self._stream.position
        random = np.random.RandomState([self._seed, place])
        return query, random.random_sample(self._shape).astype(np.float32), place


def distinct(samples: np.ndarray) -> bool:
    """Whether no two of the samples [n, length] are the same: a choice between equals teaches nothing."""
    return len({sample.tobytes() for sample in samples}) == len(samples)


def as_question(query: np.ndarray, samples: np.ndarray, place: int, **more: Any) -> Dict[str, Any]:
    """A question as the journal keeps it."""
    return dict(query=query.tolist(), samples=samples.tolist(), place=place, **more)


def sample_questions(
    source: TrainedModel, task: Task, draws: QuestionDraws, num_samples: int, batch: int, **more: Any
) -> Iterator[List[Dict[str, Any]]]:
    """Questions about the policy at `source` without end, about `batch` at a time; `more` is kept with each.

    ValueError when the policy's samples are always alike.
    """
    hparams = task.hparams
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Policy(source.hparams, task)
        queries = tf.placeholder(tf.int32, [batch * num_samples, hparams.query_length])
        uniforms = tf.placeholder(tf.float32, [batch * num_samples, hparams.response_length])
        responses, _ = task.truncate(model.respond(queries, uniforms)['responses'])
        initialize(session, source.load(session, model.model), Ranks())
        graph.finalize()
        alike = 0
        while True:
            drawn = [draws.next() for _ in range(batch)]
            feed = {
                queries: np.repeat([query for query, _, _ in drawn], num_samples, axis=0),
                uniforms: np.concatenate([numbers for _, numbers, _ in drawn]),
            }
            samples = session.run(responses, feed).reshape(batch, num_samples, -1)
            questions = [
                as_question(query, of_query, place, **more)
                for (query, _, place), of_query in zip(drawn, samples)
                if distinct(of_query)
            ]
            alike = 0 if questions else alike + batch
            if alike >= MOST_ALIKE:
                raise ValueError(
                    f'the policy gave {alike} queries in a row two samples that are the same: raise --temperature'
                )
            yield questions
