"""Passages of books, the texts of the stylistic tasks. The published files were lost when their bucket moved."""

import os
from typing import Sequence

from lm_human_preferences.datasets.text_files import LineFile, check_json_line, parse_json_line
from lm_human_preferences.remote.cache import cache_dir


def texts(split: str) -> Sequence[str]:
    """Return the passages of a split: one JSON string on each line of datasets/book_passages/SPLIT.jsonl."""
    path = os.path.join(cache_dir(), 'datasets', 'book_passages', f'{split}.jsonl')
    if not os.path.exists(path):
        raise FileNotFoundError(
            f'{path} not found: the published passages are lost; put your own there, one JSON string on each line,'
            ' or use other texts with --task.query_dataset=text:PATH'
        )
    return LineFile(path, parse_json_line, check_json_line)
