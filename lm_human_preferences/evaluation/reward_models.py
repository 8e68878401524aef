"""Compare a reward model with human labels: accuracy, loss, calibration, and agreement with people."""

import collections
import itertools
import os
import re
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.registry import Judge
from lm_human_preferences.evaluation.intervals import same_rows, share_interval
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs.run_folder import CHECKPOINTS

CALIBRATION_BINS = 10


class Checkpoint(NamedTuple):
    """A reward model after `step` steps of its training."""

    step: int
    trained: TrainedModel


def kept_checkpoints(trained: TrainedModel, limit: int) -> List[Checkpoint]:
    """Return at most `limit` of a model's saved checkpoints, spread evenly over its training, oldest first."""
    folder = os.path.join(trained.folder or '', CHECKPOINTS)
    names = os.listdir(folder) if trained.folder and os.path.isdir(folder) else []
    steps = sorted(int(m.group(1)) for m in (re.match(r'model\.ckpt-(\d+)\.index\Z', name) for name in names) if m)
    if limit < len(steps):
        steps = [steps[i] for i in np.linspace(0, len(steps) - 1, limit).round().astype(int)]
    return [Checkpoint(step, trained.at(os.path.join(folder, f'model.ckpt-{step}'))) for step in steps]


def label_rewards(
    trained: TrainedModel,
    task: Task,
    sample_names: Sequence[str],
    labels: Dict[str, np.ndarray],
    batch: int,
    ranks: Optional[Ranks] = None,
) -> np.ndarray:
    """Return the rewards [n, samples] of all samples of n labels. `ranks` share the work; None: this process alone."""
    with Scorer(trained, task, batch, ranks or Ranks(alone=True), share_rows=True) as scorer:
        columns = [scorer.scores(labels['query'], labels[name], f'rewards of {name}') for name in sample_names]
    return np.stack(columns, axis=1)


def metrics(rewards: np.ndarray, labels: Dict[str, np.ndarray]) -> Dict[str, Any]:
    """Return the metrics of rewards [n, samples] on n labels of any type: the loss, and what else the type allows."""
    units = texts_of(labels)
    if 'best' in labels:
        return choice_metrics(rewards, labels['best'], units)
    if 'difference' in labels:
        predicted, wanted = rewards[:, 1] - rewards[:, 0], labels['difference']
        differ = wanted != 0
        right = np.sign(predicted[differ]) == np.sign(wanted[differ])
        return dict(
            number_metrics(predicted, wanted),
            **(accuracy(right, [texts[differ] for texts in units]) if differ.any() else {}),
        )
    return number_metrics(rewards[:, 0], labels['score'])


def texts_of(labels: Dict[str, np.ndarray]) -> List[np.ndarray]:
    """Return which texts each of n labels shows: numbers of queries [n] and of samples [n, samples].

    Equal numbers in an array mean the same text. An array is missing where the labels lack the texts.
    """
    names = sorted(name for name in labels if name.startswith('sample'))
    found = [same_rows(labels['query'])] if 'query' in labels else []
    return found + ([same_rows(np.stack([labels[name] for name in names], axis=1))] if names else [])


def distinct_texts(labels: Dict[str, np.ndarray]) -> Dict[str, int]:
    """Return how many different texts labels show: `distinct_queries`, and `distinct_samples` of all `samples`."""
    queries, samples = texts_of(labels)
    return dict(
        distinct_queries=len(np.unique(queries)), distinct_samples=len(np.unique(samples)), samples=samples.size
    )


def judges_accuracy(judges: Dict[str, Judge], labels: Dict[str, np.ndarray], encoding: Encoding) -> Dict[str, float]:
    """Return how often each judge gives its highest score to the sample that people chose: share by name.

    `labels` are of type best_of_N.
    """
    names = [f'sample{i}' for i in range(sum(name.startswith('sample') for name in labels))]
    texts = [[encoding.decode(tokens).strip() for tokens in labels[name]] for name in names]
    picked = {name: np.argmax([judge(column) for column in texts], axis=0) for name, judge in judges.items()}
    return {name: float(np.mean(choice == labels['best'])) for name, choice in picked.items()}


def number_metrics(predicted: np.ndarray, wanted: np.ndarray) -> Dict[str, Any]:
    """Return the mean squared error (`loss`) and Pearson correlation of two arrays [n].

    The correlation is None if either array is constant.
    """
    varied = predicted.std() > 0 and wanted.std() > 0
    correlation = float(np.corrcoef(predicted, wanted)[0, 1]) if varied else None
    return dict(labels=len(wanted), loss=float(np.mean((predicted - wanted) ** 2)), correlation=correlation)


def choice_metrics(rewards: np.ndarray, best: np.ndarray, texts: Sequence[np.ndarray] = ()) -> Dict[str, Any]:
    """Return accuracy, cross entropy and calibration of choosing by rewards [n, samples]; people chose `best` [n].

    `texts` are those of each choice, as `texts_of` gives them.
    """
    logits = rewards - rewards.max(axis=1, keepdims=True)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    right = rewards.argmax(axis=1) == best
    loss = -np.mean(logits[np.arange(len(best)), best] - np.log(np.exp(logits).sum(axis=1)))
    found = dict(labels=len(best), loss=float(loss), chance=1 / rewards.shape[1], **accuracy(right, texts))
    return dict(found, calibration=calibration(probabilities.max(axis=1), right))


def accuracy(right: np.ndarray, texts: Sequence[np.ndarray]) -> Dict[str, Any]:
    """Return the share of `right` [n] with its 95 % interval, which allows for `texts` that occur several times."""
    return dict(accuracy=float(np.mean(right)), interval=share_interval(right, *texts))


def calibration(confidence: np.ndarray, right: np.ndarray) -> Dict[str, Any]:
    """Return how far the accuracy of choices is from their confidence (Guo et al. 2017).

    Args:
      confidence: [n], the probability that the model gives to its choice.
      right: [n], whether people made the same choice.

    Returns:
      `error`: the expected calibration error, which is the mean over all choices of |accuracy − confidence| of their
      bin. `bins`: mean confidence, accuracy and count of each bin that is not empty.
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
    """Return how often people agree with each other and with the reward model; None if no question was asked twice.

    A question is a query with its samples; their order does not matter. Each label on a question is one judgement. A
    label with `votes` is as many judgements as it has votes.

    Args:
      rewards: [n, samples].
      labels: of type best_of_N.
      votes: of each label, the indices of the samples that people chose, or None.

    Returns:
      `people`: over all pairs of judgements on the same question, the share that chose the same sample.
      `model`: the share of judgements that chose the same sample as the model.
      `majority`: the share of questions for which the model chooses what most people chose.
      `questions`, `judgements`: how many there are of each.
    """
    samples = np.stack([labels[f'sample{i}'] for i in range(rewards.shape[1])], axis=1)
    texts_shown = texts_of(labels)
    questions = collections.defaultdict(list)
    choices, label_of = {}, {}
    for i, (query, shown) in enumerate(zip(labels['query'], samples)):
        texts = [sample.tobytes() for sample in shown]
        question = (query.tobytes(), *sorted(texts))
        voted = votes[i] if votes is not None and votes[i] else [labels['best'][i]]
        questions[question] += [texts[int(vote)] for vote in voted]
        choices[question] = texts[int(rewards[i].argmax())]
        label_of[question] = i
    repeated = {question: answers for question, answers in questions.items() if len(answers) > 1}
    if not repeated:
        return None

    def share(same: Callable[[Sequence[bytes], bytes], List[bool]]) -> Dict[str, Any]:
        """Return the share of what `same` gives for the answers to each question and the model's choice."""
        results = [same(answers, choices[question]) for question, answers in repeated.items()]
        asked = np.repeat([label_of[question] for question in repeated], [len(found) for found in results])
        return accuracy(np.concatenate(results), [numbers[asked] for numbers in texts_shown])

    return dict(
        questions=len(repeated),
        judgements=sum(map(len, repeated.values())),
        people=share(lambda answers, _: [a == b for a, b in itertools.combinations(answers, 2)]),
        model=share(lambda answers, chosen: [answer == chosen for answer in answers]),
        majority=share(lambda answers, chosen: [chosen == collections.Counter(answers).most_common(1)[0][0]]),
    )
