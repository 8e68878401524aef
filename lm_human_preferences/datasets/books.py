"""Passages of books, the texts of the stylistic tasks. The published files were lost when their bucket moved."""

import os
from typing import Sequence

from lm_human_preferences.datasets.text_files import LineFile, json_lines
from lm_human_preferences.remote.cache import cache_dir

# Each text there is one sentence, so queries end early.
ON_HUB = "'parquet:hf://datasets/bookcorpus/bookcorpus@refs/convert/parquet/plain_text/*train/*.parquet#text'"


def texts(split: str) -> Sequence[str]:
    """Return the passages of a split: one JSON string on each line of datasets/book_passages/SPLIT.jsonl."""
    path = os.path.join(cache_dir(), 'datasets', 'book_passages', f'{split}.jsonl')
    if not os.path.exists(path):
        raise FileNotFoundError(
            f'{path} not found: the published passages are lost; put your own there, one JSON string on each line, or'
            f' use other texts: --task.query_dataset text:PATH, or a copy of the book corpus on the hub, {ON_HUB}.'
            ' The labels still teach, but the scores are no longer those of the paper'
        )
    lines = json_lines()
    return LineFile(path, lines.text, lines.check)
