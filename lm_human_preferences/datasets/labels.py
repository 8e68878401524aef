"""Human labels: what people were asked and answered, as arrays."""

import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from lm_human_preferences.datasets.registry import find_labels
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.remote import storage
from lm_human_preferences.remote.cache import cache_dir
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.json_files import read_json

# Of each field the type and the shape of one label.
Schema = Dict[str, Tuple[Any, Tuple[int, ...]]]


def load_labels(
    source: str, schema: Schema, num: Optional[int], encoding: Encoding, seed: int = 0, mode: str = 'train'
) -> Dict[str, np.ndarray]:
    """Return the first `num` labels (None: all) of a source: {field: [num, …]}.

    `source` is a JSON list of objects in a file (a path, gs://… or https://…, or the name of a published file, below
    labels/), or a folder of such files (*.json, taken in the order of their names); either may lie in the cache folder.
    It may also be the name of a data set with labels, such as 'demo' or 'test': `mode` and `seed` are for these alone.
    FileNotFoundError if there is no such file; ValueError naming file, entry and field for labels that do
    not fit the schema.
    """
    of_data_set = find_labels(source)
    if of_data_set is not None:
        return of_data_set(mode, num, schema, encoding, seed)
    path = find(source)
    entries = read_entries(path)
    if not entries:
        raise ValueError(f'{path}: no labels')
    num = len(entries) if num is None else num
    if len(entries) < num:
        raise ValueError(f'{path}: {len(entries)} labels are fewer than labels.num_train, {num}')
    entries = entries[:num]
    labels = {}
    for field, (dtype, shape) in schema.items():
        column = np.zeros((num,) + shape, dtype)
        for i, (place, entry) in enumerate(entries):
            try:
                column[i] = _value(entry, field, column.dtype, shape)
            except ValueError as e:
                raise ValueError(f'{place}: field {field!r}: {e}') from None
        labels[field] = column
    _check_ranges([place for place, _ in entries], labels, encoding)
    return labels


def read_entries(path: str) -> List[Tuple[str, Any]]:
    """The entries of a label file, or of all label files (*.json) of a folder in the order of their names.

    Each comes with its place, for messages.
    """
    if os.path.isdir(path):
        files = sorted(name for name in os.listdir(path) if name.endswith('.json') and not name.startswith('.'))
        if not files:
            raise ValueError(f'{path}: no label file (*.json) in this folder')
        return [entry for name in files for entry in read_entries(os.path.join(path, name))]
    entries = read_json(path)
    if not isinstance(entries, list):
        raise ValueError(f'{path}: not a list of labels')
    return [(f'{path}: entry {i}', entry) for i, entry in enumerate(entries)]


def find(source: str) -> str:
    """Return the path of a label file (fetched if it is remote or published), or of a local folder of them."""
    if storage.is_remote(source):
        return storage.local_file(source)
    places = [os.path.expanduser(source), os.path.join(cache_dir(), source)]
    for path in places:
        if os.path.exists(path):
            return path
    if source.startswith('labels/'):
        return storage.local_file(storage.join(storage.LABELS_AND_TEXTS, source))
    raise FileNotFoundError(f'--labels.source: no label file {" or ".join(dict.fromkeys(places))}')


def _value(entry: Any, field: str, dtype: np.dtype, shape: Tuple[int, ...]) -> np.ndarray:
    """Return a field of an entry as an array; ValueError without the place for what does not fit."""
    if not isinstance(entry, dict):
        raise ValueError('the entry is not an object')
    if field not in entry:
        raise ValueError('missing')
    value = entry[field]
    numbers = value if isinstance(value, list) else [value]
    if np.issubdtype(dtype, np.integer):
        kinds, wanted, limit = (int,), 'an integer', np.iinfo(dtype).max
    else:
        kinds, wanted, limit = (int, float), 'a finite number', float(np.finfo(dtype).max)
    for number in numbers:
        if not isinstance(number, kinds) or isinstance(number, bool) or not abs(number) <= limit:
            raise ValueError(f'{short(number)} is not {wanted} of type {dtype}')
    if np.shape(value) != shape:
        wanted = f'a list of {shape[0]} numbers' if shape else 'a number'
        given = f'a list of {len(value)}' if isinstance(value, list) else 'a number'
        raise ValueError(f'{given} where {wanted} is expected')
    return np.array(value, dtype)


def _check_ranges(places: List[str], labels: Dict[str, np.ndarray], encoding: Encoding) -> None:
    """ValueError for a token outside the vocabulary or a choice of a sample that is not there."""
    samples = [field for field in labels if field.startswith('sample')]
    for field, values in labels.items():
        if field in samples or field == 'query':
            wrong = ((values < 0) | (values >= encoding.n_vocab)) & (values != encoding.padding_token)
            reason = f'is no token of the vocabulary of {encoding.n_vocab}'
        elif field == 'best':
            wrong = (values < 0) | (values >= len(samples))
            reason = f'is none of the {len(samples)} samples'
        else:
            continue
        if wrong.any():
            first = tuple(np.argwhere(wrong)[0])
            raise ValueError(f'{places[first[0]]}: field {field!r}: {values[first]} {reason}')
