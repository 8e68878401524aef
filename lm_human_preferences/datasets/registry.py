"""Find a data set by its name.

A data set is a module, or an object for files of the user. It has the function `texts(split)`, where `split` is
'train', 'valid' or 'test'. It may also have these functions:

  references(split)  people's own responses to the texts, in the same order
  labels(split, num, schema, encoding, seed)  human labels
  lm_texts(split)    the texts to train a language model on, if they differ from `texts(split)`
  judges()           further scores of responses: {name: function from a list of texts to scores [n]}
"""

import importlib
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.text_files import JsonTexts, ParquetTexts, PlainTexts

SPLITS = ('train', 'valid', 'test')
_MODULES = {
    'books': 'lm_human_preferences.datasets.books',
    'cnndm': 'lm_human_preferences.datasets.cnndm',
    'tldr': 'lm_human_preferences.datasets.tldr',
    'demo': 'lm_human_preferences.demo.data_set',
    'test': 'lm_human_preferences.datasets.random_letters',
}
_FILES = {'text': PlainTexts, 'jsonl': JsonTexts, 'parquet': ParquetTexts}
NAMES = (*_MODULES, 'text:PATH', 'jsonl:PATH', 'parquet:PATH#COLUMN')

Judge = Callable[[List[str]], np.ndarray]  # scores [n] of n responses


def find_data_set(name: str) -> Any:
    """Return the data set called `name`. ValueError if `name` is none of NAMES."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    kind, _, path = name.partition(':')
    if kind in _FILES and path:
        return _FILES[kind](path)
    raise ValueError(f'unknown data set {name!r}: must be one of {", ".join(NAMES)}')


def get_texts(name: str, split: str) -> Sequence[str]:
    """Return the texts of a split in the order of the files. A text is read when it is indexed.

    ValueError for an unknown name or split, FileNotFoundError for missing files.
    """
    if split not in SPLITS:
        raise ValueError(f'unknown split {split!r} of a data set: must be one of {", ".join(SPLITS)}')
    return find_data_set(name).texts(split)


def get_references(name: str, split: str) -> Optional[Sequence[Optional[str]]]:
    """Return people's own responses to the texts, in the order of `get_texts`.

    The result is None if the data set has no references. An item is None if its text has no reference.
    """
    references = getattr(find_data_set(name), 'references', None)
    return None if references is None else references(split)


def get_lm_texts(name: str, split: str) -> Sequence[str]:
    """Return the texts of a split for training a language model."""
    lm_texts = getattr(find_data_set(name), 'lm_texts', None)
    return get_texts(name, split) if lm_texts is None else lm_texts(split)


def get_judges(name: str) -> Dict[str, Judge]:
    """Return the data set's judges of responses by name, or {} if it has none."""
    judges = getattr(find_data_set(name), 'judges', None)
    return {} if judges is None else judges()


def find_label_function(name: str) -> Optional[Callable[..., Dict[str, np.ndarray]]]:
    """Return the function `labels` of the data set called `name`.

    None if no data set has that name, or if the data set has no labels.
    """
    return getattr(find_data_set(name), 'labels', None) if name in _MODULES else None
