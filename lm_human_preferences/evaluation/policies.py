"""Compare policies: all respond to the same held-out queries with the same random numbers."""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence

import numpy as np

from lm_human_preferences.datasets.registry import Judge, get_references
from lm_human_preferences.evaluation import texts as text_metrics
from lm_human_preferences.evaluation.intervals import mean_interval, same_rows, share_interval
from lm_human_preferences.language.run_models import INITIAL, NamedPolicy
from lm_human_preferences.language.trained_models import TrainedModel
from lm_human_preferences.method.inference import Responder, Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import uniforms_of_samples

SCORE = 'score'  # the reward model's name among the judges
NGRAMS = (1, 2, 3)


class HeldOut(NamedTuple):
    """Queries that no policy was trained on."""

    queries: np.ndarray  # [n, query_length], padded on the right
    texts: List[str]
    references: List[Optional[str]]  # a person's response to each query; None where the data set has none


class PolicyResponses(NamedTuple):
    """One policy's responses to the held-out queries."""

    texts: List[str]  # of the truncated responses
    responses: np.ndarray  # tokens [n, response_length], as sampled
    truncated: np.ndarray  # [n, response_length], with padding after the end: what is scored
    valid: np.ndarray  # [n] bool, whether the response passes the truncation filter
    logprobs: np.ndarray  # [n, response_length] under the policy
    ref_logprobs: np.ndarray  # [n, response_length] under the initial policy
    scores: Dict[str, np.ndarray]  # by judge: [n]; `score` is the reward model


def held_out_queries(task: Task, split: str, num_queries: int, seed: int) -> HeldOut:
    """Draw queries from a split of the task's data set, with references where the data set has them."""
    stream = task.query_stream(split, seed, Ranks(alone=True))
    drawn = [stream.next_query() for _ in range(num_queries)]
    known = get_references(task.hparams.query_dataset, split)
    references = [known[index] if known is not None else None for index, _ in drawn]
    queries = np.array([tokens for _, tokens in drawn], np.int32)
    return HeldOut(queries, [task.encoding.decode(tokens) for tokens in queries], references)


def respond_and_score(
    policies: Sequence[NamedPolicy],
    reference: TrainedModel,
    reward_model: TrainedModel,
    task: Task,
    held_out: HeldOut,
    batch: int,
    seed: int,
    judges: Dict[str, Judge],
    ranks: Optional[Ranks] = None,
) -> Dict[str, PolicyResponses]:
    """Sample each policy's responses to the held-out queries and score them; return them by the policy's name.

    Args:
      reference: the initial policy, from which the KL is measured.
      batch: queries per session call.
      judges: additional judges of the responses, by name.
      ranks: share the work. All ranks call this, and get the same. None: this process alone.
    """
    shared = dict(ranks=ranks or Ranks(alone=True), share_rows=True)
    queries = held_out.queries
    uniforms = uniforms_of_samples(seed, range(len(queries)), task.hparams.response_length)
    sampled = {}
    for policy in policies:
        with Responder(policy.trained, task, batch, **shared) as responder:
            sampled[policy.name] = responder.respond(queries, uniforms, f'{policy.name} responds')
    # The initial policy gave its log-probabilities as it responded.
    ref_logprobs = {policy.name: sampled[policy.name]['logprobs'] for policy in policies if policy.trained is reference}
    others = [name for name in sampled if name not in ref_logprobs]
    if others:
        with Responder(reference, task, batch, **shared) as model:
            for name in others:
                ref_logprobs[name] = model.logprobs(queries, sampled[name]['responses'], f'KL of {name}')
    with Scorer(reward_model, task, batch, **shared) as scorer:
        scores = {name: scorer.scores(queries, s['truncated'], f'scores of {name}') for name, s in sampled.items()}
    found = {}
    for name, sample in sampled.items():
        texts = [task.encoding.decode(tokens).strip() for tokens in sample['truncated']]
        judged = {judge: np.asarray(score(texts)) for judge, score in judges.items()}
        judged[SCORE] = scores[name]
        found[name] = PolicyResponses(texts=texts, ref_logprobs=ref_logprobs[name], scores=judged, **sample)
    return found


def metrics(responses: Dict[str, PolicyResponses], held_out: HeldOut, padding_token: int) -> Dict[str, Any]:
    """Return the metrics of each policy, with how often it scores higher than the baseline.

    The baseline is the policy `initial`; without one, the last policy.

    Returns:
      `baseline`: its name. `queries`: their number. `distinct_queries`: how many of them differ; intervals allow for
      queries that occur several times. `policies`: by name, the mean of each of the `judges` with its 95 % interval,
      `kl` and `entropy` (nats per response), `length` (tokens), `valid` (the share that passes the truncation filter),
      `distinct` and `copied` (shares of n-grams), `rouge` if there are references, and `wins` over the baseline.
    """
    asked = same_rows(held_out.queries)
    baseline = INITIAL if INITIAL in responses else list(responses)[-1]
    found = {}
    for name, policy in responses.items():
        found[name] = dict(
            judges={
                judge: dict(mean=float(scores.mean()), interval=mean_interval(scores, asked))
                for judge, scores in policy.scores.items()
            },
            kl=float((policy.logprobs - policy.ref_logprobs).sum(axis=1).mean()),
            entropy=float(-policy.logprobs.sum(axis=1).mean()),
            length=float((policy.truncated != padding_token).sum(axis=1).mean()),
            valid=float(policy.valid.mean()),
            distinct={str(n): text_metrics.distinct_ngrams(policy.texts, n) for n in NGRAMS},
            copied=dict(
                {str(n): text_metrics.copied_ngrams(policy.texts, held_out.texts, n) for n in NGRAMS},
                sentences=text_metrics.copied_sentences(policy.texts, held_out.texts),
            ),
        )
        pairs = [(text, ref) for text, ref in zip(policy.texts, held_out.references) if ref is not None]
        if pairs:
            found[name]['rouge'] = text_metrics.rouge(*zip(*pairs))
        if name != baseline:
            found[name]['wins'] = {
                judge: win_rate(scores, responses[baseline].scores[judge], asked)
                for judge, scores in policy.scores.items()
            }
    counts = dict(queries=len(asked), distinct_queries=len(np.unique(asked)))
    return dict(baseline=baseline, policies=found, **counts)


def win_rate(scores: np.ndarray, others: np.ndarray, queries: np.ndarray) -> Dict:
    """Return how often `scores` [n] are above `others` [n]: `share` with its 95 % `interval`, and the share of `ties`.

    A tie counts as half a win. Equal numbers in `queries` [n] mean the same query.
    """
    wins = (scores > others) + (scores == others) / 2
    ties = float(np.mean(scores == others))
    return dict(share=float(np.mean(wins)), interval=share_interval(wins, queries), ties=ties)
