"""Reddit posts with summaries by their authors (Völske et al. 2017), the texts of the task `tldr`."""

import json
import re
from typing import Any, Dict, Optional, Sequence

import ftfy

from lm_human_preferences.datasets.hub_copies import Cleaned, published_or_copy
from lm_human_preferences.datasets.line_index import json_list, line_index, read_span
from lm_human_preferences.datasets.text_files import ParquetTexts
from lm_human_preferences.remote import storage

# The hub's copy has all posts in one split, so our splits are shares of it.
COPY_ON_HUB = ParquetTexts('hf://datasets/webis/tldr-17@refs/convert/parquet/default/*train/*.parquet#content,summary')
TITLE = 'tldr'


def texts(split: str) -> Sequence[str]:
    """Return the posts of a split: the files of 2019 in tldr/ of the cache folder, or the hub's copy.

    In the files of 2019, the splits `valid` and `test` are the same posts.
    """
    return published_or_copy(lambda: Posts(split), lambda: Cleaned(COPY_ON_HUB.texts(split), clean), TITLE)


def references(split: str) -> Sequence[Optional[str]]:
    """Return the authors' own summaries of the posts of a split."""
    return published_or_copy(lambda: Summaries(split), lambda: COPY_ON_HUB.references(split), TITLE)


class Posts(Sequence):
    """Posts. Each is read and cleaned when it is indexed."""

    def __init__(self, split: str):
        name = 'train-subset.json' if split == 'train' else 'valid-subset.json'
        self._path = storage.local_file(storage.join(storage.LABELS_AND_TEXTS, 'tldr', name))
        self._index = line_index(self._path, json_list, check_post)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> str:
        """Return a cleaned post. ValueError naming file and byte if the file has changed and has no such item."""
        return clean(self._read(index)['content'])

    def _read(self, index: int) -> Dict:
        start, end = self._index[index]
        try:
            post = json.loads(read_span(self._path, (start, end)).decode('utf-8'))
            check_post(post)
        except ValueError as error:
            raise ValueError(f'{self._path}: item at byte {start}: {error}: the file was changed') from None
        return post


class Summaries(Posts):
    """The authors' own summaries of their posts."""

    def __getitem__(self, index: int) -> Optional[str]:
        """Return the summary of a post, or None if the file has none."""
        return self._read(index).get('summary')


def check_post(post: Any) -> None:
    """Raise ValueError for an item of the file that is no post, or whose summary is not a text."""
    if not isinstance(post, dict) or not isinstance(post.get('content'), str):
        raise ValueError('not an object with a "content"')
    if not isinstance(post.get('summary'), (str, type(None))):
        raise ValueError('"summary" is not a string')


def clean(post: str) -> str:
    """Repair broken characters, and leave at most one empty line in a row."""
    return re.sub(r'\n{3,}', '\n\n', ftfy.fix_text(post)).strip()
