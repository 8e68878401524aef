"""Reddit posts whose authors wrote a summary (Völske et al. 2017), for summaries."""

import json
import re
from typing import Dict, Optional, Sequence

import ftfy

from lm_human_preferences.datasets.line_index import json_list, places
from lm_human_preferences.remote import storage


class Posts(Sequence):
    """Posts, read and cleaned when asked for."""

    def __init__(self, mode: str):
        name = '{}-subset.json'.format('train' if mode == 'train' else 'valid')
        self._path = storage.local_file(storage.join(storage.LABELS_AND_TEXTS, 'tldr', name))
        self._places = places(self._path, json_list)

    def __len__(self) -> int:
        return len(self._places)

    def __getitem__(self, index: int) -> str:
        """Return a cleaned post. ValueError naming file and place for an item that is none."""
        return clean(self._read(index)['content'])

    def _read(self, index: int) -> Dict:
        start, end = self._places[index]
        with open(self._path, 'rb') as f:
            f.seek(start)
            try:
                post = json.loads(f.read(end - start).decode('utf-8'))
            except UnicodeDecodeError as e:
                raise ValueError(f'{self._path}: not UTF-8 text: byte {start + e.start} of the file') from None
        if not isinstance(post, dict) or not isinstance(post.get('content'), str):
            raise ValueError(f'{self._path}: item at byte {start}: not an object with a "content"')
        return post


class Summaries(Posts):
    """The authors' own summaries of their posts."""

    def __getitem__(self, index: int) -> Optional[str]:
        """Return the summary of a post, None where the file has none."""
        return self._read(index).get('summary')


def texts(mode: str) -> Sequence[str]:
    """Return the posts of `mode`; they lie in tldr/ of the cache folder. `test` has those of `valid`."""
    return Posts(mode)


def references(mode: str) -> Sequence[Optional[str]]:
    """Return the authors' summaries of the posts of `mode`."""
    return Summaries(mode)


def clean(post: str) -> str:
    """Return a post without broken characters and with at most one empty line in a row."""
    return re.sub(r'\n{3,}', '\n\n', ftfy.fix_text(post)).strip()
