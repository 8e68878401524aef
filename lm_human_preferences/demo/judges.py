"""Judges of sentiment for the demo: VADER's lexicon and a ridge regression.

They are no language models and take no part in training. So they can show whether the fine-tuned policy is more
positive not only by the measure of its own reward model.
"""

import collections
import functools
import re
from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np
from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

from lm_human_preferences.demo.snippets import snippets

RIDGE_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)


def vader_score(text: str) -> float:
    """Return VADER's sentiment of a text, from -1 to 1."""
    return _vader().polarity_scores(text)['compound']


@functools.lru_cache(maxsize=1)
def _vader():
    return SentimentIntensityAnalyzer()


def ridge_choice(query: str, samples: Sequence[str]) -> int:
    """Choose the sample that the ridge regression rates most positive. Online collection uses this as a labeler."""
    return int(np.argmax(_ridge().scores([sample.strip() for sample in samples])))


@functools.lru_cache(maxsize=1)
def _ridge() -> 'RidgeJudge':
    return RidgeJudge.of_people()


def independent_judges() -> Dict[str, Callable[[Sequence[str]], np.ndarray]]:
    """Return the judges by name. Each turns texts into scores."""
    return {
        'VADER': lambda texts: np.array([vader_score(text) for text in texts]),
        'ridge regression': lambda texts: _ridge().scores(texts),
    }


class BagOfWords:
    """Turns texts into vectors of their terms: words, and pairs of neighbouring words.

    The vectors have length 1. A term has the more weight, the fewer of the first texts contain it.
    """

    def __init__(self, texts: Sequence[str]):
        """`texts` are the first texts, whose terms are known and weighted."""
        counts = collections.Counter(term for text in texts for term in set(terms(text)))
        self._columns = {term: i for i, term in enumerate(sorted(counts))}
        self._weights = np.array([np.log(len(texts) / counts[term]) + 1e-3 for term in sorted(counts)])

    def __len__(self) -> int:
        return len(self._columns)

    def vectors(self, texts: Sequence[str]) -> 'SparseMatrix':
        """Return a matrix with one row for each text. Terms that are in none of the first texts are left out."""
        rows, columns, values = [], [], []
        for row, text in enumerate(texts):
            found = sorted({self._columns[term] for term in terms(text) if term in self._columns})
            weights = self._weights[found]
            rows.extend([row] * len(found))
            columns.extend(found)
            values.extend(weights / max(np.sqrt(np.sum(weights**2)), 1e-6))
        return SparseMatrix(
            (len(texts), len(self)),
            np.array(rows, np.int64),
            np.array(columns, np.int64),
            np.array(values, float),
        )


def terms(text: str) -> List[str]:
    """Return the words of a text and its pairs of neighbouring words. Both ends of the text count as words in pairs."""
    words = re.findall(r"[^\W_]+(?:'[^\W_]+)*|[!?]", text.lower())
    return words + [f'{first} {second}' for first, second in zip(['<'] + words, words + ['>'])]


class SparseMatrix(NamedTuple):
    """A matrix of mostly zeros: `values` at (`rows`, `columns`)."""

    shape: Sequence[int]
    rows: np.ndarray
    columns: np.ndarray
    values: np.ndarray

    def times(self, vector: np.ndarray) -> np.ndarray:
        """Return matrix · vector."""
        return np.bincount(self.rows, self.values * vector[self.columns], self.shape[0])

    def transposed_times(self, vector: np.ndarray) -> np.ndarray:
        """Return matrixᵀ · vector."""
        return np.bincount(self.columns, self.values * vector[self.rows], self.shape[1])

    def gram(self) -> np.ndarray:
        """Return matrix · matrixᵀ, dense."""
        products = np.zeros((self.shape[0], self.shape[0]))
        order = np.argsort(self.columns, kind='mergesort')
        starts = np.flatnonzero(np.diff(self.columns[order])) + 1
        for same_column in np.split(order, starts):
            rows, values = self.rows[same_column], self.values[same_column]
            products[rows[:, np.newaxis], rows] += np.outer(values, values)
        return products


class RidgeJudge:
    """Ridge regression of people's ratings on the terms of texts."""

    def __init__(self, texts: Sequence[str], ratings: Sequence[float]):
        """Fit the regression with the penalty that has the smallest leave-one-out error."""
        self._bag = BagOfWords(texts)
        vectors = self._bag.vectors(texts)
        self._mean = float(np.mean(ratings))
        targets = np.array(ratings) - self._mean
        # The dual problem has one unknown for each text, not for each term. Its inverse gives the leave-one-out errors.
        eigenvalues, eigenvectors = np.linalg.eigh(vectors.gram())
        least = np.inf
        for penalty in RIDGE_PENALTIES:
            inverse = (eigenvectors / (eigenvalues + penalty)).dot(eigenvectors.T)
            dual = inverse.dot(targets)
            error = np.mean((dual / np.diag(inverse)) ** 2)
            if error < least:
                least, self.penalty = error, penalty
                self._word_scores = vectors.transposed_times(dual)

    @classmethod
    def of_people(cls) -> 'RidgeJudge':
        """Return the judge that is fitted on the movie snippets of the split `judge`, which nothing else uses."""
        rated = snippets('judge')
        return cls([s.text for s in rated], [s.rating for s in rated])

    def score(self, text: str) -> float:
        """Return the predicted mean rating of a text, on the scale from -4 to 4."""
        return float(self.scores([text])[0])

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the predicted mean ratings of texts, [len(texts)]."""
        return self._mean + self._bag.vectors(texts).times(self._word_scores)
