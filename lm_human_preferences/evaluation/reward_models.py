"""A reward model against people's labels: accuracy, loss, calibration, and agreement beside people's own."""

import collections
import itertools
import os
import re
from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.registry import Judge
from lm_human_preferences.evaluation.intervals import wilson_interval
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import Scorer
from lm_human_preferences.method.lm_tasks import Task

CALIBRATION_BINS = 10


class Checkpoint(NamedTuple):
    """A reward model as it was after some steps of its training."""

    step: int
    trained: TrainedModel


def kept_checkpoints(trained: TrainedModel, limit: int) -> List[Checkpoint]:
    """At most `limit` of a model's checkpoints, evenly spread over its training, oldest first."""
    folder = os.path.join(trained.folder or '', 'checkpoints')
    names = os.listdir(folder) if trained.folder and os.path.isdir(folder) else []
    steps = sorted(int(m.group(1)) for m in (re.match(r'model\.ckpt-(\d+)\.index\Z', name) for name in names) if m)
    if limit < len(steps):
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, limit).round().astype(int)]
    return [Checkpoint(step, trained.at(os.path.join(folder, f'model.ckpt-{step}'))) for step in steps]


def label_rewards(
    trained: TrainedModel, task: Task, sample_names: Sequence[str], labels: Dict[str, np.ndarray], batch: int
) -> np.ndarray:
    """Rewards [n, samples] of all samples of n labels."""
    with Scorer(trained, task, batch) as scorer:
        columns = [scorer.scores(labels['query'], labels[name], f'rewards of {name}') for name in sample_names]
    return np.stack(columns, axis=1)


def figures(rewards: np.ndarray, labels: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """How rewards [n, samples] fit n labels of whichever type: the loss, and what else the type tells."""
    if 'best' in labels:
        return choice_figures(rewards, labels['best'])
    if 'difference' in labels:
        predicted, wanted = rewards[:, 1] - rewards[:, 0], labels['difference']
        told = wanted != 0
        right = np.sign(predicted[told]) == np.sign(wanted[told])
        return dict(number_figures(predicted, wanted), **(accuracy(right) if told.any() else {}))
    return number_figures(rewards[:, 0], labels['score'])


def judges_accuracy(judges: Dict[str, Judge], labels: Dict[str, np.ndarray], encoding: Encoding) -> Dict[str, float]:
    """How often each judge scores the sample highest that people chose, on labels of type best_of_N: share by name."""
    names = [f'sample{i}' for i in range(sum(name.startswith('sample') for name in labels))]
    texts = [[encoding.decode(tokens).strip() for tokens in labels[name]] for name in names]
    picked = {name: np.argmax([judge(column) for column in texts], axis=0) for name, judge in judges.items()}
    return {name: float(np.mean(choice == labels['best'])) for name, choice in picked.items()}


def number_figures(predicted: np.ndarray, wanted: np.ndarray) -> Dict[str, Any]:
    """Mean squared error and Pearson's correlation of numbers [n]; None for a correlation with a constant."""
    varied = predicted.std() > 0 and wanted.std() > 0
    correlation = float(np.corrcoef(predicted, wanted)[0, 1]) if varied else None
    return dict(labels=len(wanted), loss=float(np.mean((predicted - wanted) ** 2)), correlation=correlation)


def choice_figures(rewards: np.ndarray, best: np.ndarray) -> Dict[str, Any]:
    """Accuracy, cross entropy and calibration of choosing by rewards [n, samples] where people chose best [n]."""
    logits = rewards - rewards.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = rewards.argmax(axis=1) == best
    loss = -np.mean(logits[np.arange(len(best)), best] - np.log(np.exp(logits).sum(axis=1)))
    found = dict(labels=len(best), loss=float(loss), chance=1 / rewards.shape[1], **accuracy(right))
    return dict(found, calibration=calibration(probabilities.max(axis=1), right))


def accuracy(right: np.ndarray) -> Dict[str, Any]:
    """The share of `right` [n] with its 95 % interval."""
    return dict(accuracy=float(np.mean(right)), interval=wilson_interval(float(np.sum(right)), len(right)))


def calibration(confidence: np.ndarray, right: np.ndarray) -> Dict[str, Any]:
    """Whether a choice made with confidence p is right as often as p (Guo et al. 2017).

    Args:
      confidence: [n] the probability of the choice; right: [n] whether it was people's.

    Returns:
      `error`, the expected calibration error: the mean over choices of |accuracy − confidence| of their bin; and the
      `bins` that are not empty, with mean confidence, accuracy and count.
    """
    places = np.minimum((confidence * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [
        dict(
            confidence=float(confidence[places == place].mean()),
            accuracy=float(right[places == place].mean()),
            count=int(np.sum(places == place)),
        )
        for place in np.unique(places)
    ]
    error = sum(b['count'] * abs(b['accuracy'] - b['confidence']) for b in bins) / len(confidence)
    return dict(error=float(error), bins=bins)


def agreement(
    rewards: np.ndarray, labels: Dict[str, np.ndarray], votes: Optional[Sequence[Optional[Sequence[int]]]] = None
) -> Optional[Dict[str, Any]]:
    """How often people, and the reward model, choose as another person did; None where no question was asked twice.

    A question is a query with its samples, in whatever order these were shown. Several labels on one question are as
    many judgements, and so are the `votes` of a label (for each label: indices of samples, or None).

    Args:
      rewards: [n, samples]. labels: of type best_of_N.

    Returns:
      `people`: over all pairs of judgements on the same question, the share that chose the same sample; `model`: over
      the same judgements, the share that chose what the model does; `majority`: the share of questions whose most
      frequent answer the model gives. `questions` and `judgements` count.
    """
    samples = np.stack([labels[f'sample{i}'] for i in range(rewards.shape[1])], axis=1)
    questions = collections.defaultdict(list)
    choices = {}
    for i, (query, shown) in enumerate(zip(labels['query'], samples)):
        texts = [sample.tobytes() for sample in shown]
        question = (query.tobytes(), *sorted(texts))
        voted = votes[i] if votes is not None and votes[i] else [labels['best'][i]]
        questions[question] += [texts[int(vote)] for vote in voted]
        choices[question] = texts[int(rewards[i].argmax())]
    several = {question: answers for question, answers in questions.items() if len(answers) > 1}
    if not several:
        return None
    pairs = [a == b for answers in several.values() for a, b in itertools.combinations(answers, 2)]
    by_model = [answer == choices[question] for question, answers in several.items() for answer in answers]
    most = [choices[question] == collections.Counter(a).most_common(1)[0][0] for question, a in several.items()]
    return dict(
        questions=len(several),
        judgements=len(by_model),
        people=accuracy(np.array(pairs)),
        model=accuracy(np.array(by_model)),
        majority=accuracy(np.array(most)),
    )
