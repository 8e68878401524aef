"""Read human labels from files: the queries, the samples, and people's choices or ratings, as arrays."""

import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from lm_human_preferences.datasets.registry import find_label_function
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.remote import storage
from lm_human_preferences.remote.cache import cache_dir
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.json_files import read_json

Schema = Dict[str, Tuple[Any, Tuple[int, ...]]]  # {field: (type, shape of one label)}


def load_labels(
    source: str, schema: Schema, num: Optional[int], encoding: Encoding, seed: int = 0, split: str = 'train'
) -> Dict[str, np.ndarray]:
    """Return the first `num` labels (None: all) of a source: {field: [num, …]}.

    Args:
      source: a label file, which is a JSON list of objects, or a local folder of label files (*.json), read in the
        order of their names. A file is a path, gs://…, https://…, or the name of a published file, such as
        labels/tldr/online_45k.json. A path may be relative to the cache folder. `source` may also be the name of a data
        set that has labels, such as 'demo' or 'test'.
      seed, split: used only for the labels of a data set.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: labels do not fit the schema. The message names file, entry and field.
    """
    labels_of_data_set = find_label_function(source)
    if labels_of_data_set is not None:
        return labels_of_data_set(split, num, schema, encoding, seed)
    path = find_label_file(source)
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
        for i, (location, entry) in enumerate(entries):
            try:
                column[i] = _value(entry, field, column.dtype, shape)
            except ValueError as e:
                raise ValueError(f'{location}: field {field!r}: {e}') from None
        labels[field] = column
    _check_ranges([location for location, _ in entries], labels, encoding)
    return labels


def read_entries(path: str) -> List[Tuple[str, Any]]:
    """Return the entries of a label file, or of a folder's label files (*.json) in the order of their names.

    Before each entry stands its location, a text for messages.
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


def find_label_file(source: str) -> str:
    """Return the local path of a label file, or of a folder of label files. A remote or published file is fetched."""
    if storage.is_remote(source):
        return storage.local_file(source)
    paths = [os.path.expanduser(source), os.path.join(cache_dir(), source)]
    for path in paths:
        if os.path.exists(path):
            return path
    if source.startswith('labels/'):
        return storage.local_file(storage.join(storage.LABELS_AND_TEXTS, source))
    raise FileNotFoundError(f'--labels.source: no label file {" or ".join(dict.fromkeys(paths))}')


def _value(entry: Any, field: str, dtype: np.dtype, shape: Tuple[int, ...]) -> np.ndarray:
    """Return a field of an entry as an array. ValueError, without the location, if it does not fit."""
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


def _check_ranges(locations: List[str], labels: Dict[str, np.ndarray], encoding: Encoding) -> None:
    """Raise ValueError for a token outside of the vocabulary, or for a choice of a sample that does not exist."""
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
            raise ValueError(f'{locations[first[0]]}: field {field!r}: {values[first]} {reason}')
