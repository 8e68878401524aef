"""Read human labels from files: the queries, the samples, and people's choices or ratings, as arrays."""

import json
import os
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from lm_human_preferences.datasets import pairs, shards
from lm_human_preferences.datasets.registry import find_label_function
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.remote import storage
from lm_human_preferences.remote.cache import cache_dir
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.json_files import read_json

Schema = Dict[str, Tuple[Any, Tuple[int, ...]]]  # {field: (type, shape of one label)}

PUBLISHED = (
    'labels/sentiment/offline_5k.json',
    'labels/descriptiveness/offline_5k.json',
    'labels/cnndm/offline_60k.json',
    'labels/cnndm/online_45k.json',
    'labels/tldr/offline_60k.json',
    'labels/tldr/online_45k.json',
)
"""The label files of 2019. Only these names ask the network."""

_PAIRS = 'pairs of chosen and rejected texts are no labels: '
_OTHER_KINDS = (  # of files, by their first bytes
    (b'\x1f\x8b', 'compressed by gzip: unpack it first, with gunzip'),
    (b'BZh', 'compressed by bzip2: unpack it first, with bunzip2'),
    (b'\xfd7zXZ', 'compressed by xz: unpack it first, with unxz'),
    (b'\x28\xb5\x2f\xfd', 'compressed by zstd: unpack it first, with unzstd'),
    (b'PK\x03\x04', 'a zip archive: unpack it first, with unzip'),
    (pairs.PARQUET, 'a Parquet file: give it alone as labels.source if it holds pairs'),
    (b'version https://git-lfs', 'a pointer of git-lfs: fetch the file itself, with git lfs pull'),
    (b'<', 'a web page: download the file itself'),
)


def load_labels(
    source: str, schema: Schema, num: Optional[int], encoding: Encoding, seed: int = 0, split: str = 'train'
) -> Dict[str, np.ndarray]:
    """Return the first `num` labels (None: all) of a source: {field: [num, …]}.

    Args:
      source: a label file, which is a JSON list of objects, or a local folder of label files (*.json), read in the
        order of their names. A file is a path, gs://…, https://…, or the name of a published file, such as
        labels/tldr/online_45k.json. A path may be relative to the cache folder. A path may also name pairs of a chosen
        and a rejected response (JSON lines or Parquet), or have a * for several files, and begin with hf://. `source`
        may also be the name of a data set that has labels, such as 'demo' or 'test'.
      seed, split: used only for the labels of a data set.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: labels do not fit the schema. The message names file, entry and field.
    """
    labels_of_data_set = find_label_function(source)
    if labels_of_data_set is not None:
        return labels_of_data_set(split, num, schema, encoding, seed)
    paths = find_label_files(source)
    path = paths[0] if len(paths) == 1 else source
    if all(pairs.are_pairs(path) for path in paths):
        entries = _entries_of_pairs(paths, schema, num, encoding)
    else:
        entries = [entry for path in paths for entry in read_entries(path)]
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


def _entries_of_pairs(paths, schema, num, encoding):
    """Return the entries of files of pairs, as `read_entries` does. ValueError if the schema is not of best_of_2."""
    if set(schema) != {'query', 'sample0', 'sample1', 'best'}:
        raise ValueError(f'{paths[0]}: pairs of chosen and rejected texts need --labels.type=best_of_2')
    (query_length,), (response_length,) = schema['query'][1], schema['sample0'][1]
    return pairs.labels_of(paths, encoding, query_length, response_length, num)


def read_entries(path: str) -> List[Tuple[str, Any]]:
    """Return the entries of a label file, or of a folder's label files (*.json) in the order of their names.

    Before each entry stands its location, a text for messages. ValueError if a file is no list, with what it is instead
    and how to make labels of it, where we know that.
    """
    if os.path.isdir(path):
        names = sorted(name for name in os.listdir(path) if not name.startswith('.'))
        files = [name for name in names if name.endswith('.json')]
        if not files:
            others = f'; {names[0]} is not read' if names else ''
            raise ValueError(f'{path}: no label file (*.json) in this folder{others}')
        return [entry for name in files for entry in read_entries(os.path.join(path, name))]
    try:
        entries = read_json(path)
    except ValueError as error:
        kind = _other_kind(path)
        raise ValueError(f'{path}: {kind}') if kind else error from None
    if not isinstance(entries, list):
        raise ValueError(f'{path}: {_kind_of_line(entries) or "not a list of labels"}')
    if entries and pairs.is_pair(entries[0]):
        convert = f'write one on each line of a file PAIRS.jsonl, then {_convert("PAIRS.jsonl", entries[0])}'
        raise ValueError(f'{path}: {_PAIRS}{convert}')
    return [(f'{path}: entry {i}', entry) for i, entry in enumerate(entries)]


def find_label_files(source: str) -> List[str]:
    """Return the local paths of label files: those that match a pattern with *, or that of `find_label_file`."""
    if '*' in source and not os.path.exists(source):
        return [storage.local_file(path) for path in shards.find_all(source)]
    return [find_label_file(source)]


def find_label_file(source: str) -> str:
    """Return the local path of a label file, or of a folder of label files. A remote or published file is fetched.

    FileNotFoundError if there is none.
    """
    if storage.is_remote(source):
        return storage.local_file(source)
    paths = [os.path.expanduser(source), os.path.join(cache_dir(), source)]
    for path in paths:
        if os.path.exists(path):
            return path
    if source in PUBLISHED:
        return storage.local_file(storage.join(storage.LABELS_AND_TEXTS, source))
    names = f'; the published files are {", ".join(PUBLISHED)}' if source.startswith('labels/') else ''
    raise FileNotFoundError(f'--labels.source: no label file {" or ".join(dict.fromkeys(paths))}{names}')


def check_teaches(source: str, labels: Dict[str, np.ndarray], needs_spread: bool = False) -> None:
    """Refuse (ValueError) the labels of a source from which no reward model could learn.

    `needs_spread`: the reward model is normalized to the standard deviation of scores or differences. It must not be 0.
    The labels of a data set, such as the zeros of `test`, may be of any kind.
    """
    if find_label_function(source) is not None:
        return
    fault = None
    samples = [labels[field] for field in labels if field.startswith('sample')]
    if len(samples) > 1 and all(np.array_equal(samples[0], other) for other in samples[1:]):
        fault = 'the samples of each label are equal to each other'
    elif 'difference' in labels and not labels['difference'].any():
        fault = 'each difference is 0'
    if fault:
        num = len(labels['query'])
        raise ValueError(f'--labels.source {source}: in all {num} labels, {fault}: no reward model can learn from them')
    for field in ('score', 'difference'):
        if needs_spread and field in labels and (labels[field] == labels[field][0]).all():
            raise ValueError(
                f'--labels.source {source}: each {field} is {labels[field][0]:g}: '
                'normalize_before needs a standard deviation above 0: set it to false, or give other labels'
            )


def _other_kind(path: str) -> Optional[str]:
    """Return what a file is that is not JSON, and how to make labels of it; None if it is nothing that we know."""
    if not os.path.isfile(path):
        return None
    with open(path, 'rb') as file:
        beginning = file.read(1 << 20).lstrip(b'\xef\xbb\xbf \t\r\n')
    for magic, kind in _OTHER_KINDS:
        if beginning.startswith(magic):
            return kind
    try:
        return _kind_of_line(json.loads(beginning.split(b'\n')[0].decode('utf-8')))
    except (ValueError, RecursionError):
        return None


def _kind_of_line(line: Any) -> Optional[str]:
    """Return what a file of JSON Lines is, by the content of its first line; None if it is something else."""
    if pairs.is_pair(line):
        return f'{_PAIRS}{_convert("PAIRS.jsonl", line)}'
    if isinstance(line, dict) and 'query' in line:
        return 'one label on each line (JSON Lines), but labels are one JSON list: jq -s . makes it'
    return None


def _convert(pairs: str, pair: Dict[str, Any]) -> str:
    prompt = '' if 'prompt' in pair else ' (each pair needs a prompt, too)'
    return f'./launch.py convert {pairs} labels.json makes labels of them{prompt}'


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
