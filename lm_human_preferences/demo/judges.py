"""Judges of sentiment for the demo that are no language models.

VADER's lexicon and a ridge regression take no part in training: they say whether the fine-tuned policy is
more positive in other eyes than its own reward model's. A choice model on words, trained on the same human
choices as the reward model, says how far words alone get.
"""

import collections
import functools
import re
from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np

from lm_human_preferences.demo import data
from lm_human_preferences.language.encodings import Encoding

RIDGE_PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
CHOICE_PENALTIES = (3e-6, 1e-5, 3e-5, 1e-4)


def vader_score(text: str) -> float:
    """Return VADER's sentiment of a text, from -1 to 1."""
    return _vader().polarity_scores(text)['compound']


@functools.lru_cache(maxsize=1)
def _vader():
    from vaderSentiment.vaderSentiment import SentimentIntensityAnalyzer

    return SentimentIntensityAnalyzer()


def vader_choice(query: str, samples: Sequence[str]) -> int:
    """The most positive of the samples by VADER: a labeler for online data collection."""
    return int(np.argmax([vader_score(sample.strip()) for sample in samples]))


def ridge_choice(query: str, samples: Sequence[str]) -> int:
    """The sample that people would rate most positive, by a ridge regression of their held-back ratings: a labeler."""
    return int(np.argmax(_ridge().scores([sample.strip() for sample in samples])))


@functools.lru_cache(maxsize=1)
def _ridge() -> 'RidgeJudge':
    return RidgeJudge.of_people()


def independent_judges() -> Dict[str, Callable[[Sequence[str]], np.ndarray]]:
    """The judges that took no part in training, by name: each turns texts into scores."""
    return {
        'VADER': lambda texts: np.array([vader_score(text) for text in texts]),
        'ridge regression': lambda texts: _ridge().scores(texts),
    }


class BagOfWords:
    """Texts as the words and pairs of neighbouring words that they hold.

    A text's vector has length 1; a word weighs the more the fewer of the texts given at first hold it.
    """

    def __init__(self, texts: Sequence[str]):
        counts = collections.Counter(term for text in texts for term in set(terms(text)))
        self._columns = {term: i for i, term in enumerate(sorted(counts))}
        self._weights = np.array([np.log(len(texts) / counts[term]) + 1e-3 for term in sorted(counts)])

    def __len__(self) -> int:
        return len(self._columns)

    def vectors(self, texts: Sequence[str]) -> 'SparseMatrix':
        """Return one row for each text; words that no text had at first are left out."""
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
    """Return the words of a text and its pairs of neighbouring words, the text's ends counted as words."""
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
    """Ridge regression of people's ratings on words, fitted on snippets that nothing else uses."""

    def __init__(self, texts: Sequence[str], ratings: Sequence[float]):
        """Fit; the penalty is the one with the least leave-one-out error."""
        self._bag = BagOfWords(texts)
        vectors = self._bag.vectors(texts)
        self._mean = float(np.mean(ratings))
        targets = np.array(ratings) - self._mean
        # In the dual there is one unknown a text, not one a word; its inverse gives the leave-one-out errors.
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
        """Return the judge fitted on people's ratings of the movie snippets set apart for it."""
        rated = data.snippets('judge')
        return cls([s.text for s in rated], [s.rating for s in rated])

    def score(self, text: str) -> float:
        """Return the predicted mean rating of a text, on people's scale from -4 to 4."""
        return float(self.scores([text])[0])

    def scores(self, texts: Sequence[str]) -> np.ndarray:
        """Return the predicted mean ratings of texts, [len(texts)]."""
        return self._mean + self._bag.vectors(texts).times(self._word_scores)


def correlation(score: Callable[[str], float], split: str = 'test') -> float:
    """Return Pearson's correlation of a judge's scores with people's ratings of a split's movie snippets."""
    rated = data.snippets(split)
    return float(np.corrcoef([score(s.text) for s in rated], [s.rating for s in rated])[0, 1])


class Choices(NamedTuple):
    """Choices between texts: `texts` [num][4], `best` [num] the index of the chosen one."""

    texts: List[List[str]]
    best: np.ndarray


def choices_of(labels: Dict[str, np.ndarray], encoding: Encoding) -> Choices:
    """Return best_of_4 labels as texts."""
    samples = zip(*(labels[f'sample{k}'] for k in range(4)))
    return Choices([[encoding.decode(tokens).strip() for tokens in four] for four in samples], labels['best'])


def choice_accuracy(score: Callable[[str], float], choices: Choices) -> float:
    """Return how often the text with a judge's highest score is the one that people chose."""
    picked = [int(np.argmax([score(text) for text in texts])) for texts in choices.texts]
    return float(np.mean(picked == choices.best))


class WordChoiceModel:
    """Logistic choice model: a text's odds are the exponential of its words' summed weights."""

    def __init__(self, choices: Choices, penalty: float, steps: int = 200):
        """Minimise mean cross entropy + penalty · |weights|² by Adam, `steps` times on all choices."""
        texts = sorted({text for four in choices.texts for text in four})
        rows = {text: row for row, text in enumerate(texts)}
        asked = np.array([[rows[text] for text in four] for four in choices.texts])
        chosen = np.eye(asked.shape[1])[choices.best]
        self._bag = BagOfWords(texts)
        vectors = self._bag.vectors(texts)
        self._weights = np.zeros(len(self._bag))
        mean, square = np.zeros_like(self._weights), np.zeros_like(self._weights)
        for step in range(1, steps + 1):
            scores = vectors.times(self._weights)[asked]
            odds = np.exp(scores - scores.max(axis=1, keepdims=True))
            error = (odds / odds.sum(axis=1, keepdims=True) - chosen) / len(asked)
            text_error = np.bincount(asked.ravel(), error.ravel(), len(texts))
            gradient = vectors.transposed_times(text_error) + 2 * penalty * self._weights
            mean += 0.1 * (gradient - mean)
            square += 0.01 * (gradient**2 - square)
            correction = np.sqrt(1 - 0.99**step) / (1 - 0.9**step)
            rate = 0.1 * (1 - step / (steps + 1)) * correction
            self._weights -= rate * mean / (np.sqrt(square) + 1e-8)

    def score(self, text: str) -> float:
        """Return the log odds of a text, up to a constant."""
        return float(self._bag.vectors([text]).times(self._weights)[0])


def bag_of_words_choice_accuracy(train: Choices, valid: Choices, test: Choices) -> float:
    """Return the accuracy on `test` of a `WordChoiceModel` of `train`; `valid` decides on its penalty."""
    models = [WordChoiceModel(train, penalty) for penalty in CHOICE_PENALTIES]
    best = max(models, key=lambda model: choice_accuracy(model.score, valid))
    return choice_accuracy(best.score, test)
