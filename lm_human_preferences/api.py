"""Trained models from Python: load a policy or a reward model, and give it texts.

    with load_policy('runs/my-run') as policy, load_reward_model('runs/my-run') as reward_model:
        responses = policy.respond(['The film was'], num_samples=4, seed=1)
        scores = reward_model.score(responses.queries, responses.tokens)

Each model has its own graph and session; `close` or the end of a `with` block frees them. A model is the only rank of
its kind: in a script that MPI started, every process loads its own.
"""

import warnings
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np

from lm_human_preferences.hyperparameters import SampleHParams, TaskHParams
from lm_human_preferences.hyperparameters.rules import TEMPERATURE
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.run_models import find_policy, run_reward_model
from lm_human_preferences.language.trained_models import TrainedModel, find_reward_model, is_language_model
from lm_human_preferences.method.inference import Responder, Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import shared_seed, uniforms_of_samples
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.sample import query_tokens
from lm_human_preferences.utils.errors import UserError, short

QUERY_LENGTH = 64  # tokens of a query for a model without a task, if it reads so many

Texts = Union[str, Sequence[str], Sequence[Sequence[int]], np.ndarray]
"""One text, several texts, or several rows of token ids, [n, length] or of different lengths."""


class Responses(NamedTuple):
    """A policy's responses. The samples of a query follow each other: there are n = queries × num_samples rows."""

    queries: List[str]  # [n], the text to which each row responds
    texts: List[str]  # [n], up to the end that the task gives a response
    tokens: np.ndarray  # [n, response_length] int32, as sampled: also after that end
    logprobs: np.ndarray  # [n, response_length], of these tokens under the distribution that they were drawn from


class _LoadedModel:
    """A model in use, with the task that tells how texts become tokens."""

    def __init__(self, name: str, trained: TrainedModel, task: Optional[TaskHParams], fields: Dict[str, Any]):
        self.name = name
        self._task = Task(_task_hparams(name, trained, task, fields), trained.encoding())
        self._in_use: Any = None

    def __enter__(self):
        return self

    def __exit__(self, *_) -> None:
        self.close()

    @property
    def task(self) -> TaskHParams:
        """The task: lengths in tokens, the text around a query, where a response ends. Load again to change it."""
        return self._task.hparams

    @property
    def encoding(self) -> Encoding:
        """The vocabulary: `encode` and `decode`."""
        return self._task.encoding

    def close(self) -> None:
        """Free the graph, the session and the memory of the model. Closing it again does nothing."""
        if self._in_use is not None:
            self._in_use.close()
            self._in_use = None

    def _model(self) -> Any:
        if self._in_use is None:
            raise UserError(f'the model {self.name} is closed: load it again')
        return self._in_use

    def _queries(self, queries: Texts) -> np.ndarray:
        """Return queries [n, query_length], padded. A text that is too long keeps its end, as in `sample`."""
        length, cut = self.task.query_length, []

        def tokens_of(text):
            if not text:
                raise ValueError('it is empty: a query needs a text')
            tokens = query_tokens(text, self._task)
            if len(tokens) > length:
                cut.append(len(tokens))
            return tokens[-length:]

        rows = _rows(queries, 'query', tokens_of, self.encoding, length)
        if cut:
            warnings.warn(
                f'{len(cut)} of {len(rows)} queries are cut to their last {length} tokens: '
                f'the longest has {max(cut)}, and the query_length of {self.name} is {length}',
                stacklevel=3,
            )
        return rows

    def _pairs(self, queries: Texts, responses: Texts) -> Tuple[np.ndarray, np.ndarray]:
        """Return queries [n, query_length] and responses [n, response_length]. One query serves all responses."""
        query_rows = self._queries(queries)
        response_rows = _rows(responses, 'response', self.encoding.encode, self.encoding, self.task.response_length)
        if isinstance(queries, str):
            query_rows = np.repeat(query_rows, len(response_rows), axis=0)
        if len(query_rows) != len(response_rows):
            raise UserError(
                f'there are {len(query_rows)} queries and {len(response_rows)} responses: '
                'give one query for each response, or a single text as the query of all'
            )
        return query_rows, response_rows


class LoadedPolicy(_LoadedModel):
    """A policy that responds to texts; `load_policy` makes it."""

    def __init__(self, name, trained, task, fields, batch_size):
        super().__init__(name, trained, task, fields)
        self._in_use = Responder(trained, self._task, batch_size, Ranks(alone=True))

    def respond(
        self,
        queries: Texts,
        num_samples: int = 1,
        seed: Optional[int] = None,
        temperature: Optional[float] = None,
        top_k: int = 0,
        top_p: float = 1.0,
    ) -> Responses:
        """Sample responses to texts.

        The same seed gives the same responses on any machine and in any batch: those of `launch.py sample` for these
        prompts. (The first sample of each query comes first there, then the second of each.)

        Args:
          queries: one text or several. A text longer than the task's query_length keeps its end, with a warning.
          num_samples: responses to each query.
          seed: None: another one each time.
          temperature: None: that of the task. 0: always the most likely token, with logprob 0.
          top_k: sample only from this many most likely tokens. 0: from all.
          top_p: sample only from the most likely tokens whose probabilities add up to this share.

        UserError for a setting out of range, an empty query, or one that the vocabulary cannot encode.
        """
        model = self._model()
        settings = _checked(
            temperature=self.task.policy.temperature if temperature is None else temperature,
            top_k=top_k,
            top_p=top_p,
            seed=seed,
            nsamples=num_samples,
        )
        if not settings.nsamples:
            raise UserError('num_samples must be 1 or more, not 0')
        rows = self._queries(queries)
        texts = _listed(queries, 'query')
        texts = [text if isinstance(text, str) else self.encoding.decode(text) for text in texts]
        n = len(rows)
        indices = [sample * n + query for query in range(n) for sample in range(settings.nsamples)]
        seed = shared_seed(settings.seed, Ranks(alone=True))
        sampled = model.respond(
            np.repeat(rows, settings.nsamples, axis=0),
            uniforms_of_samples(seed, indices, self.task.response_length),
            temperature=settings.temperature,
            top_k=settings.top_k,
            top_p=settings.top_p,
        )
        return Responses(
            queries=[text for text in texts for _ in range(settings.nsamples)],
            texts=[self.encoding.decode(tokens) for tokens in sampled['truncated']],
            tokens=sampled['responses'],
            logprobs=sampled['logprobs'],
        )

    def logprobs(self, queries: Texts, responses: Texts, temperature: Optional[float] = None) -> np.ndarray:
        """Return the log-probabilities [n, response_length] of the tokens of given responses to given queries.

        The distribution is that of the temperature (None: the task's), without top_k and top_p. After the end of a
        shorter response the values are 0, so that the sum of a row is the log-probability of the response.

        Args:
          queries: one text for all responses, or as many queries as responses.
          responses: texts, or tokens as `respond` gives them; at most response_length tokens each.

        UserError for input that does not fit.
        """
        model = self._model()
        temperature = self.task.policy.temperature if temperature is None else temperature
        temperature = _checked(temperature=temperature).temperature
        if not TEMPERATURE[0](temperature):
            raise UserError(f'temperature must be {TEMPERATURE[1]}, not {temperature!r}')
        query_rows, response_rows = self._pairs(queries, responses)
        is_token = response_rows != self._task.padding_token
        # Padding has no probability. It comes last, so what stands there changes nothing before it.
        found = model.logprobs(query_rows, np.where(is_token, response_rows, 0), temperature=temperature)
        return np.where(is_token, found, np.float32(0))


class LoadedRewardModel(_LoadedModel):
    """A reward model that scores texts; `load_reward_model` makes it."""

    def __init__(self, name, trained, task, fields, batch_size):
        super().__init__(name, trained, task, fields)
        self._in_use = Scorer(trained, self._task, batch_size, Ranks(alone=True))

    def score(self, queries: Texts, responses: Texts) -> np.ndarray:
        """Return the scores [n] of responses, as PPO uses them.

        A response is scored up to the end that the task gives it: its first truncate_token at or after truncate_after.
        One without that token is scored whole. (PPO would replace its score by the task's penalty_reward_value.)

        Args:
          queries: one text for all responses, or as many queries as responses.
          responses: texts, or tokens as `respond` gives them; at most response_length tokens each. Tokens are exact:
            the tokens of a sampled text may be other ones than those that encode the text.

        UserError for input that does not fit.
        """
        model = self._model()
        query_rows, response_rows = self._pairs(queries, responses)
        return model.scores(query_rows, model.truncated(response_rows))


def load_policy(
    name: str,
    *,
    temperature: Optional[float] = None,
    savescope: str = 'policy',
    batch_size: int = 8,
    **task: Any,
) -> LoadedPolicy:
    """Load a policy.

    Args:
      name: a run's folder, a model folder (a path or a URL), or the name of a model: 124M …, demo, test.
      temperature: of sampling. None: that of the run, or 1 for a model without a run.
      savescope: ref_policy loads the policy that the run started from.
      batch_size: responses at a time: more are faster and take more memory. The texts do not depend on it.
      task: fields of the task that replace the run's, such as query_length=64, response_length=24,
        query_suffix='\\n\\nTL;DR:', truncate_token=13. A model without a run needs response_length; its query_length is
        64 or what it can read, and responses are whole.

    UserError, ValueError or OSError, in one line, for a model that is not there or a setting that does not fit.
    """
    trained = find_policy(_text(name, 'name'), _text(savescope, 'savescope'))
    fields = task if temperature is None else {**task, 'policy.temperature': temperature}
    return LoadedPolicy(name, trained, _run_task(name), fields, _batch_size(batch_size))


def load_reward_model(name: str, *, batch_size: int = 8, **task: Any) -> LoadedRewardModel:
    """Load a reward model.

    Args:
      name: the folder of a run of train_reward or train_policy, or the folder of a reward model (a path or a URL).
        test: random weights.
      batch_size, task: as for `load_policy`.
    """
    try:
        run = RunFolder(_text(name, 'name'))
    except storage.NOT_THERE:
        if name != 'test' and is_language_model(name) and not _has_reward_model(name):
            raise UserError(
                f'{name} is a language model, not a reward model: give a run of train_reward or train_policy'
            ) from None
        return LoadedRewardModel(name, find_reward_model(name), None, task, _batch_size(batch_size))
    return LoadedRewardModel(name, run_reward_model(run), run.task, task, _batch_size(batch_size))


def _has_reward_model(name: str) -> bool:
    try:
        return 'reward_model' in find_reward_model(name).scopes()
    except storage.NOT_THERE:
        return False


def _run_task(name: str) -> Optional[TaskHParams]:
    """Return the task of the run in the folder `name`; None if there is no run."""
    try:
        return RunFolder(name).task
    except storage.NOT_THERE:
        return None


def _task_hparams(name: str, trained: TrainedModel, task: Optional[TaskHParams], fields: Dict[str, Any]) -> TaskHParams:
    """Return the task of a run, or of a model without one, with `fields` in place of its own."""
    hparams = task
    if hparams is None:
        hparams = TaskHParams(query_dataset='none', start_text=None)
        hparams.policy.initial_model = name
        if fields.get('response_length') is None:
            raise UserError(
                f'{name} is a model without a task: give response_length, the tokens of a response, '
                f'as in response_length=24'
            )
    try:
        hparams.override_from_dict({key: _plain(value) for key, value in fields.items()})
        hparams.check_types()
        if hparams.query_length is None:
            around = hparams.query_prefix, hparams.query_suffix
            taken = hparams.response_length + sum(len(trained.encoding().encode(text)) for text in around)
            hparams.query_length = max(1, min(QUERY_LENGTH, trained.hparams.n_ctx - taken))
        hparams.validate()
    except (AttributeError, TypeError, ValueError) as error:
        raise UserError(f'{name}: {error}') from error
    return hparams


def _checked(**settings: Any) -> SampleHParams:
    """Return settings of sampling by the rules of `sample`. UserError for one that breaks them."""
    hparams = SampleHParams(save_dir='none')
    try:
        hparams.override_from_dict({name: _plain(value) for name, value in settings.items()})
        hparams.validate()
    except (TypeError, ValueError) as error:
        raise UserError(str(error).replace('nsamples', 'num_samples')) from error
    return hparams


def _plain(value: Any) -> Any:
    """Return numpy's numbers as Python's."""
    return value.item() if isinstance(value, np.generic) else value


def _text(value: Any, what: str) -> str:
    if not isinstance(value, str) or not value.strip():
        raise UserError(f'{what} must be a text, not {short(value)}')
    return value


def _batch_size(value: Any) -> int:
    value = _plain(value)
    if type(value) is not int or value < 1:
        raise UserError(f'batch_size must be a whole number of 1 or more, not {short(value)}')
    return value


def _rows(
    items: Texts, what: str, tokens_of: Callable[[str], Sequence[int]], encoding: Encoding, length: int
) -> np.ndarray:
    """Return texts or rows of tokens as an array [n, length] int32, padded on the right.

    UserError naming the item that is no text, cannot be encoded, or is too long.
    """
    items = _listed(items, what)
    rows = []
    for number, item in enumerate(items):
        try:
            tokens = tokens_of(item) if isinstance(item, str) else _given_tokens(item, encoding)
        except ValueError as error:
            raise UserError(f'{what} {number}: {error}') from error
        if len(tokens) > length:
            raise UserError(
                f'{what} {number} has {len(tokens)} tokens, and the {what}_length of the task is {length}: '
                f'shorten it, or load the model with {what}_length={len(tokens)}'
            )
        rows.append(encoding.pad(list(tokens), length))
    return np.array(rows, np.int32)


def _listed(items: Any, what: str) -> List[Any]:
    """Return the items of a list, or of anything that is like one; a single text is a list of one."""
    items = [items] if isinstance(items, str) else items
    if not isinstance(items, (bytes, dict)) and hasattr(items, '__len__') and hasattr(items, '__iter__') and len(items):
        return list(items)
    raise UserError(f'give a list with one {what} or more, not {short(items)}')


def _given_tokens(item: Any, encoding: Encoding) -> List[int]:
    """Return a row of token ids without the padding at its end. ValueError if it is no such row."""
    tokens = np.asarray(item)
    if tokens.ndim != 1 or not (np.issubdtype(tokens.dtype, np.integer) or not tokens.size):
        raise ValueError(f'it must be a text or a row of token ids, not {short(item)}')
    tokens = tokens.tolist()
    while tokens and tokens[-1] == encoding.padding_token:
        tokens.pop()
    wrong = next((token for token in tokens if not 0 <= token < encoding.n_vocab), None)
    if wrong is not None:
        raise ValueError(f'{wrong} is no token of the vocabulary of {encoding.n_vocab}')
    return tokens
