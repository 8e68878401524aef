"""Convert labels from and to pairs: JSON lines with the texts `prompt`, `chosen` and `rejected`."""

from typing import Any, Dict, Iterator, List, NamedTuple, Tuple

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.datasets.pairs import label_of, read_pairs
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.utils.json_files import read_json


class Imported(NamedTuple):
    """Labels made from pairs, and the numbers of texts that were too long."""

    labels: List[Dict[str, Any]]  # of type best_of_2
    num_cut_prompts: int
    num_cut_responses: int


def labels_of_pairs(path: str, encoding: Encoding, query_length: int, response_length: int) -> Imported:
    """Make labels of type best_of_2 from a file of pairs. The chosen response is sample 0 and sample 1 in turn.

    A prompt that is too long keeps its last `query_length` tokens, a response its first `response_length` tokens.
    Shorter texts are padded on the right.
    """
    labels, num_cut_prompts, num_cut_responses = [], 0, 0
    for number, pair in enumerate(read_pairs(path)):
        query = encoding.encode(pair.prompt)
        responses = [encoding.encode(text) for text in (pair.chosen, pair.rejected)]
        num_cut_prompts += len(query) > query_length
        num_cut_responses += sum(len(response) > response_length for response in responses)
        chosen, rejected = (encoding.pad(response[:response_length], response_length) for response in responses)
        labels.append(label_of(number, encoding.pad(query[-query_length:], query_length), chosen, rejected))
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
