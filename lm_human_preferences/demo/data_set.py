"""The data set `demo`: film reviews to continue, people's choices between snippets, and judges of sentiment."""

from typing import Callable, Dict, Iterator, List, Sequence

import numpy as np

from lm_human_preferences.demo.judges import independent_judges
from lm_human_preferences.demo.snippets import snippets
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.queries import tokenize_query

SNIPPETS_PER_TEXT = 4  # consecutive snippets that make one text for queries
SNIPPETS_PER_LM_TEXT = 8  # snippets that make one text for the language model


def texts(split: str) -> List[str]:
    """Return the texts for queries. Each text has a few consecutive movie snippets, one a line."""
    lines = [s.text for s in snippets(split)]
    lines += lines[: SNIPPETS_PER_TEXT - 1]
    return [_lines(lines[i : i + SNIPPETS_PER_TEXT]) for i in range(len(lines) - SNIPPETS_PER_TEXT + 1)]


def lm_texts(split: str) -> List[str]:
    """Return the texts for training a language model: the movie snippets, as `grouped` puts them together."""
    return grouped([s.text for s in snippets(split)])


def grouped(lines: Sequence[str]) -> List[str]:
    """Return texts for a language model. Each has a few of the lines, in their order."""
    return [_lines(lines[i : i + SNIPPETS_PER_LM_TEXT]) for i in range(0, len(lines), SNIPPETS_PER_LM_TEXT)]


def _lines(texts: Sequence[str]) -> str:
    return ''.join(text + '\n' for text in texts)


def judges() -> Dict[str, Callable[[List[str]], np.ndarray]]:
    """Return the judges of sentiment that take no part in training."""
    return independent_judges()


def labels(split: str, num: int, schema: Dict, encoding: Encoding, seed: int = 0) -> Dict[str, np.ndarray]:
    """Return people's choices between four snippets: labels of type best_of_4, see `best_of_4_labels`."""
    if set(schema) != {'query', 'sample0', 'sample1', 'sample2', 'sample3', 'best'}:
        raise ValueError('the labels of --labels.source=demo are of --labels.type=best_of_4')
    (query_length,), (response_length,) = schema['query'][1], schema['sample0'][1]
    return best_of_4_labels(split, num, encoding, query_length, response_length, seed)


def best_of_4_labels(
    split: str, num: int, encoding: Encoding, query_length: int, response_length: int, seed: int = 0
) -> Dict[str, np.ndarray]:
    """Return human choices: which of four snippets did people rate most positive?

    A snippet that does not fit into a response is left out, and so is a group of four whose highest rating is shared.
    Every snippet is used once before any snippet is used again.

    Returns:
      `query` int32 [num, query_length]: the snippets before the four.
      `sample0` … `sample3` int32 [num, response_length]: a snippet and its newline, then padding.
      `best` int32 [num]: the index of the sample with the highest rating.
    """
    rated = []
    for snippet in snippets(split):
        tokens = encoding.encode(snippet.text + '\n')
        if len(tokens) <= response_length:
            rated.append((snippet, encoding.pad(tokens, response_length)))
    if len(rated) < 8:
        raise ValueError(f'only {len(rated)} snippets fit into response_length {response_length}')
    queries, samples, best, num_skipped = [], [], [], 0
    for before, group in _groups(len(rated), np.random.RandomState(seed)):
        ratings = [rated[i][0].rating for i in group]
        query_text = _lines([rated[i][0].text for i in before])
        query = tokenize_query(query_text, encoding, query_length, start_text=None, end_text='\n')
        if query is not None and ratings.count(max(ratings)) == 1:
            queries.append(query)
            samples.append([rated[i][1] for i in group])
            best.append(ratings.index(max(ratings)))
            num_skipped = 0
        else:
            num_skipped += 1
        if len(best) >= num:
            break
        if num_skipped > len(rated):
            raise ValueError(f'no snippet fits into query_length {query_length}')
    labels = {f'sample{k}': np.array([sample[k] for sample in samples], np.int32) for k in range(4)}
    labels['query'] = np.array(queries, np.int32)
    labels['best'] = np.array(best, np.int32)
    return labels


def _groups(count: int, random: np.random.RandomState) -> Iterator[Sequence[np.ndarray]]:
    """Yield pairs of groups without end: four indices for the query, and the four that follow them for the samples.

    Each pass cuts a new random order of 0 … count − 1 into groups of four.
    """
    while True:
        order = random.permutation(count)
        fours = [order[i : i + 4] for i in range(0, count - 3, 4)]
        for i, four in enumerate(fours):
            yield fours[i - 1], four
