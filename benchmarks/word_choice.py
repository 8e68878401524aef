"""A choice model on words, trained on the same human choices as the demo's reward model: how good are words alone?"""

from typing import Callable, Dict, List, NamedTuple, Sequence

import numpy as np

from lm_human_preferences.demo.judges import BagOfWords
from lm_human_preferences.demo.snippets import snippets
from lm_human_preferences.language.encodings import Encoding

CHOICE_PENALTIES = (3e-6, 1e-5, 3e-5, 1e-4)


def correlation(score: Callable[[str], float], split: str = 'test') -> float:
    """Return Pearson's correlation of scores with people's ratings of a split's movie snippets."""
    return judge_correlation(lambda texts: [score(text) for text in texts], split)


def judge_correlation(judge: Callable[[List[str]], Sequence[float]], split: str = 'test') -> float:
    """Return the same for a judge, which scores many texts at once."""
    rated = snippets(split)
    return float(np.corrcoef(judge([s.text for s in rated]), [s.rating for s in rated])[0, 1])


class Choices(NamedTuple):
    """Choices between texts: `texts` [num][4], `best` [num] the index of the chosen one."""

    texts: List[List[str]]
    best: np.ndarray


def choices_of(labels: Dict[str, np.ndarray], encoding: Encoding) -> Choices:
    """Return best_of_4 labels as texts."""
    samples = zip(*(labels[f'sample{k}'] for k in range(4)))
    return Choices([[encoding.decode(tokens).strip() for tokens in four] for four in samples], labels['best'])


def choice_accuracy(score: Callable[[str], float], choices: Choices) -> float:
    """Return how often the text with a judge's highest score is people's choice, from 0 to 1."""
    picked = [int(np.argmax([score(text) for text in texts])) for texts in choices.texts]
    return float(np.mean(picked == choices.best))


class WordChoiceModel:
    """Logistic choice model: the odds of a text are exp(sum of the weights of its terms)."""

    def __init__(self, choices: Choices, penalty: float, steps: int = 200):
        """Minimize mean cross entropy + penalty · |weights|² with `steps` steps of Adam on all choices."""
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
    """Return the accuracy on `test` of a `WordChoiceModel` trained on `train`. `valid` decides on its penalty."""
    models = [WordChoiceModel(train, penalty) for penalty in CHOICE_PENALTIES]
    best = max(models, key=lambda model: choice_accuracy(model.score, valid))
    return choice_accuracy(best.score, test)
