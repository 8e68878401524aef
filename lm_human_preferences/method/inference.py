"""Run trained models: sample responses of a policy, compute log-probabilities of given responses, and score them.

Each model has its own graph and session, so several models of any size can be used one after the other.
"""

import abc
from typing import Any, Callable, Dict, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.memory import trim_heap
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.language.trained_models import TrainedModel, check_vocabulary
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.rewards import RewardModel
from lm_human_preferences.mpi.collectives import initialize_variables
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.utils.gc_pause import gc_paused
from lm_human_preferences.utils.progress import progress


class _ModelInUse(abc.ABC):
    """A session with one trained model, run on batches of `batch` rows. Leaving it as a context frees its memory."""

    @gc_paused()
    def __init__(
        self, trained: TrainedModel, task: Task, batch: int, ranks: Optional[Ranks] = None, share_rows: bool = False
    ):
        """Load the model on all ranks together; with `Ranks(alone=True)`, in this process only.

        With `share_rows`, every rank gives the same rows to each method and gets all results, and does a share of the
        batches. Otherwise each rank works on rows of its own.

        UserError if the model reads another vocabulary than the task.
        """
        check_vocabulary(task.encoding, 'the task', {f'the model {trained.title}': trained})
        self.task = task
        self.batch = batch
        ranks = ranks or Ranks()
        self._sharing = ranks if share_rows else Ranks(alone=True)
        self._parts: Dict[Any, Any] = {}
        with tf.Graph().as_default() as self._graph:
            tf.set_random_seed(0)  # for the built-in model `test`, whose weights are random
            self._session = new_session(self._graph, ranks.threads())
            self._queries = tf.placeholder(tf.int32, [batch, task.hparams.query_length])
            self._responses = tf.placeholder(tf.int32, [batch, task.hparams.response_length])
            load = self._build(trained)
            initialize_variables(self._session, load() if ranks.is_first else [], ranks)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self) -> None:
        """Free the memory of the model. It cannot be used any more."""
        self._session.close()
        self._parts.clear()
        trim_heap()

    @abc.abstractmethod
    def _build(self, trained: TrainedModel) -> Callable[[], Sequence[tf.Variable]]:
        """Create the variables. Return a function that loads the model and returns the variables that it set."""

    @gc_paused()
    def _part(self, build: Callable[..., Any], *settings: Any) -> Any:
        """Return the tensors that `build(*settings)` adds to the graph. They are added when they are first needed."""
        key = (build.__name__, settings)
        if key not in self._parts:
            with self._graph.as_default():
                self._parts[key] = build(*settings)
        return self._parts[key]


class Responder(_ModelInUse):
    """A policy that responds to queries, and gives the log-probabilities of given responses."""

    def __init__(
        self,
        trained: TrainedModel,
        task: Task,
        batch: int,
        ranks: Optional[Ranks] = None,
        top_k: int = 0,
        top_p: float = 1.0,
        share_rows: bool = False,
    ):
        self._limits = dict(top_k=top_k, top_p=top_p)
        super().__init__(trained, task, batch, ranks, share_rows)

    def _build(self, trained):
        self._policy = Policy(trained.hparams, self.task, scope='policy')
        return lambda: trained.load(self._session, self._policy.model)

    def respond(
        self,
        queries: np.ndarray,
        uniforms: np.ndarray,
        description: Optional[str] = None,
        temperature: Optional[float] = None,
        top_k: Optional[int] = None,
        top_p: Optional[float] = None,
    ) -> Dict[str, np.ndarray]:
        """Respond to queries [n, query_length]. The random numbers uniforms [n, response_length] choose the tokens.

        Args:
          description: of a progress bar; None shows no bar.
          temperature: in place of the task's.
          top_k, top_p: in place of those given to the constructor.

        Returns:
          responses, truncated (the responses as they are scored) and the responses' logprobs, each
          [n, response_length]; valid [n]: whether a response has a truncate token in time.
        """
        limits = [
            self._limits[name] if value is None else value for name, value in (('top_k', top_k), ('top_p', top_p))
        ]
        uniforms_fed, outputs = self._part(self._sampling, temperature, *limits)

        def run(queries, uniforms):
            return self._session.run(outputs, {self._queries: queries, uniforms_fed: uniforms})

        return in_batches(run, [queries, uniforms], self.batch, description, self._sharing)

    def _sampling(self, temperature, top_k, top_p):
        uniforms = tf.placeholder(tf.float32, [self.batch, self.task.hparams.response_length])
        sampled = self._policy.respond(self._queries, uniforms, top_k, top_p, temperature)
        truncated, valid = self.task.truncate(sampled['responses'])
        return uniforms, dict(
            responses=sampled['responses'], logprobs=sampled['logprobs'], truncated=truncated, valid=valid
        )

    def truncated(self, queries: np.ndarray, uniforms: np.ndarray) -> np.ndarray:
        """Return only the truncated responses [n, response_length] of `respond`."""
        return self.respond(queries, uniforms)['truncated']

    def logprobs(
        self,
        queries: np.ndarray,
        responses: np.ndarray,
        description: Optional[str] = None,
        temperature: Optional[float] = None,
    ) -> np.ndarray:
        """Return log-probabilities [n, response_length] of the tokens of responses to queries [n, query_length].

        Those of the initial policy are what the KL divergence is measured from.
        """
        outputs = self._part(self._analysis, temperature)

        def run(queries, responses):
            return dict(logprobs=self._session.run(outputs, {self._queries: queries, self._responses: responses}))

        return in_batches(run, [queries, responses], self.batch, description, self._sharing)['logprobs']

    def _analysis(self, temperature):
        return self._policy.analyze_responses(self._queries, self._responses, temperature)['logprobs']


class Scorer(_ModelInUse):
    """A reward model that scores responses."""

    def _build(self, trained):
        model = RewardModel(trained.hparams, self.task)
        self._rewards = model.rewards(self._queries, self._responses)
        return lambda: model.load(self._session, trained)

    def scores(self, queries: np.ndarray, responses: np.ndarray, description: Optional[str] = None) -> np.ndarray:
        """Return rewards [n] of truncated, padded responses [n, response_length] to queries [n, query_length]."""

        def run(queries, responses):
            return dict(rewards=self._session.run(self._rewards, {self._queries: queries, self._responses: responses}))

        return in_batches(run, [queries, responses], self.batch, description, self._sharing)['rewards']

    def truncated(self, responses: np.ndarray) -> np.ndarray:
        """Return responses [n, response_length] as training scores them: padded after their end."""
        truncated = self._part(self._truncation)

        def run(responses):
            return dict(truncated=self._session.run(truncated, {self._responses: responses}))

        return in_batches(run, [responses], self.batch, ranks=self._sharing)['truncated']

    def _truncation(self):
        return self.task.truncate(self._responses)[0]


def in_batches(
    run: Callable[..., Dict[str, np.ndarray]],
    arrays: Sequence[np.ndarray],
    batch: int,
    description: Optional[str] = None,
    ranks: Optional[Ranks] = None,
) -> Dict[str, np.ndarray]:
    """Run a function on all rows of arrays of equal length, `batch` rows at a time.

    Every batch is full: the last one is filled up with rows from the start, whose results are dropped.

    Args:
      run: takes a batch of each array and returns named arrays, with one row for each row of the batch.
      description: of a progress bar; None shows no bar.
      ranks: share the batches: all pass the same arrays, and get the results of one rank. None: this process alone.

    Returns:
      The named arrays of `run`, with one row for each row of `arrays`.
    """
    ranks = ranks or Ranks(alone=True)
    count = len(arrays[0])
    starts = range(0, count, batch)
    found: Dict[str, np.ndarray] = {}
    # A rank without a batch of its own runs the first one, to know the kinds of the results.
    mine = starts[ranks.rank :: ranks.size] or starts[:1]
    for start in progress(mine, description or '', show=description is not None and ranks.is_first):
        rows = np.arange(start, start + batch) % count
        results = run(*(array[rows] for array in arrays))
        for name, values in results.items():
            whole = found.setdefault(name, np.zeros((count, *values.shape[1:]), values.dtype))
            if start // batch % ranks.size == ranks.rank:
                whole[start : start + batch] = values[: count - start]
    return {name: ranks.join(found[name]) for name in sorted(found)}
