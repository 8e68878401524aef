"""Measure policies against each other on held-out queries, and a reward model on people's labels.

The figures go to the terminal as tables, and to `evaluation.json` in the run's folder, where the report finds them;
those of a remote run, which is only read, to the folder that `out` names.
"""

import os
from typing import Any, Dict, List, Optional

from lm_human_preferences.datasets.labels import find_label_file, load_labels, read_entries
from lm_human_preferences.datasets.registry import find_label_function, get_judges
from lm_human_preferences.evaluation import policies as policy_evaluation
from lm_human_preferences.evaluation import reward_models, tables
from lm_human_preferences.hyperparameters import EvaluateHParams
from lm_human_preferences.language.run_models import INITIAL, find_policies, run_policy, run_reward_model
from lm_human_preferences.language.trained_models import TrainedModel, find_reward_model
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.sample_rows import sample_rows
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.results import save_results
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.runs.samples import HELD_OUT_FILE, write_samples
from lm_human_preferences.utils.progress import say


def evaluate(hparams: EvaluateHParams) -> None:
    """Measure what `hparams` ask for, print the tables and write the figures into the run's folder."""
    run = RunFolder(hparams.run or next(name for name in hparams.policies if name != INITIAL))
    own_folder = None if storage.is_remote(run.path) else run.path
    out = os.path.expanduser(hparams.out) if hparams.out else own_folder
    reward_model = find_reward_model(hparams.reward_model) if hparams.reward_model else run_reward_model(run)
    if hparams.labels is None and not run.has_policy:
        raise ValueError(f'{run.path} has a reward model and no policy: give the --labels to measure it on')
    if hparams.labels is not None:
        result = measure_reward_model(run, reward_model, hparams)
        say(f'\nReward model on {result["source"]}\n{tables.aligned(tables.reward_rows(result))}')
        save_results(out, reward_model=result)
    if hparams.policies or hparams.labels is None:
        result = measure_policies(run, reward_model, hparams, out)
        say(f'\nPolicies on {result["queries"]} held-out queries\n{tables.aligned(tables.policy_rows(result))}')
        save_results(out, policies=result)


def measure_reward_model(run: RunFolder, reward_model: TrainedModel, hparams: EvaluateHParams) -> Dict[str, Any]:
    """The figures of a reward model on the label file of `hparams`, at the end and along its training."""
    trained_on = run.reward_hparams
    type_name = hparams.label_type or (trained_on.labels.type if trained_on else None)
    if type_name is None:
        raise ValueError('label_type is not set: give --label_type=best_of_4 or whichever type the labels are')
    label_type = get_label_type(type_name)
    task = Task(run.task, reward_model.encoding())
    schema = label_schema(label_type, task.hparams.query_length, task.hparams.response_length)
    of_data_set = find_label_function(hparams.labels) is not None
    source = hparams.labels if of_data_set else find_label_file(hparams.labels)
    labels = load_labels(source, schema, hparams.num_labels or None, task.encoding, hparams.seed, hparams.split)
    rewards = reward_models.label_rewards(reward_model, task, label_type.sample_names, labels, hparams.batch_size)
    shown = f'{hparams.labels}, held out' if of_data_set else hparams.labels
    result = dict(reward_models.figures(rewards, labels), source=shown)
    if 'best' in labels:
        votes = None if of_data_set else _votes(source, len(rewards), rewards.shape[1])
        result['agreement'] = reward_models.agreement(rewards, labels, votes)
        judges = get_judges(task.hparams.query_dataset)
        result['judges'] = reward_models.judges_accuracy(judges, labels, task.encoding)
    if trained_on is not None and hparams.reward_model is None:
        result['by_labels'] = []
        for step, trained in reward_models.kept_checkpoints(reward_model, hparams.num_checkpoints):
            rewards = reward_models.label_rewards(trained, task, label_type.sample_names, labels, hparams.batch_size)
            figures = reward_models.figures(rewards, labels)
            figures.pop('calibration', None)
            result['by_labels'].append(dict(figures, labels=step * trained_on.batch_size))
    return result


def measure_policies(
    run: RunFolder,
    reward_model: TrainedModel,
    hparams: EvaluateHParams,
    out: Optional[str],
) -> Dict[str, Any]:
    """The figures of the policies of `hparams` on held-out queries; the folder `out` gets their first responses."""
    names = hparams.policies or [INITIAL, run.path]
    policies = find_policies(names, run)
    task_hparams = run.task
    if hparams.temperature is not None:
        task_hparams.policy.temperature = hparams.temperature
    task_hparams.query_dataset = hparams.query_dataset or task_hparams.query_dataset
    task = Task(task_hparams, policies[0].trained.encoding())
    if not reward_model.encoding().same_tokens(task.encoding):
        raise ValueError(f'the reward model and {policies[0].name} have different vocabularies')
    held_out = policy_evaluation.held_out_queries(task, hparams.split, hparams.num_queries, hparams.seed)
    reference = next((p.trained for p in policies if p.name == INITIAL), None) or run_policy(run, 'ref_policy')
    judges = get_judges(task_hparams.query_dataset)
    answers = policy_evaluation.answers_of(
        policies,
        reference,
        reward_model,
        task,
        held_out,
        hparams.batch_size,
        hparams.seed,
        judges,
    )
    rows: List[Dict[str, Any]] = []
    for name, answer in answers.items():
        rollout = dict(answer._asdict(), queries=held_out.queries, scores=answer.scores[policy_evaluation.SCORE])
        rows += sample_rows(name, rollout, task.encoding)
    if out is not None:
        os.makedirs(out, exist_ok=True)
        write_samples(os.path.join(out, HELD_OUT_FILE), rows)
    return policy_evaluation.figures(answers, held_out, task.padding_token)


def _votes(path: str, count: int, samples: int) -> List[Optional[List[int]]]:
    """The `votes` of the first `count` labels: each a list of the choices that people made, or None."""
    found = []
    for place, label in read_entries(path)[:count]:
        votes = label.get('votes')
        if votes is not None and not (isinstance(votes, list) and all(choice in range(samples) for choice in votes)):
            raise ValueError(f'{place}: votes should be a list of choices, 0 to {samples - 1}, not {votes!r}')
        found.append(votes)
    return found
