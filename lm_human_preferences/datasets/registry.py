"""Data sets by name.

A data set is a module (or, for a user's files, an object) with `texts(mode)`, where `mode` is train, valid or test.
It may also have:

  references(mode)  what people responded to the texts, in the same order
  labels(mode, num, schema, encoding, seed)  human labels
  lm_texts(mode)    texts to train a language model on, where these are not the texts of the queries
  judges()          who else can score a response: name -> function of a list of texts to scores [n]
"""

import importlib
from typing import Any, Callable, Dict, List, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.random_letters import MODES
from lm_human_preferences.datasets.text_files import JsonTexts, PlainTexts

_MODULES = {
    'books': 'lm_human_preferences.datasets.books',
    'cnndm': 'lm_human_preferences.datasets.cnndm',
    'tldr': 'lm_human_preferences.datasets.tldr',
    'demo': 'lm_human_preferences.demo.data_set',
    'test': 'lm_human_preferences.datasets.random_letters',
}
_FILES = {'text': PlainTexts, 'jsonl': JsonTexts}
NAMES = (*_MODULES, 'text:PATH', 'jsonl:PATH')

Judge = Callable[[List[str]], np.ndarray]  # scores [n] of n responses


def find_data_set(name: str) -> Any:
    """The data set called `name`: one of NAMES. ValueError for another name."""
    if name in _MODULES:
        return importlib.import_module(_MODULES[name])
    kind, _, path = name.partition(':')
    if kind in _FILES and path:
        return _FILES[kind](path)
    raise ValueError(f'unknown data set {name!r}: must be one of {", ".join(NAMES)}')


def get_texts(name: str, mode: str) -> Sequence[str]:
    """The texts of a data set in the order of its files, each read when asked for.

    ValueError for another name or mode, FileNotFoundError for missing files.
    """
    if mode not in MODES:
        raise ValueError(f'unknown part {mode!r} of a data set: must be one of {", ".join(MODES)}')
    return find_data_set(name).texts(mode)


def get_references(name: str, mode: str) -> Optional[Sequence[Optional[str]]]:
    """What people responded to the texts of a data set, in the order of `get_texts`.

    None for a data set without such responses; an item is None for a text without.
    """
    references = getattr(find_data_set(name), 'references', None)
    return None if references is None else references(mode)


def get_lm_texts(name: str, mode: str) -> Sequence[str]:
    """The texts of a data set for training a language model."""
    lm_texts = getattr(find_data_set(name), 'lm_texts', None)
    return get_texts(name, mode) if lm_texts is None else lm_texts(mode)


def get_judges(name: str) -> Dict[str, Judge]:
    """The judges of responses that a data set brings along, by name; {} for one without."""
    judges = getattr(find_data_set(name), 'judges', None)
    return {} if judges is None else judges()


def find_labels(name: str) -> Optional[Callable[..., Dict[str, np.ndarray]]]:
    """The `labels` function of the data set called `name`; None where there is no such data set, or it has none."""
    return getattr(find_data_set(name), 'labels', None) if name in _MODULES else None
