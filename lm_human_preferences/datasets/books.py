"""Passages of books, the text of the stylistic tasks. The published files were lost in a move of servers."""

import os
from typing import Sequence

from lm_human_preferences.datasets.text_files import LineFile, parse_json_line
from lm_human_preferences.remote.cache import cache_dir


def texts(mode: str) -> Sequence[str]:
    """Return the passages of `mode`: one JSON string a line of datasets/book_passages/MODE.jsonl."""
    path = os.path.join(cache_dir(), 'datasets', 'book_passages', f'{mode}.jsonl')
    if not os.path.exists(path):
        raise FileNotFoundError(
            f'{path} not found: the published passages are lost; put yours there, one JSON string a line,'
            ' or use other texts with --task.query_dataset=text:PATH'
        )
    return LineFile(path, parse_json_line)
