"""The built-in data set `test` for trials without files: sentences of random letters, and labels that are all zero."""

import string
from typing import Dict, Sequence

import numpy as np

from lm_human_preferences.language.encodings import Encoding

NUM_TEXTS = 2000
_SEEDS = {'train': 0, 'valid': 1, 'test': 2}


def texts(split: str) -> Sequence[str]:
    """Return the texts of a split."""
    return RandomLetters(_SEEDS[split])


class RandomLetters(Sequence):
    """Texts of eight short words of random letters, each word ending in '.'."""

    def __init__(self, seed: int):
        self._seed = seed

    def __len__(self) -> int:
        return NUM_TEXTS

    def __getitem__(self, index: int) -> str:
        if not 0 <= index < NUM_TEXTS:
            raise IndexError(index)
        random = np.random.RandomState([self._seed, index])
        lengths = random.randint(1, 5, size=8)
        return ''.join(''.join(random.choice(list(string.ascii_lowercase), n)) + '.' for n in lengths)


def labels(split: str, num: int, schema: Dict, encoding: Encoding, seed: int = 0) -> Dict[str, np.ndarray]:
    """Return `num` labels of any schema, all zero: {field: [num, …]}."""
    return {field: np.zeros((num,) + shape, dtype) for field, (dtype, shape) in schema.items()}
