"""Questions for people: queries of a task, each with a few continuations that a policy sampled."""

import contextlib
from typing import Any, Callable, Dict, Iterator, List

import numpy as np

from lm_human_preferences.datasets.query_stream import QueryStream
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy

# Of queries [n, query_length] and uniform numbers [n, response_length], a policy's responses as they are scored.
Respond = Callable[[np.ndarray, np.ndarray], np.ndarray]
QuestionEntry = Dict[str, Any]


class QuestionDraws:
    """Queries and random numbers for questions, each fixed by the seed and the query's place in its data set."""

    def __init__(self, task: Task, split: str, num_samples: int, seed: int, place: int = 0):
        """`place`: where to go on, as the last question had it."""
        self._stream = QueryStream.of_task(task.hparams, split, task.encoding, seed, position=place)
        self._shape = (num_samples, task.hparams.response_length)
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


def ask_policy(
    respond: Respond, draws: QuestionDraws, num_samples: int, count: int, **more: Any
) -> List[QuestionEntry]:
    """At most `count` questions about what a policy responds to as many queries; `more` is kept with each.

    Questions with two samples alike are left out, unless all are of that kind.
    """
    drawn = [draws.next() for _ in range(count)]
    queries = np.repeat([query for query, _, _ in drawn], num_samples, axis=0)
    responses = respond(queries, np.concatenate([uniforms for _, uniforms, _ in drawn]))
    samples = responses.reshape(count, num_samples, -1)
    told_apart = [i for i in range(count) if distinct(samples[i])] or range(count)
    return [
        dict(query=drawn[i][0].tolist(), samples=samples[i].tolist(), place=drawn[i][2], **more) for i in told_apart
    ]


@contextlib.contextmanager
def responding(source: TrainedModel, task: Task, batch: int) -> Iterator[Respond]:
    """The policy at `source`, as a function that responds to `batch` queries at a time."""
    hparams = task.hparams
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(0)  # for the built-in model, whose weights are random
        policy = Policy(source.hparams, task)
        queries = tf.placeholder(tf.int32, [batch, hparams.query_length])
        uniforms = tf.placeholder(tf.float32, [batch, hparams.response_length])
        responses, _ = task.truncate(policy.respond(queries, uniforms)['responses'])
        # Not `initialize_variables`, which would wait for other ranks: only the first asks.
        session.run(tf.global_variables_initializer())
        source.load(session, policy.model)
        graph.finalize()
        yield lambda *given: session.run(responses, dict(zip((queries, uniforms), given)))
