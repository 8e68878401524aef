"""Pairs of a chosen and a rejected response, from files of JSON lines or of Parquet, as labels of type best_of_2."""

import json
import os
from typing import Any, Dict, Iterator, List, NamedTuple, Optional, Sequence, Tuple

from lm_human_preferences.datasets.parquet_files import as_json_lines
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.utils.files import open_regular, text_lines

FIELDS = ('prompt', 'chosen', 'rejected')
PARQUET = b'PAR1'  # the first bytes of a Parquet file


class Pair(NamedTuple):
    """A prompt and people's choice between two responses, as texts."""

    location: str  # for messages
    prompt: str
    chosen: str
    rejected: str


def are_pairs(path: str) -> bool:
    """Return whether a file is of Parquet, or its first line is a JSON object of a pair."""
    if not os.path.isfile(path):
        return False
    with open_regular(path) as file:
        beginning = file.read(1 << 20)
    if beginning.startswith(PARQUET):
        return True
    try:
        return is_pair(json.loads(beginning.decode('utf-8-sig', 'ignore').lstrip().split('\n')[0]))
    except (ValueError, RecursionError):
        return False


def is_pair(entry: Any) -> bool:
    """Return whether a value of JSON is a pair, perhaps without a prompt."""
    return isinstance(entry, dict) and 'chosen' in entry and 'rejected' in entry


def read_pairs(path: str) -> Iterator[Pair]:
    """Yield the pairs of a file. ValueError naming a bad line and its file."""
    with open_regular(path) as file:
        is_parquet = file.read(len(PARQUET)) == PARQUET
    what = 'row' if is_parquet else 'line'
    number = -1
    for line in text_lines(as_json_lines(path, dict(zip(FIELDS, FIELDS))) if is_parquet else path):
        if not line.text.strip():
            continue
        number = number + 1 if is_parquet else line.number
        location = f'{path}: {what} {number}'
        try:
            entry = json.loads(line.text)
        except (ValueError, RecursionError):
            raise ValueError(f'{location}: not JSON') from None
        texts = [entry.get(name) if isinstance(entry, dict) else None for name in FIELDS]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f'{location}: prompt, chosen and rejected should be texts')
        if not texts[1] or not texts[2]:
            raise ValueError(f'{location}: chosen and rejected should not be empty')
        yield Pair(location, *texts)


def label_of(number: int, query: Sequence[int], chosen: Sequence[int], rejected: Sequence[int]) -> Dict[str, Any]:
    """Return the label of type best_of_2 of pair `number`, of tokens. The chosen response is sample 0 and 1 in turn."""
    best = number % 2
    samples = (rejected, chosen) if best else (chosen, rejected)
    return dict(query=query, sample0=samples[0], sample1=samples[1], best=best)


def labels_of(
    paths: Sequence[str], encoding: Encoding, query_length: int, response_length: int, num: Optional[int] = None
) -> List[Tuple[str, Dict[str, Any]]]:
    """Return the labels of the first `num` pairs of files (None: of all), each with its location for messages.

    Texts are padded on the right. ValueError naming a pair whose prompt or response is too long.
    """
    labels = []
    for path in paths:
        for pair in read_pairs(path):
            if len(labels) == num:
                return labels
            tokens = {}
            for field in FIELDS:
                length, name = (query_length, 'query') if field == 'prompt' else (response_length, 'response')
                text = encoding.encode(getattr(pair, field))
                if len(text) > length:
                    raise ValueError(
                        f'{pair.location}: its {field} has {len(text)} tokens, but task.{name}_length is {length}: '
                        'raise it, or cut the texts with ./launch.py convert PAIRS.jsonl labels.json'
                    )
                tokens[field] = encoding.pad(text, length)
            labels.append((pair.location, label_of(len(labels), *(tokens[field] for field in FIELDS))))
    return labels
