"""The data set `demo`: film reviews to continue, people's choices between snippets, and judges of sentiment."""

from typing import Callable, Dict, Iterator, List, Sequence

import numpy as np

from lm_human_preferences.demo.judges import independent_judges
from lm_human_preferences.demo.snippets import SOURCES, snippets
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.queries import tokenize_query

# How many snippets in a row make one text of the query stream.
SNIPPETS_PER_TEXT = 4
# How many of one file make one text for the language model.
SNIPPETS_PER_LM_TEXT = 8


def texts(mode: str) -> List[str]:
    """Return the text stream for queries: each text is a few movie snippets in a row, one a line."""
    lines = [s.text for s in snippets(mode)]
    lines += lines[: SNIPPETS_PER_TEXT - 1]
    return [_lines(lines[i : i + SNIPPETS_PER_TEXT]) for i in range(len(lines) - SNIPPETS_PER_TEXT + 1)]


def lm_texts(mode: str) -> List[str]:
    """Return the snippets of all four files for training a language model, a few of one file together, one a line.

    Together, so that the model learns to go on in the same vein: a review is followed by a review.
    """
    texts = []
    for source in SOURCES:
        lines = [s.text for s in snippets(mode, [source])]
        texts += [_lines(lines[i : i + SNIPPETS_PER_LM_TEXT]) for i in range(0, len(lines), SNIPPETS_PER_LM_TEXT)]
    return texts


def labels(mode: str, num: int, schema: Dict, encoding: Encoding, seed: int = 0) -> Dict[str, np.ndarray]:
    """People's choices between four snippets: labels of type best_of_4, see `best_of_4_labels`."""
    if set(schema) != {'query', 'sample0', 'sample1', 'sample2', 'sample3', 'best'}:
        raise ValueError('the labels of --labels.source=demo are of --labels.type=best_of_4')
    (query_length,), (response_length,) = schema['query'][1], schema['sample0'][1]
    return best_of_4_labels(mode, num, encoding, query_length, response_length, seed)


def judges() -> Dict[str, Callable[[List[str]], np.ndarray]]:
    """The judges of sentiment that took no part in training."""
    return independent_judges()


def best_of_4_labels(
    mode: str, num: int, encoding: Encoding, query_length: int, response_length: int, seed: int = 0
) -> Dict[str, np.ndarray]:
    """Return human choices: which of four snippets people rated most positive.

    `query` int32 [num, query_length]: the snippets before; `sample0` … `sample3` int32
    [num, response_length]: a snippet and its newline, then padding; `best` int32 [num]. Snippets longer
    than a response are left out, and choices whose highest rating is shared. Every snippet is used once
    before any is used again.
    """
    rated = []
    for snippet in snippets(mode):
        tokens = encoding.encode(snippet.text + '\n')
        if len(tokens) <= response_length:
            padding = [encoding.padding_token] * (response_length - len(tokens))
            rated.append((snippet, tokens + padding))
    if len(rated) < 8:
        raise ValueError(f'only {len(rated)} snippets fit into response_length {response_length}')
    queries, samples, best, passed_over = [], [], [], 0
    for before, group in _groups(len(rated), np.random.RandomState(seed)):
        ratings = [rated[i][0].rating for i in group]
        query_text = _lines([rated[i][0].text for i in before])
        query = tokenize_query(query_text, encoding, query_length, start_text=None, end_text='\n')
        if query is not None and ratings.count(max(ratings)) == 1:
            queries.append(query)
            samples.append([rated[i][1] for i in group])
            best.append(ratings.index(max(ratings)))
            passed_over = 0
        else:
            passed_over += 1
        if len(best) >= num:
            break
        if passed_over > len(rated):
            raise ValueError(f'no snippet fits into query_length {query_length}')
    labels = {f'sample{k}': np.array([sample[k] for sample in samples], np.int32) for k in range(4)}
    labels['query'] = np.array(queries, np.int32)
    labels['best'] = np.array(best, np.int32)
    return labels


def _groups(count: int, random: np.random.RandomState) -> Iterator[Sequence[np.ndarray]]:
    """Yield (the four before, four) of 0 … count-1 without end: random orders cut into fours."""
    while True:
        order = random.permutation(count)
        fours = [order[i : i + 4] for i in range(0, count - 3, 4)]
        for i, four in enumerate(fours):
            yield fours[i - 1], four


def _lines(texts: Sequence[str]) -> str:
    return ''.join(text + '\n' for text in texts)
