"""Text data sets by name, and streams of queries cut from them."""

import copy
import importlib
import string
from typing import List, Optional, Sequence, Tuple

import numpy as np

from lm_human_preferences.datasets import text_files
from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.language.encodings import Encoding

MODES = ('train', 'valid', 'test')
PUBLISHED = ('books', 'cnndm', 'tldr')
NAMES = PUBLISHED + ('demo', 'test', 'text:PATH', 'jsonl:PATH')

# A text stream in which so many texts in a row have no query will not get better.
MAX_TEXTS_WITHOUT_QUERY = 10000


def get_texts(name: str, mode: str) -> Sequence[str]:
    """Return the texts of a data set in the order of its files, each read when asked for.

    `name` is one of NAMES, `mode` one of MODES. ValueError for another name or mode, FileNotFoundError for
    missing files.
    """
    if mode not in MODES:
        raise ValueError(f'unknown part {mode!r} of a data set: must be one of {", ".join(MODES)}')
    kind, _, path = name.partition(':')
    if kind in ('text', 'jsonl') and path:
        return (text_files.plain_texts if kind == 'text' else text_files.json_texts)(path, mode)
    if name in PUBLISHED:
        return importlib.import_module(f'lm_human_preferences.datasets.{name}').texts(mode)
    if name == 'demo':
        # Imported here: the demo's data is made with this module.
        from lm_human_preferences.demo import data

        return data.query_texts(mode)
    if name == 'test':
        return RandomLetters(MODES.index(mode))
    raise ValueError(f'unknown data set {name!r}: must be one of {", ".join(NAMES)}')


def get_references(name: str, mode: str) -> Optional[Sequence[Optional[str]]]:
    """Return what people responded to the texts of a data set, in the order of `get_texts`, where they did.

    None for a data set without such responses, an item None for a text without.
    """
    kind, _, path = name.partition(':')
    if kind == 'jsonl' and path:
        return text_files.json_references(path, mode)
    if name in ('cnndm', 'tldr'):
        return importlib.import_module(f'lm_human_preferences.datasets.{name}').references(mode)
    return None


class RandomLetters(Sequence):
    """Short sentences of random letters, each ending in '.': texts for trials without files."""

    def __init__(self, seed: int, size: int = 2000):
        self._seed = seed
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < self._size:
            raise IndexError(index)
        random = np.random.RandomState([self._seed, index])
        lengths = random.randint(1, 5, size=8)
        return ''.join(''.join(random.choice(list(string.ascii_lowercase), n)) + '.' for n in lengths)


def tokenize_query(
    text: str,
    encoding: Encoding,
    query_length: int,
    start_text: Optional[str] = None,
    end_text: Optional[str] = None,
) -> Optional[List[int]]:
    """Return the `query_length` tokens of a text's query, padded on the right, or None if it has none.

    It starts after the first `start_text` token (unless that is the text's last token), is cut to
    `query_length`, and then ends with its last `end_text` token.
    """
    tokens = encoding.encode(text)
    if start_text is not None:
        start = single_token(encoding, start_text, 'start_text')
        if start not in tokens:
            return None
        tokens = tokens[tokens.index(start) + 1 :] or tokens
    tokens = tokens[:query_length]
    if end_text is not None:
        end = single_token(encoding, end_text, 'end_text')
        while tokens and tokens[-1] != end:
            tokens.pop()
    if not tokens:
        return None
    return tokens + [encoding.padding_token] * (query_length - len(tokens))


def single_token(encoding: Encoding, text: str, field: str) -> int:
    """Return the token of `text`; ValueError naming the `field` of the task unless it is exactly one."""
    tokens = encoding.encode(text)
    if len(tokens) != 1:
        raise ValueError(f'task.{field} {text!r} is {len(tokens)} tokens of the vocabulary: it must be one')
    return tokens[0]


class QueryStream:
    """Queries of a data set without end, in an order shuffled anew for each pass over it.

    The order of texts depends on the seed alone: of `num_ranks` ranks, rank r takes the texts at places
    r, r + num_ranks, … and reads and tokenises no other. `position` counts the texts this rank has looked at
    (with or without a query): a stream made with it goes on from there at no cost.
    """

    def __init__(
        self,
        dataset: str,
        mode: str,
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
                single_token(encoding, text, field)  # now, and not at the first query
        self._texts = get_texts(dataset, mode)
        if not len(self._texts):
            raise ValueError(f'the data set {dataset!r} has no text for {mode!r}')
        self._encoding = encoding
        self._query_length = query_length
        self._start_text = start_text
        self._end_text = end_text
        self._seed = seed % (1 << 32)
        self._rank = rank
        self._num_ranks = num_ranks
        self._pass = None
        self._order = None

    @classmethod
    def of_task(
        cls,
        task: TaskHParams,
        mode: str,
        encoding: Encoding,
        seed: int = 0,
        rank: int = 0,
        num_ranks: int = 1,
        position: int = 0,
    ) -> 'QueryStream':
        """Return the stream of a task's queries."""
        fields = (task.query_length, task.start_text, task.end_text)
        return cls(task.query_dataset, mode, encoding, *fields, seed, rank, num_ranks, position)

    def next_batch(self, n: int) -> np.ndarray:
        """Return the next `n` queries, int32 [n, query_length].

        ValueError if the texts have none, saying which token they lack.
        """
        return np.array([self.next_query()[1] for _ in range(n)], np.int32).reshape(n, self._query_length)

    def next_query(self) -> Tuple[int, List[int]]:
        """Return the next query and, first, the place of its text in the data set."""
        tried = min(len(self._texts), MAX_TEXTS_WITHOUT_QUERY)
        for _ in range(tried):
            index = self._next_index()
            text = self._texts[index]
            query = tokenize_query(text, self._encoding, self._query_length, self._start_text, self._end_text)
            if query is not None:
                return index, query
        raise ValueError(f'{tried} texts in a row of the data set {self._dataset!r} have no query: {self._fault(text)}')

    def check(self) -> None:
        """Raise what the next query would raise: before a model is loaded in vain."""
        copy.copy(self).next_query()

    def _next_index(self) -> int:
        place = self._rank + self.position * self._num_ranks
        self.position += 1
        passes, index = divmod(place, len(self._texts))
        if passes != self._pass:
            self._pass = passes
            texts = np.arange(len(self._texts), dtype=np.int32)  # 4 bytes a text are all that grows with the data set
            self._order = np.random.RandomState([self._seed, passes]).permutation(texts)
        return int(self._order[index])

    def _fault(self, text: str) -> str:
        """Say why `text` has no query."""
        if tokenize_query(text, self._encoding, self._query_length) is None:
            return 'they are empty'
        if tokenize_query(text, self._encoding, self._query_length, self._start_text) is None:
            return f'the token of task.start_text {self._start_text!r} is missing'
        where = f'the first {self._query_length} tokens'
        if self._start_text is not None:
            where += f' after task.start_text {self._start_text!r}'
        return f'the token of task.end_text {self._end_text!r} is missing from {where}'
