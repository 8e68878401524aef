"""Reddit posts whose authors wrote a summary (Völske et al. 2017), for summaries."""

import json
import os
import re
from typing import Dict, List, Optional, Sequence

import ftfy

from lm_human_preferences.utils.cache import cache_dir


class Posts(Sequence):
    """Posts, cleaned when asked for."""

    def __init__(self, posts: Sequence[str]):
        self._posts = posts

    def __len__(self) -> int:
        return len(self._posts)

    def __getitem__(self, index: int) -> str:
        return clean(self._posts[index])


def texts(mode: str) -> Sequence[str]:
    """Return the posts of `mode`, found in tldr/ of the cache folder; `test` has those of `valid`."""
    return Posts([post['content'] for post in _load(mode)])


def references(mode: str) -> Sequence[Optional[str]]:
    """Return the authors' own summaries of the posts of `mode`, None where the file has none."""
    return [post.get('summary') for post in _load(mode)]


def _load(mode: str) -> List[Dict]:
    name = '{}-subset.json'.format('train' if mode == 'train' else 'valid')
    path = os.path.join(cache_dir(), 'tldr', name)
    if not os.path.exists(path):
        raise FileNotFoundError(f'{path} not found: put the published {name} of the tldr data set there')
    with open(path, encoding='utf-8') as f:
        try:
            posts = json.load(f)
        except ValueError:
            posts = None
    if not isinstance(posts, list) or not all(isinstance(post, dict) and 'content' in post for post in posts):
        raise ValueError(f'{path}: not a JSON list of objects with a "content"')
    return posts


def clean(post: str) -> str:
    """Return a post without broken characters and with at most one empty line in a row."""
    return re.sub(r'\n{3,}', '\n\n', ftfy.fix_text(post)).strip()
