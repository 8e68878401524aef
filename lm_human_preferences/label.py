"""Collect labels from people: sample questions from a policy, serve the label page, and write the label file."""

import contextlib
import os
import signal
import sys
import time
from typing import Callable, Iterator, List, Optional, Tuple

from lm_human_preferences import experiments
from lm_human_preferences.hyperparameters import LabelPageHParams, TaskHParams
from lm_human_preferences.labeling.agreement import pairwise_agreement
from lm_human_preferences.labeling.collection import Collection, task_settings
from lm_human_preferences.labeling.disk import Disk
from lm_human_preferences.labeling.forms import INSTRUCTIONS, Form, agreement_by_chance, get_form, read_instructions
from lm_human_preferences.labeling.questions import QuestionDraws, ask_policy
from lm_human_preferences.labeling.server import serving
from lm_human_preferences.labeling.shared_responder import SharedResponder
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.remote.cache import expanded_home
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.run_folder import RunFolder
from lm_human_preferences.utils.errors import UserError

SECONDS_BETWEEN_FILES = 10
"""How old the label file may get while people answer. The journal is always up to date."""
SECONDS_BETWEEN_TRIES = 1
"""How long to wait before the next try on a full disk."""


def label(hparams: LabelPageHParams, ranks: Optional[Ranks] = None) -> None:
    """Serve the label page until it is stopped (Ctrl-C), then write the label file `out`.

    All ranks sample the questions together. The first one does everything else, and the others sleep meanwhile.
    """
    ranks = ranks or Ranks()
    task_hparams, label_type = find_task(hparams)
    form = get_form(label_type, hparams.scale)
    instructions = find_instructions(hparams, task_hparams, form) if ranks.is_first else []
    policy = find_model(hparams.policy, hparams.savescope)
    task = Task(task_hparams, policy.encoding())
    responder = SharedResponder(policy, task, hparams.batch_size * len(form.sample_names), ranks)
    if ranks.is_first:
        with _stoppable(ranks) as stopped:
            _collect(hparams, task, form, instructions, responder, stopped)
    else:
        responder.help()
    ranks.wait_for_all(asleep=True)
    if ranks.size > 1 and preemption.requested() and preemption.reason() != 'Ctrl-C':
        sys.exit(128 + signal.Signals[preemption.reason()])


def _collect(
    hparams: LabelPageHParams,
    task: Task,
    form: Form,
    instructions: List[str],
    responder: SharedResponder,
    stopped: Callable[[], bool],
) -> None:
    """Serve the label page until it is stopped, and write the label file."""
    out = os.path.abspath(expanded_home(hparams.out))
    os.makedirs(os.path.dirname(out), exist_ok=True)
    settings = task_settings(task.hparams, task.encoding)
    collection = Collection(
        out, form, settings, planned=hparams.num_questions, overlap=hparams.overlap, people=hparams.num_people
    )
    try:
        with serving(collection, task.encoding, instructions, hparams.port) as address:
            print(f'{collection.num_answers} of {collection.wanted} answers collected. To answer the others, open\n')
            print(f'  {address}\n\nEach person enters their own name. Ctrl-C stops; the same command resumes.')
            sys.stdout.flush()
            with responder:
                add_questions(collection, hparams, task, responder, stopped)
            write_until_stopped(collection, stopped)
    except KeyboardInterrupt:
        pass
    finally:
        try:
            write_at_the_end(collection)
        finally:
            collection.close()
            print(summary(collection, form), flush=True)


@contextlib.contextmanager
def _stoppable(ranks: Ranks) -> Iterator[Callable[[], bool]]:
    """Give a function that says whether a signal asks this process to stop.

    In a process alone, the signal itself ends the block. Several ranks may be in the middle of a collective.
    """
    if ranks.size > 1:
        with preemption.heeded():
            yield preemption.requested
    else:
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
        yield lambda: False


def add_questions(
    collection: Collection,
    hparams: LabelPageHParams,
    task: Task,
    responder: SharedResponder,
    stopped: Callable[[], bool],
) -> None:
    """Sample the questions that are still missing, while people answer the others."""
    num_samples = len(collection.form.sample_names)
    draws = QuestionDraws(task, hparams.split, num_samples, hparams.seed, collection.position)
    policy_name = f'{hparams.policy} {hparams.savescope}'
    disk = Disk()
    while not collection.all_asked() and not stopped():
        count = hparams.batch_size * responder.num_ranks
        questions = ask_policy(responder.truncated, draws, count, policy=policy_name)
        needed = questions[: hparams.num_questions - len(collection.questions)]
        while not disk.takes(lambda needed=needed: collection.add(needed)) and not stopped():
            time.sleep(SECONDS_BETWEEN_TRIES)


def write_until_stopped(collection: Collection, stopped: Callable[[], bool]) -> None:
    """Write the label file again and again, and say once when all answers are collected.

    If the disk is full, try again until there is room.
    """
    was_complete = False
    disk = Disk()
    while not stopped():
        is_complete = collection.is_complete
        if not disk.takes(collection.write_labels):
            time.sleep(SECONDS_BETWEEN_TRIES)
            continue
        if is_complete and not was_complete:
            print(f'All {collection.wanted} answers are collected. Ctrl-C stops.', flush=True)
        was_complete = is_complete
        for _ in range(SECONDS_BETWEEN_FILES):
            if collection.wait(lambda: collection.is_complete and not collection.is_saved, seconds=1) or stopped():
                break


def write_at_the_end(collection: Collection) -> None:
    """Write the label file. OSError, with the fix, if that is not possible."""
    try:
        collection.write_labels()
    except OSError as error:
        reason = f'{error.strerror}; the journal beside it has all labels: make room, and give the same command again'
        raise OSError(error.errno, reason, collection.labels_path) from error


def find_task(hparams: LabelPageHParams) -> Tuple[TaskHParams, str]:
    """Return the task and the label type: those of `experiment`, or of the run `policy`, as changed by flags."""
    if hparams.experiment:
        trial = experiments.load(hparams.experiment).trials('train_reward', {})[0]
        task, label_type = trial.hparams.task, trial.hparams.labels.type
    else:
        try:
            run = RunFolder(hparams.policy)
        except FileNotFoundError as error:
            raise UserError(f'{error}; without a run the task is unknown: give --experiment=NAME, too') from error
        task, label_type = run.task, _label_type(run)
    if hparams.query_dataset:
        task.query_dataset = hparams.query_dataset
    if hparams.temperature:
        task.policy.temperature = hparams.temperature
    return task, hparams.type or label_type or 'best_of_4'


def _label_type(run: RunFolder) -> Optional[str]:
    """Return the type of the labels that a run's reward model was trained on, None if it is unknown."""
    if run.reward_hparams is not None:
        return run.reward_hparams.labels.type
    try:
        return _label_type(RunFolder(run.hparams.rewards.trained_model))
    except FileNotFoundError:
        return None


def find_instructions(hparams: LabelPageHParams, task: TaskHParams, form: Form) -> List[str]:
    """Return the instructions for people: those asked for, or of the experiment or data set, or only the question."""
    known = [name for name in (hparams.experiment, task.query_dataset) if name in INSTRUCTIONS]
    names = [hparams.instructions] if hparams.instructions else known
    return read_instructions(names[0]) if names else [form.ask]


def summary(collection: Collection, form: Form) -> str:
    """Return how many labels there are and how often people agreed."""
    lines = [f'{collection.num_answers} labels in {collection.labels_path}']
    agreement = pairwise_agreement(collection.values_by_question())
    if agreement.pairs:
        lines.append(
            f'agreement: {agreement.rate:.1%} of {agreement.pairs} pairs of answers to {agreement.questions} questions '
            f'are the same (by chance {agreement_by_chance(form):.0%})'
        )
    return '\n'.join(lines)
