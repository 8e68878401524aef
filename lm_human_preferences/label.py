"""Collect labels from people: sample questions from a policy, serve the label page, write the label file."""

import os
import signal
import sys
from typing import List, Optional, Tuple

from lm_human_preferences import experiments
from lm_human_preferences.hyperparameters import LabelPageHParams, TaskHParams
from lm_human_preferences.labeling.agreement import pairwise_agreement
from lm_human_preferences.labeling.collection import Collection, task_settings
from lm_human_preferences.labeling.forms import INSTRUCTIONS, Form, agreement_by_chance, get_form, read_instructions
from lm_human_preferences.labeling.questions import QuestionDraws, ask_policy, responding
from lm_human_preferences.labeling.server import serving
from lm_human_preferences.language.trained_models import TrainedModel, find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.utils.errors import UserError

SECONDS_BETWEEN_FILES = 10
"""How old the label file may get while the page is served; the journal is never behind."""


def label(hparams: LabelPageHParams) -> None:
    """Serve the label page until it is stopped (Ctrl-C), then leave the label file at `out`."""
    task_hparams, label_type = find_task(hparams)
    form = get_form(label_type, hparams.scale)
    instructions = find_instructions(hparams, task_hparams, form)
    policy = find_model(hparams.policy, hparams.savescope)
    task = Task(task_hparams, policy.encoding())
    out = os.path.abspath(os.path.expanduser(hparams.out))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    settings = task_settings(task_hparams, task.encoding)
    collection = Collection(out, form, settings, hparams.num_questions, hparams.overlap, hparams.num_people)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with serving(collection, task.encoding, instructions, hparams.port) as address:
            print(f'{collection.num_answers} of {collection.wanted} answers are there. Answer the others at\n')
            print(f'  {address}\n\nEverybody gives a name of their own. Ctrl-C ends; the same command goes on.')
            sys.stdout.flush()
            add_questions(collection, hparams, policy, task)
            write_until_stopped(collection)
    except KeyboardInterrupt:
        pass
    finally:
        collection.write_labels()
        collection.close()
        print(summary(collection, form))


def add_questions(collection: Collection, hparams: LabelPageHParams, policy: TrainedModel, task: Task) -> None:
    """Sample the questions that are still to come, while people answer those that are there."""
    if collection.all_asked():
        return
    num_samples = len(collection.form.sample_names)
    draws = QuestionDraws(task, hparams.split, num_samples, hparams.seed, collection.place)
    with responding(policy, task, hparams.batch_size * num_samples) as respond:
        while not collection.all_asked():
            more = ask_policy(
                respond, draws, num_samples, hparams.batch_size, policy=f'{hparams.policy} {hparams.savescope}'
            )
            collection.add(more[: hparams.num_questions - len(collection.questions)])


def write_until_stopped(collection: Collection) -> None:
    """Keep the label file fresh."""
    told = False
    while True:
        complete = collection.is_complete
        collection.write_labels()
        if complete and not told:
            print(f'All {collection.wanted} answers are there. Ctrl-C ends.', flush=True)
        told = complete
        collection.wait(lambda: collection.is_complete and not collection.is_saved, SECONDS_BETWEEN_FILES)


def find_task(hparams: LabelPageHParams) -> Tuple[TaskHParams, str]:
    """The task and the label type: of `experiment`, else of the run that `policy` is, with the flags' changes."""
    if hparams.experiment:
        trial = experiments.load(hparams.experiment).trials('train_reward', {})[0]
        task, label_type = trial.hparams.task, trial.hparams.labels.type
    else:
        try:
            run = RunFolder(hparams.policy)
        except FileNotFoundError as error:
            raise UserError(f'{error}, which would tell the task: give --experiment=NAME too') from error
        task, label_type = run.task, _label_type(run)
    if hparams.query_dataset:
        task.query_dataset = hparams.query_dataset
    if hparams.temperature:
        task.policy.temperature = hparams.temperature
    return task, hparams.type or label_type or 'best_of_4'


def _label_type(run: RunFolder) -> Optional[str]:
    """The type of the labels behind a run, None where it is not known."""
    if run.reward_hparams is not None:
        return run.reward_hparams.labels.type
    try:
        return _label_type(RunFolder(run.hparams.rewards.trained_model))
    except FileNotFoundError:
        return None


def find_instructions(hparams: LabelPageHParams, task: TaskHParams, form: Form) -> List[str]:
    """What people are told: as asked for, else of the experiment or the data set, else the question alone."""
    known = [name for name in (hparams.experiment, task.query_dataset) if name in INSTRUCTIONS]
    names = [hparams.instructions] if hparams.instructions else known
    return read_instructions(names[0]) if names else [form.ask]


def summary(collection: Collection, form: Form) -> str:
    """What was collected, and how often people agreed."""
    lines = [f'{collection.num_answers} labels in {collection.labels_path}']
    agreement = pairwise_agreement(collection.values_by_question())
    if agreement.pairs:
        lines.append(
            f'agreement: {agreement.rate:.1%} of {agreement.pairs} pairs of answers to {agreement.questions} questions '
            f'are the same (by chance {agreement_by_chance(form):.0%})'
        )
    return '\n'.join(lines)
