"""Policies against each other: what they respond to the same held-out queries, by the same random numbers."""

from typing import Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.registry import Judge, get_references
from lm_human_preferences.evaluation import texts as text_figures
from lm_human_preferences.evaluation.intervals import mean_interval, wilson_interval
from lm_human_preferences.language.run_models import INITIAL, NamedPolicy
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import Reference, Responder, Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import uniforms_of_samples

SCORE = 'score'  # the reward model's, among the judges
NGRAMS = (1, 2, 3)


class HeldOut(NamedTuple):
    """Queries that no policy was trained on."""

    queries: np.ndarray  # [n, query_length], padded on the right
    texts: List[str]
    references: List[Optional[str]]  # a person's response to each, where the data set has one


class Answers(NamedTuple):
    """One policy's responses to the held-out queries."""

    texts: List[str]  # truncated as they are scored
    responses: np.ndarray  # tokens [n, response_length], as the policy gave them
    truncated: np.ndarray  # the same, with padding after the end
    valid: np.ndarray  # [n] bool, whether the response passes the truncation filter
    logprobs: np.ndarray  # [n, response_length] under the policy
    ref_logprobs: np.ndarray  # [n, response_length] under the initial policy
    scores: Dict[str, np.ndarray]  # [n] of each judge, `score` the reward model's


def held_out_queries(task: Task, split: str, count: int, seed: int) -> HeldOut:
    """Return `count` queries from a split of the task's data set, with references if the data set has them."""
    stream = task.query_stream(split, seed, Ranks())
    drawn = [stream.next_query() for _ in range(count)]
    known = get_references(task.hparams.query_dataset, split)
    references = [known[index] if known is not None else None for index, _ in drawn]
    queries = np.array([tokens for _, tokens in drawn], np.int32)
    return HeldOut(queries, [task.encoding.decode(tokens) for tokens in queries], references)


def answers_of(
    policies: Sequence[NamedPolicy],
    reference: TrainedModel,
    reward_model: TrainedModel,
    task: Task,
    held_out: HeldOut,
    batch: int,
    seed: int,
    judges: Dict[str, Judge],
) -> Dict[str, Answers]:
    """Each policy's answers, by name.

    Args:
      reference: the policy from which the KL is measured.
      judges: by name, who else scores the texts beside the reward model.
    """
    queries = held_out.queries
    uniforms = uniforms_of_samples(seed, range(len(queries)), task.hparams.response_length)
    sampled = {}
    for policy in policies:
        with Responder(policy.trained, task, batch) as responder:
            sampled[policy.name] = responder.respond(queries, uniforms, f'{policy.name} responds')
    with Reference(reference, task, batch) as model:
        ref_logprobs = {name: model.logprobs(queries, s['responses'], f'KL of {name}') for name, s in sampled.items()}
    with Scorer(reward_model, task, batch) as scorer:
        scores = {name: scorer.scores(queries, s['truncated'], f'scores of {name}') for name, s in sampled.items()}
    answers = {}
    for name, sample in sampled.items():
        texts = [task.encoding.decode(tokens).strip() for tokens in sample['truncated']]
        judged = {judge: np.asarray(score(texts)) for judge, score in judges.items()}
        judged[SCORE] = scores[name]
        answers[name] = Answers(texts=texts, ref_logprobs=ref_logprobs[name], scores=judged, **sample)
    return answers


def figures(answers: Dict[str, Answers], held_out: HeldOut, padding_token: int) -> Dict[str, Dict]:
    """The figures of each policy, and of all but the baseline how often they score higher than it.

    The baseline is `initial`, or else the last policy.
    """
    baseline = INITIAL if INITIAL in answers else list(answers)[-1]
    found = {}
    for name, answer in answers.items():
        found[name] = dict(
            judges={
                judge: dict(mean=float(scores.mean()), interval=mean_interval(scores))
                for judge, scores in answer.scores.items()
            },
            kl=float((answer.logprobs - answer.ref_logprobs).sum(axis=1).mean()),
            entropy=float(-answer.logprobs.sum(axis=1).mean()),
            length=float((answer.truncated != padding_token).sum(axis=1).mean()),
            valid=float(answer.valid.mean()),
            distinct={str(n): text_figures.distinct_ngrams(answer.texts, n) for n in NGRAMS},
            copied=dict(
                {str(n): text_figures.copied_ngrams(answer.texts, held_out.texts, n) for n in NGRAMS},
                sentences=text_figures.copied_sentences(answer.texts, held_out.texts),
            ),
        )
        pairs = [(text, ref) for text, ref in zip(answer.texts, held_out.references) if ref is not None]
        if pairs:
            found[name]['rouge'] = text_figures.rouge(*zip(*pairs))
        if name != baseline:
            found[name]['wins'] = {
                judge: win_rate(scores, answers[baseline].scores[judge]) for judge, scores in answer.scores.items()
            }
    return dict(baseline=baseline, queries=len(held_out.queries), policies=found)


def win_rate(scores: np.ndarray, others: np.ndarray) -> Dict:
    """How often `scores` [n] are above `others` [n], a tie counting half: share, 95 % interval, and share of ties."""
    ties = float(np.mean(scores == others))
    share = float(np.mean(scores > others)) + ties / 2
    return dict(share=share, interval=wilson_interval(share * len(scores), len(scores)), ties=ties)
