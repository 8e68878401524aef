"""The command `evaluate`: measure policies on held-out queries, and a reward model on human labels.

The results go to the terminal as tables and to `evaluation.json` in the run's folder, where the report finds them.
A remote run is only read: its results are saved only if `out` names a folder for them.
"""

import copy
import os
from typing import Any, Dict, List, NamedTuple, Optional

import numpy as np

from lm_human_preferences.datasets.labels import find_label_file, load_labels, read_entries
from lm_human_preferences.datasets.registry import Judge, find_label_function, get_judges
from lm_human_preferences.evaluation import policies as policy_evaluation
from lm_human_preferences.evaluation import reward_models, tables
from lm_human_preferences.hyperparameters import EvaluateHParams, TaskHParams
from lm_human_preferences.language.run_models import (
    INITIAL,
    check_labels_vocabulary,
    check_run_vocabulary,
    find_policies,
    run_policy,
    run_reward_model,
    run_with_task,
)
from lm_human_preferences.language.trained_models import TrainedModel, check_vocabulary, find_reward_model
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.sample_rows import sample_rows
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.remote import storage
from lm_human_preferences.remote.cache import expanded_home
from lm_human_preferences.runs.results import save_results
from lm_human_preferences.runs.run_folder import HELD_OUT_SAMPLES_FILE, RunFolder
from lm_human_preferences.runs.samples import write_samples
from lm_human_preferences.utils.progress import part_of_run, say
from lm_human_preferences.utils.text import shared

LOOPS_OF_A_POLICY = 3  # it responds, its KL is measured (not that of the initial policy), its responses are scored


def evaluate(hparams: EvaluateHParams, ranks: Optional[Ranks] = None) -> None:
    """Measure what `hparams` ask for, print the tables, and save the results.

    The reward model is measured if there are labels. The policies are measured if they are named, or if there are no
    labels. The ranks share the work, and the first one prints and saves. With `Ranks(alone=True)`, it works alone.
    """
    ranks = ranks or Ranks()
    given = [hparams.run] if hparams.run else [*hparams.policies, hparams.reward_model]
    run = run_with_task([name for name in given if name], 'RUN')
    out = _output_folder(run, hparams) if ranks.is_first else None
    reward_model = find_reward_model(hparams.reward_model) if hparams.reward_model else run_reward_model(run)
    if hparams.labels is None and not run.has_policy:
        raise ValueError(f'{run.path} has a reward model but no policy: give the --labels to measure it on')
    with part_of_run('evaluation', _num_loops(run, reward_model, hparams)):
        _measure(run, reward_model, hparams, out, ranks)


def _measure(
    run: RunFolder, reward_model: TrainedModel, hparams: EvaluateHParams, out: Optional[str], ranks: Ranks
) -> None:
    """Measure, print and save what `evaluate` says."""
    if hparams.labels is not None:
        result = measure_reward_model(run, reward_model, hparams, ranks)
        table = [f'Reward model on {result["source"]}', tables.aligned(tables.reward_rows(result))]
        say('\n'.join(['', *table, *tables.repeated_texts(result)]), ranks.is_first)
        save_results(out, reward_model=result)
    if hparams.policies or hparams.labels is None:
        result = measure_policies(run, reward_model, hparams, out, ranks)
        table = [f'Policies on {tables.queries_title(result)}', tables.aligned(tables.policy_rows(result))]
        say('\n'.join(['', *table, *tables.repeated_queries(result)]), ranks.is_first)
        save_results(out, policies=result)


def _num_loops(run: RunFolder, reward_model: TrainedModel, hparams: EvaluateHParams) -> int:
    """Return how many loops show their progress."""
    found = 0
    if hparams.labels is not None:
        samples = len(get_label_type(_label_type_name(run, hparams)).sample_names)
        found += samples * (1 + len(_checkpoints(run, reward_model, hparams)))
    if hparams.policies or hparams.labels is None:
        policies = hparams.policies or [INITIAL, run.path]
        found += LOOPS_OF_A_POLICY * len(policies) - (INITIAL in policies)
    return found


def _checkpoints(
    run: RunFolder, reward_model: TrainedModel, hparams: EvaluateHParams
) -> List[reward_models.Checkpoint]:
    """Return the checkpoints of the run's own reward model that are measured, too."""
    if run.reward_hparams is None or hparams.reward_model is not None:
        return []
    return reward_models.kept_checkpoints(reward_model, hparams.num_checkpoints)


def measure_reward_model(
    run: RunFolder, reward_model: TrainedModel, hparams: EvaluateHParams, ranks: Optional[Ranks] = None
) -> Dict[str, Any]:
    """Return the metrics of a reward model on the labels that `hparams` name.

    For the run's own reward model they include the metrics of its kept checkpoints (`by_labels`).
    """
    label_type = get_label_type(_label_type_name(run, hparams))
    if hparams.reward_model is not None and find_label_function(hparams.labels) is None:
        check_labels_vocabulary(run, reward_model)  # a label file holds tokens
    task = Task(run.task, reward_model.encoding())
    labels = _load_labels(label_type, task, hparams)

    def rewards_of(model: TrainedModel) -> np.ndarray:
        return reward_models.label_rewards(
            model, task, label_type.sample_names, labels.arrays, hparams.batch_size, ranks
        )  # [labels, samples]

    rewards = rewards_of(reward_model)
    result = dict(reward_models.metrics(rewards, labels.arrays), source=shared(labels.title))
    result.update(reward_models.distinct_texts(labels.arrays))
    if 'best' in labels.arrays:
        result['agreement'] = reward_models.agreement(rewards, labels.arrays, labels.votes)
        judges = get_judges(task.hparams.query_dataset)
        result['judges'] = reward_models.judges_accuracy(judges, labels.arrays, task.encoding)
    if run.reward_hparams is not None and hparams.reward_model is None:
        result['by_labels'] = []
        for step, checkpoint in _checkpoints(run, reward_model, hparams):
            metrics = reward_models.metrics(rewards_of(checkpoint), labels.arrays)
            metrics.pop('calibration', None)
            result['by_labels'].append(dict(metrics, labels=step * run.reward_hparams.batch_size))
    return result


def measure_policies(
    run: RunFolder,
    reward_model: TrainedModel,
    hparams: EvaluateHParams,
    out: Optional[str],
    ranks: Optional[Ranks] = None,
    judges: Optional[Dict[str, Judge]] = None,
) -> Dict[str, Any]:
    """Return the metrics of the policies of `hparams` on held-out queries.

    Without `judges`, they are those of the data set of the queries. The first responses of each policy are written to
    the folder `out`, if there is one.
    """
    policies = find_policies(hparams.policies or [INITIAL, run.path], run)
    task = Task(_policy_task(run, hparams), policies[0].trained.encoding())
    held_out = policy_evaluation.held_out_queries(task, hparams.split, hparams.num_queries, hparams.seed)
    reference = next((p.trained for p in policies if p.name == INITIAL), None) or run_policy(run, 'ref_policy')
    check_run_vocabulary(run, policies)
    others = {f'the reward model {reward_model.title}': reward_model, f'the initial policy of {run.path}': reference}
    check_vocabulary(task.encoding, f'the policy {policies[0].name}', others)
    responses = policy_evaluation.respond_and_score(
        policies,
        reference,
        reward_model,
        task,
        held_out,
        hparams.batch_size,
        hparams.seed,
        get_judges(task.hparams.query_dataset) if judges is None else judges,
        ranks,
    )
    if out is not None:
        _write_responses(out, responses, held_out, task)
    return policy_evaluation.metrics(responses, held_out, task.padding_token)


class _Labels(NamedTuple):
    """The labels to measure a reward model on."""

    title: str  # what the table calls them
    arrays: Dict[str, np.ndarray]  # by field, [n, …]
    votes: Optional[List[Optional[List[int]]]]  # of each label: the choices of several people, if it lists them


def _output_folder(run: RunFolder, hparams: EvaluateHParams) -> Optional[str]:
    """Return the folder for the results: `out`, else the run's own; None for a remote run without `out`."""
    if hparams.out:
        return expanded_home(hparams.out)
    return None if storage.is_remote(run.path) else run.path


def _label_type_name(run: RunFolder, hparams: EvaluateHParams) -> str:
    """Return the type of the labels: `label_type`, else the type that the run's reward model was trained on."""
    if hparams.label_type is not None:
        return hparams.label_type
    if run.reward_hparams is None:
        raise ValueError('label_type is not set: give the type of the labels, such as --label_type=best_of_4')
    return run.reward_hparams.labels.type


def _load_labels(label_type: Any, task: Task, hparams: EvaluateHParams) -> _Labels:
    """Load the labels that `hparams.labels` names: those of a data set's held-out split, or a label file."""
    schema = label_schema(label_type, task.hparams.query_length, task.hparams.response_length)
    name, num = hparams.labels, hparams.num_labels or None
    if find_label_function(name) is not None:
        if num is None:
            raise ValueError(f'num_labels is not set: the data set {name} needs a number, such as --num_labels=800')
        arrays = load_labels(name, schema, num, task.encoding, hparams.seed, hparams.split)
        return _Labels(f'{name}, held out', arrays, votes=None)
    path = find_label_file(name)
    arrays = load_labels(path, schema, num, task.encoding)
    num_labels = len(arrays['query'])
    votes = _read_votes(path, num_labels, len(label_type.sample_names)) if 'best' in arrays else None
    return _Labels(name, arrays, votes)


def _read_votes(path: str, num_labels: int, num_samples: int) -> List[Optional[List[int]]]:
    """Return the `votes` of the first labels of a file: for each label the choices that people made, or None."""
    found = []
    for place, label in read_entries(path)[:num_labels]:
        votes = label.get('votes')
        if votes is not None and not (isinstance(votes, list) and all(vote in range(num_samples) for vote in votes)):
            raise ValueError(f'{place}: votes should be a list of choices, 0 to {num_samples - 1}, not {votes!r}')
        found.append(votes)
    return found


def _policy_task(run: RunFolder, hparams: EvaluateHParams) -> TaskHParams:
    """Return the run's task with the temperature and the query data set of `hparams`, where these are set."""
    task = copy.deepcopy(run.task)
    if hparams.temperature is not None:
        task.policy.temperature = hparams.temperature
    if hparams.query_dataset is not None:
        task.query_dataset = hparams.query_dataset
    return task


def _write_responses(
    out: str,
    responses: Dict[str, policy_evaluation.PolicyResponses],
    held_out: policy_evaluation.HeldOut,
    task: Task,
) -> None:
    """Write the first responses of each policy to the samples file of the folder `out`."""
    rows: List[Dict[str, Any]] = []
    for name, policy in responses.items():
        scores = policy.scores[policy_evaluation.SCORE]
        rows += sample_rows(name, dict(policy._asdict(), queries=held_out.queries, scores=scores), task.encoding)
    os.makedirs(out, exist_ok=True)
    write_samples(os.path.join(out, HELD_OUT_SAMPLES_FILE), rows)
