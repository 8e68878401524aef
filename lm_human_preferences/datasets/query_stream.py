"""An endless stream of queries made from the texts of a data set."""

import copy
from typing import Callable, List, Optional, Tuple

import numpy as np

from lm_human_preferences.datasets.missing_texts import TextReader
from lm_human_preferences.datasets.registry import get_texts
from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.queries import single_token, tokenize_query
from lm_human_preferences.utils.progress import note

# After this many texts in a row without a query, the stream gives up.
MAX_TEXTS_WITHOUT_QUERY = 10000


class QueryStream:
    """Queries from one split of a data set, without end. Each pass over the texts shuffles them anew.

    The order of the texts depends on the seed alone. Rank r of `num_ranks` takes the texts number r, r + num_ranks, …
    of that order, and reads and tokenizes no others. `position` counts the texts that this rank has read, with or
    without a query. A new stream with that `position` continues there, at no cost.
    """

    def __init__(
        self,
        dataset: str,
        split: str,
        encoding: Encoding,
        query_length: int,
        start_text: Optional[str] = None,
        end_text: Optional[str] = None,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        position: int = 0,
    ):
        self.position = position
        self._dataset = dataset
        for field, text in (('start_text', start_text), ('end_text', end_text)):
            if text is not None:
                single_token(encoding, text, field)  # fails here, before the first query
        self._texts = get_texts(dataset, split)
        self._reader = TextReader(self._texts, dataset)
        if not len(self._texts):
            raise ValueError(f'the data set {dataset!r} has no text in the split {split!r}')
        self._encoding = encoding
        self._query_length = query_length
        self._start_text = start_text
        self._end_text = end_text
        self._seed = seed % (1 << 32)
        self._rank = rank
        self._num_ranks = num_ranks
        self._pass = None  # number of the pass that `_order` belongs to
        self._order = None

    @property
    def num_texts(self) -> int:
        """The number of texts. The order depends on it, too."""
        return len(self._texts)

    @classmethod
    def of_task(
        cls,
        task: TaskHParams,
        split: str,
        encoding: Encoding,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        position: int = 0,
    ) -> 'QueryStream':
        """Return the stream of a task's queries."""
        fields = (task.query_length, task.start_text, task.end_text)
        return cls(task.query_dataset, split, encoding, *fields, seed, rank, num_ranks, position)

    def next_batch(self, n: int, say: Callable[[str], None] = note) -> np.ndarray:
        """Return the next `n` queries, int32 [n, query_length]. ValueError as for `next_query`."""
        return np.array([self.next_query(say)[1] for _ in range(n)], np.int32).reshape(n, self._query_length)

    def next_query(self, say: Callable[[str], None] = note) -> Tuple[int, List[int]]:
        """Return the index of the next text that has a query, and that query.

        Missing texts are passed over, and `say` gets the lines about them. ValueError if too many texts in a row have
        no query. The message says which token they lack. ValueError if too many texts are missing, see
        missing_texts.py.
        """
        tried = min(len(self._texts), MAX_TEXTS_WITHOUT_QUERY)
        last = None
        for _ in range(tried):
            index = self._next_index()
            text = self._reader.read(index, say)
            if text is None:
                continue
            last = text
            query = tokenize_query(text, self._encoding, self._query_length, self._start_text, self._end_text)
            if query is not None:
                return index, query
        raise ValueError(f'{tried} texts in a row of the data set {self._dataset!r} have no query: {self._fault(last)}')

    def check(self) -> None:
        """Raise what the next query would raise, so that a run fails before it loads a model."""
        probe = copy.copy(self)
        probe._reader = TextReader(self._texts, self._dataset)
        probe.next_query(say=lambda line: None)

    def _next_index(self) -> int:
        """Return the index of this rank's next text, and advance the position."""
        passes, index = divmod(self._rank + self.position * self._num_ranks, len(self._texts))
        self.position += 1
        if passes != self._pass:
            self._pass = passes
            # int32: these 4 bytes for each text are all the memory that grows with the data set.
            texts = np.arange(len(self._texts), dtype=np.int32)
            self._order = np.random.RandomState([self._seed, passes]).permutation(texts)
        return int(self._order[index])

    def _fault(self, text: Optional[str]) -> str:
        """Return the reason why `text` has no query. None: no text can be read."""
        if text is None:
            return 'they cannot be read'
        if tokenize_query(text, self._encoding, self._query_length) is None:
            return 'they are empty'
        if tokenize_query(text, self._encoding, self._query_length, self._start_text) is None:
            return f'the token of task.start_text {self._start_text!r} is missing'
        where = f'the first {self._query_length} tokens'
        if self._start_text is not None:
            where += f' after task.start_text {self._start_text!r}'
        return f'the token of task.end_text {self._end_text!r} is missing from {where}'
