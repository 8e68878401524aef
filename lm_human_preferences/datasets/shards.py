"""The files that a user's spelling of texts names.

A spelling is PATH, several paths with commas between them, or a pattern with * for the shards of one data set. PATH may
be local, gs://, https:// or hf://. Where each split has files of its own, the spelling says so:

  data/{split}-*.jsonl                                   train-….jsonl, valid-….jsonl and test-….jsonl
  hf://datasets/OWNER/NAME/{train,validation,test}-*.parquet   the names of train, valid and test, in this order
  data                                                   a folder with train.jsonl, valid.jsonl and test.jsonl
"""

import os
import re
from typing import List, NamedTuple, Tuple
from urllib.parse import urlsplit

from lm_human_preferences.remote import hub, storage

_SPLITS = ('train', 'valid', 'test')
_BRACES = re.compile(r'\{([^{}]*)\}')
_COMMA = re.compile(r',(?![^{]*\})')  # one outside of braces


class Files(NamedTuple):
    """Local files of texts."""

    paths: List[str]
    are_split: bool  # they hold one split alone


def split_columns(spelled: str) -> Tuple[str, List[str]]:
    """Split PATHS#TEXT,REFERENCE into the paths and the names of at most two columns.

    A local file whose name has a # is taken as it is. ValueError for more columns, or an empty name.
    """
    paths, mark, names = spelled.rpartition('#')
    if not mark or _exists(spelled):
        return spelled, []
    columns = names.split(',')
    if len(columns) > 2 or not all(columns):
        raise ValueError(f'{spelled}: after # stand the column of the texts and perhaps that of the references')
    return paths, columns


def find_files(spelled: str, split: str, suffix: str) -> Files:
    """Return the local files of a spelling that hold a split, or all splits. Remote files are fetched.

    Args:
      suffix: of the files in a folder, such as '.jsonl'.

    Raises:
      FileNotFoundError: there is no such file.
      ValueError: some paths name a split and others do not, or the braces hold something else.
    """
    is_single_url = storage.is_remote(spelled) and not hub.is_hub(spelled) and '?' in spelled
    paths = [spelled] if is_single_url or _exists(spelled) else _COMMA.split(spelled)
    found, kinds = [], set()
    for path in paths:
        of_split = _of_split(path, split)
        kinds.add(of_split != path or is_folder(path))
        found += _of_path(of_split, split, suffix)
    if len(kinds) > 1:
        raise ValueError(f'{spelled}: either all of these paths name the split, as in {{split}}.jsonl, or none')
    return Files([storage.local_file(path) for path in found], kinds == {True})


def find_all(spelled: str) -> List[str]:
    """Return the files of a path, or of a pattern with *, which need not be local."""
    return storage.matching(spelled) if _is_pattern(spelled) else [spelled]


def is_folder(path: str) -> bool:
    """Return whether `path` names a folder. A remote path is taken for a folder if its name has no extension."""
    if storage.is_remote(path):
        return not os.path.splitext(hub.parse(path).path if hub.is_hub(path) else urlsplit(path).path)[1]
    return os.path.isdir(os.path.expanduser(path))


def _of_path(path: str, split: str, suffix: str) -> List[str]:
    if _is_pattern(path):
        return storage.matching(path)
    return [storage.join(path, split + suffix)] if is_folder(path) else [path]


def _of_split(path: str, split: str) -> str:
    """Return a path with the split's name in place of {split} or {TRAIN,VALID,TEST}."""

    def name(braces):
        names = braces.group(1).split(',')
        if names == ['split']:
            return split
        if len(names) != len(_SPLITS):
            raise ValueError(
                f'{path}: {braces.group()} should be {{split}}, or the names of train, valid and test, in this order'
            )
        return names[_SPLITS.index(split)]

    return path if _exists(path) else _BRACES.sub(name, path)


def _is_pattern(path: str) -> bool:
    if storage.is_remote(path):
        return '*' in (path if hub.is_hub(path) else urlsplit(path).path)
    return ('*' in path or '?' in path) and not _exists(path)


def _exists(path: str) -> bool:
    return not storage.is_remote(path) and os.path.exists(os.path.expanduser(path))
