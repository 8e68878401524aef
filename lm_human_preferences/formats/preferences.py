"""Convert labels from and to pairs: JSON lines with the texts `prompt`, `chosen` and `rejected`."""

import json
from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.utils.files import text_lines
from lm_human_preferences.utils.json_files import read_json


class Imported(NamedTuple):
    """Labels made from pairs, and the numbers of texts that were too long."""

    labels: List[Dict[str, Any]]  # of type best_of_2
    num_cut_prompts: int
    num_cut_responses: int


def read_pairs(path: str) -> Iterator[Tuple[str, str, str]]:
    """Yield (prompt, chosen, rejected) of each line that is not blank. ValueError naming a bad line and its file."""
    for number, _, _, line in text_lines(path):
        if not line.strip():
            continue
        try:
            entry = json.loads(line)
        except (ValueError, RecursionError):
            raise ValueError(f'{path}: line {number}: not JSON') from None
        texts = [entry.get(name) if isinstance(entry, dict) else None for name in ('prompt', 'chosen', 'rejected')]
        if not all(isinstance(text, str) for text in texts):
            raise ValueError(f'{path}: line {number}: prompt, chosen and rejected should be texts')
        if not texts[1] or not texts[2]:
            raise ValueError(f'{path}: line {number}: chosen and rejected should not be empty')
        yield tuple(texts)


def labels_of_pairs(path: str, encoding: Encoding, query_length: int, response_length: int) -> Imported:
    """Make labels of type best_of_2 from a file of pairs. The chosen response is sample 0 and sample 1 in turn.

    A prompt that is too long keeps its last `query_length` tokens, a response its first `response_length` tokens.
    Shorter texts are padded on the right.
    """
    labels, num_cut_prompts, num_cut_responses = [], 0, 0
    for i, (prompt, *responses) in enumerate(read_pairs(path)):
        query, samples = encoding.encode(prompt), [encoding.encode(text) for text in responses]
        num_cut_prompts += len(query) > query_length
        num_cut_responses += sum(len(sample) > response_length for sample in samples)
        padded = [encoding.pad(sample[:response_length], response_length) for sample in samples]
        best = i % 2
        labels.append(
            dict(
                query=encoding.pad(query[-query_length:], query_length),
                sample0=padded[best],
                sample1=padded[1 - best],
                best=best,
            )
        )
    if not labels:
        raise ValueError(f'{path}: no pairs there')
    return Imported(labels, num_cut_prompts, num_cut_responses)


def pairs_of_labels(path: str, encoding: Encoding) -> Iterator[Dict[str, str]]:
    """Yield the pairs of a label file.

    A label of type best_of_N gives the best sample against each of the others. A label of type scalar_compare gives the
    better sample against the other one, or nothing if they are equal.

    ValueError for ratings of single samples and for labels that `load_labels` refuses.
    """
    type_name, query_length, response_length = _form(path)
    label_type = get_label_type(type_name)
    labels = load_labels(path, label_schema(label_type, query_length, response_length), None, encoding)
    for i, query in enumerate(labels['query']):
        texts = [encoding.decode(labels[name][i]) for name in label_type.sample_names]
        if type_name == 'scalar_compare':
            difference = labels['difference'][i]
            if difference == 0:
                continue
            best = int(difference > 0)
        else:
            best = int(labels['best'][i])
        for rejected in texts[:best] + texts[best + 1 :]:
            yield dict(prompt=encoding.decode(query), chosen=texts[best], rejected=rejected)


def _form(path: str) -> Tuple[str, int, int]:
    """Return the type of a file's labels and the lengths of their queries and samples, by its first label."""
    try:
        first = read_json(path)[0]
        query_length = len(first['query'])
    except (LookupError, TypeError):
        raise ValueError(f'{path}: not a list of labels') from None
    samples = sum(name.startswith('sample') for name in first)
    if 'sample0' not in first:
        raise ValueError(f'{path}: ratings of single samples make no pairs')
    name = 'scalar_compare' if 'difference' in first else f'best_of_{samples}'
    return name, query_length, len(first['sample0'])
