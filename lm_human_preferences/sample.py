"""Print samples of trained policies: their responses to the queries of a data set or to given prompts."""

import contextlib
import itertools
import json
import os
import sys
from typing import Any, Dict, Iterator, List, Optional, Sequence, Tuple

import numpy as np

from lm_human_preferences.datasets.text_files import json_lines
from lm_human_preferences.hyperparameters import SampleHParams
from lm_human_preferences.language.run_models import (
    check_run_vocabulary,
    find_policies,
    run_reward_model,
    run_with_task,
)
from lm_human_preferences.language.trained_models import check_vocabulary
from lm_human_preferences.method.inference import Responder, Scorer
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.mpi.seeds import shared_seed, uniforms_of_samples
from lm_human_preferences.utils.files import read_text, text_lines
from lm_human_preferences.utils.text import one_line


def sample(hparams: SampleHParams) -> None:
    """Print `nsamples` samples of each policy. With 0, print one for each prompt, or never stop if there is no prompt.

    The query and the random numbers of sample i depend only on the seed and i, not on the batch size. (If a data set
    has texts without a query, each rank skips those in its own share. The queries then depend on the number of ranks.)
    """
    ranks = Ranks()
    seed = shared_seed(hparams.seed, ranks)
    names = hparams.policies or [hparams.save_dir]
    run = run_with_task([hparams.save_dir] if hparams.save_dir else names, '--save_dir=RUN')
    run.task.policy.temperature = hparams.temperature
    policies = find_policies(names, run, hparams.savescope)
    check_run_vocabulary(run, policies)
    task = Task(run.task, policies[0].trained.encoding())
    reward_model = run_reward_model(run) if hparams.scores else None
    if reward_model:
        check_vocabulary(
            task.encoding, f'the policy {policies[0].name}', {f'the reward model of {run.path}': reward_model}
        )
    batch = -(-hparams.batch_size // ranks.size)
    with contextlib.ExitStack() as models:
        limits = dict(top_k=hparams.top_k, top_p=hparams.top_p)
        responders = [
            models.enter_context(Responder(policy.trained, task, batch, ranks, **limits)) for policy in policies
        ]
        scorer = models.enter_context(Scorer(reward_model, task, batch, ranks)) if reward_model else None
        for rows in _batches(_queries(hparams, task, seed, ranks), batch):
            indices, queries = zip(*rows)
            queries = np.array(queries, np.int32)
            uniforms = uniforms_of_samples(seed, indices, task.hparams.response_length)
            answers = [
                _answers(policy.name, responder, scorer, queries, uniforms)
                for policy, responder in zip(policies, responders)
            ]
            for index, query, answers_to_query in zip(indices, queries, zip(*answers)):
                _show(hparams, index, task.encoding.decode(query), answers_to_query)


def _answers(
    name: str, responder: Responder, scorer: Optional[Scorer], queries: np.ndarray, uniforms: np.ndarray
) -> List[Dict[str, Any]]:
    """Return one policy's answer to each query: its response as text and, if there is a scorer, its score."""
    responses = responder.truncated(queries, uniforms)
    answers = [dict(policy=name, response=responder.task.encoding.decode(response)) for response in responses]
    if scorer:
        for answer, score in zip(answers, scorer.scores(queries, responses)):
            answer['score'] = round(float(score), 4)
    return answers


def _show(hparams: SampleHParams, index: int, query: str, answers: Sequence[Dict[str, Any]]) -> None:
    """Print one query with each policy's answer: lines for people, or with `jsonl` one line of JSON for each answer."""
    if hparams.jsonl:
        for answer in answers:
            print(json.dumps(dict(answer, index=index, query=query), sort_keys=True), flush=True)
        return
    width = max(len(answer['policy']) for answer in answers)
    lines = [one_line(query)]
    for answer in answers:
        name = f'{answer["policy"]:{width}} ' if len(answers) > 1 else ''
        score = f'   [score {answer["score"]:.2f}]' if 'score' in answer else ''
        lines.append(f'  {name}▸ {one_line(answer["response"])}{score}')
    print('\n'.join(lines), flush=True)


def _queries(hparams: SampleHParams, task: Task, seed: int, ranks: Ranks) -> Iterator[Tuple[int, List[int]]]:
    """Give this rank's samples: the index of each among the samples of all ranks, and the tokens of its query."""
    prompts = [prompt_tokens(prompt, task, warn=ranks.is_first) for prompt in _prompts(hparams)]
    total = hparams.nsamples or len(prompts)
    mine = itertools.count(ranks.rank, ranks.size)
    if total:
        mine = itertools.takewhile(lambda index: index < total, mine)
    if prompts:
        return ((index, prompts[index % len(prompts)]) for index in mine)
    stream = task.query_stream('test', seed, ranks)
    return ((index, stream.next_batch(1)[0]) for index in mine)


def _prompts(hparams: SampleHParams) -> List[str]:
    """Return the given prompts. If there are none, the queries come from the data set."""
    if hparams.prompt is not None:
        return [hparams.prompt]
    if hparams.prompt_file is None:
        return []
    path = os.path.expanduser(hparams.prompt_file)
    if not path.endswith('.jsonl'):
        return [read_text(path).rstrip('\n')]
    prompts = []
    for line in text_lines(path):
        try:
            prompts += [json_lines().text(line.text)] if line.text.strip() else []
        except ValueError as error:
            raise ValueError(f'{path}: line {line.number}: {error}') from None
    if not prompts:
        raise ValueError(f'{path}: the file has no prompts')
    return prompts


def prompt_tokens(prompt: str, task: Task, warn: bool = True) -> List[int]:
    """Turn a prompt into a query of the task: its last `query_length` tokens, padded on the right.

    With `warn`, a note on standard error says if the prompt was too long. ValueError for an empty prompt.
    """
    if not prompt:
        raise ValueError('the prompt is empty: give --prompt a text')
    tokens, length = query_tokens(prompt, task), task.hparams.query_length
    if len(tokens) > length and warn:
        note = f'note: a prompt of {len(tokens)} tokens is cut to its last {length}, the query_length of the task'
        print(note, file=sys.stderr)
    return task.encoding.pad(tokens[-length:], length)


def query_tokens(text: str, task: Task) -> List[int]:
    """Return the tokens of a text as a query of the task, of any length. Like all queries, it ends with `end_text`."""
    end = task.hparams.end_text or ''
    return task.encoding.encode(text if text.endswith(end) else text + end)


def _batches(items: Iterator, size: int) -> Iterator[List]:
    """Give the items in lists of `size`; the last list may be shorter."""
    return iter(lambda: list(itertools.islice(items, size)), [])
