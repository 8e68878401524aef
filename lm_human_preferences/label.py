"""Collect labels from people: sample questions from a policy, serve the label page, write the label file."""

import os
import signal
import sys
from typing import Optional, Tuple

from lm_human_preferences import experiments
from lm_human_preferences.hyperparameters import LabelPageHParams, TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.labeling.agreement import pairwise_agreement
from lm_human_preferences.labeling.collection import Collection, task_settings
from lm_human_preferences.labeling.forms import INSTRUCTIONS, Form, agreement_by_chance, get_form, read_instructions
from lm_human_preferences.utils.errors import UserError

SECONDS_BETWEEN_FILES = 10
"""How old the label file may get while the page is served; the journal is never behind."""


def label(hparams: LabelPageHParams) -> None:
    """Serve the label page until it is stopped (Ctrl-C), then leave the label file at `out`."""
    task_hparams, label_type = find_task(hparams)
    form = get_form(label_type, hparams.scale)
    named = (hparams.instructions, hparams.experiment, task_hparams.query_dataset)
    instructions = hparams.instructions or next((name for name in named if name in INSTRUCTIONS), None)
    paragraphs = read_instructions(instructions) if instructions else [form.ask]

    # Imported late: the first loads TensorFlow, and bad flags should be told at once.
    from lm_human_preferences.labeling.questions import QuestionDraws, ask_policy, responding
    from lm_human_preferences.labeling.server import serving
    from lm_human_preferences.language.trained_models import find_model
    from lm_human_preferences.lm_tasks import Task

    policy = find_model(hparams.policy, hparams.savescope)
    task = Task(task_hparams, policy.encoding())
    out = os.path.abspath(os.path.expanduser(hparams.out))
    if not os.path.isdir(os.path.dirname(out)):
        raise UserError(f'out: there is no folder {os.path.dirname(out)}: make it first')
    collection = Collection(
        out,
        form,
        task_settings(task.hparams, task.encoding),
        planned=hparams.num,
        overlap=hparams.overlap,
        people=hparams.people,
    )
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        with serving(collection, task.encoding, paragraphs, hparams.port) as address:
            print(f'{collection.num_answers} of {collection.wanted} answers are there. Answer the others at\n')
            print(
                f'  {address}\n\nEverybody gives a name of their own. Ctrl-C ends; the same command goes on.',
                flush=True,
            )
            num_samples = len(form.sample_names)
            draws = QuestionDraws(
                task_hparams, hparams.mode, task.encoding, num_samples, hparams.seed, collection.place
            )
            if not collection.all_asked():
                named = dict(policy=f'{hparams.policy} {hparams.savescope}')
                with responding(policy, task, hparams.batch_size * num_samples) as respond:
                    while not collection.all_asked():
                        more = ask_policy(respond, draws, num_samples, hparams.batch_size, **named)
                        collection.add(more[: hparams.num - len(collection.questions)])
            told = False
            while True:
                complete = collection.is_complete
                collection.write_labels()
                if complete and not told:
                    print(f'All {collection.wanted} answers are there. Ctrl-C ends.', flush=True)
                told = complete
                collection.wait(lambda: collection.is_complete and not collection.is_saved, SECONDS_BETWEEN_FILES)
    except KeyboardInterrupt:
        pass
    finally:
        collection.write_labels()
        collection.close()
        print(summary(collection, form))


def find_task(hparams: LabelPageHParams) -> Tuple[TaskHParams, str]:
    """The task and the label type: of `experiment`, else of the run that `policy` is, with the flags' changes."""
    if hparams.experiment:
        experiment = experiments.load(hparams.experiment)
        trial = experiment.trials('train_reward', {})[0]
        task, label_type = trial.hparams.task, trial.hparams.labels.type
    else:
        task, label_type = _of_run(hparams.policy)
    if hparams.queries:
        task.query_dataset = hparams.queries
    if hparams.temperature:
        task.policy.temperature = hparams.temperature
    return task, hparams.type or label_type or 'best_of_4'


def _of_run(folder: str) -> Tuple[TaskHParams, Optional[str]]:
    path = os.path.join(folder, 'train_policy_hparams.json')
    if os.path.exists(path):
        run = TrainPolicyHParams()
        run.override_from_json_file(path)
        new_model = run.rewards.train_new_model
        return run.task, new_model.labels.type if new_model else _type_of_reward_run(run.rewards.trained_model)
    raise UserError(f'{folder} is not the folder of a run, which would tell the task: give --experiment=NAME too')


def _type_of_reward_run(folder: str) -> Optional[str]:
    path = os.path.join(folder, 'train_reward_hparams.json')
    if not os.path.exists(path):
        return None
    run = TrainRewardHParams()
    run.override_from_json_file(path)
    return run.labels.type


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
