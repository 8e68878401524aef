"""The built-in data set `test`, for trials without files: random letters, and labels of zeros."""

import string
from typing import Dict, Sequence

import numpy as np

from lm_human_preferences.language.encodings import Encoding

MODES = ('train', 'valid', 'test')


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


def texts(mode: str) -> Sequence[str]:
    """The texts of `mode`."""
    return RandomLetters(MODES.index(mode))


def labels(mode: str, num: int, schema: Dict, encoding: Encoding, seed: int = 0) -> Dict[str, np.ndarray]:
    """`num` labels of any schema, all zeros: {field: [num, …]}."""
    return {field: np.zeros((num,) + shape, dtype) for field, (dtype, shape) in schema.items()}
