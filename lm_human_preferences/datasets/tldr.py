"""Reddit posts with summaries by their authors (Völske et al. 2017), the texts of the task `tldr`."""

import json
import re
from typing import Dict, Optional, Sequence

import ftfy

from lm_human_preferences.datasets.line_index import json_list, line_index, read_span
from lm_human_preferences.remote import storage


def texts(split: str) -> Sequence[str]:
    """Return the posts of a split, in tldr/ of the cache folder. The splits `valid` and `test` are the same posts."""
    return Posts(split)


def references(split: str) -> Sequence[Optional[str]]:
    """Return the authors' own summaries of the posts of a split."""
    return Summaries(split)


class Posts(Sequence):
    """Posts. Each is read and cleaned when it is indexed."""

    def __init__(self, split: str):
        name = 'train-subset.json' if split == 'train' else 'valid-subset.json'
        self._path = storage.local_file(storage.join(storage.LABELS_AND_TEXTS, 'tldr', name))
        self._index = line_index(self._path, json_list)

    def __len__(self) -> int:
        return len(self._index)

    def __getitem__(self, index: int) -> str:
        """Return a cleaned post. ValueError naming file and byte if the item is no post."""
        return clean(self._read(index)['content'])

    def _read(self, index: int) -> Dict:
        start, end = self._index[index]
        try:
            post = json.loads(read_span(self._path, (start, end)).decode('utf-8'))
        except UnicodeDecodeError as e:
            raise ValueError(f'{self._path}: not UTF-8 text: byte {start + e.start} of the file') from None
        if not isinstance(post, dict) or not isinstance(post.get('content'), str):
            raise ValueError(f'{self._path}: item at byte {start}: not an object with a "content"')
        return post


class Summaries(Posts):
    """The authors' own summaries of their posts."""

    def __getitem__(self, index: int) -> Optional[str]:
        """Return the summary of a post, or None if the file has none."""
        return self._read(index).get('summary')


def clean(post: str) -> str:
    """Repair broken characters, and leave at most one empty line in a row."""
    return re.sub(r'\n{3,}', '\n\n', ftfy.fix_text(post)).strip()
