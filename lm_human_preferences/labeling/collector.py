"""Labels bought for a policy in training: questions about its samples, answered by people or by a program."""

import contextlib
import importlib
import math
import numbers
import os
from typing import Callable, Iterator, List, Sequence

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.hyperparameters import TrainRewardHParams
from lm_human_preferences.labeling.collection import Collection, task_settings
from lm_human_preferences.labeling.forms import INSTRUCTIONS, get_form, read_instructions
from lm_human_preferences.labeling.questions import QuestionDraws, QuestionEntry, Respond, ask_policy, responding
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.resuming import PEOPLES_LABELS
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.progress import say

Labeler = Callable[[str, Sequence[str]], float]

BOUGHT = 'labeler'
"""The labels.source of a run whose initial labels are bought too."""


class LabelBuyer:
    """Labels in a folder that labels.source reads: those that were there (0-initial.json), and those that are bought.

    The folder keeps the journal of what was asked and answered, so a run that is resumed has it all.
    """

    def __init__(self, hparams: TrainRewardHParams, folder: str, budget: int, seed: int):
        """`budget`: how many labels there will be in all."""
        self._schedule = schedule = hparams.labels.schedule
        self._initial_model = find_model(hparams.task.policy.initial_model)
        self._task = Task(hparams.task, self._initial_model.encoding())
        self._labeler = None if schedule.labeler == 'page' else find_labeler(schedule.labeler)
        self._rollout_batch_size = hparams.rollout_batch_size
        self._form = form = get_form(hparams.labels.type)
        os.makedirs(folder, exist_ok=True)
        self._given = 0 if hparams.labels.source == BOUGHT else schedule.num_initial
        if self._given:
            self._copy_labels(hparams, os.path.join(folder, '0-initial.json'))
        self._bought = budget - self._given
        overlap = schedule.overlap if self._labeler is None else 0.0
        self._collection = Collection(
            os.path.join(folder, os.path.basename(PEOPLES_LABELS) if self._labeler is None else '1-program.json'),
            form,
            task_settings(hparams.task, self._task.encoding),
            planned=math.ceil(self._bought / (1 + overlap * (schedule.num_people - 1))),
            overlap=overlap,
            people=schedule.num_people,
        )
        self._draws = QuestionDraws(self._task, 'train', len(form.sample_names), seed, self._collection.place)
        self._page = contextlib.ExitStack()
        if self._labeler is None and self._bought:
            self._serve(hparams.task.query_dataset)

    def close(self) -> None:
        """Write the labels and stop asking."""
        self._page.close()
        self.save()
        self._collection.close()

    def save(self) -> None:
        """Write the labels that are there to the folder."""
        self._collection.write_labels()

    def ask(self, labels: int, questions: Callable[[], List[QuestionEntry]]) -> None:
        """Ask what `questions` gives until it makes for so many labels in all; a program answers at once."""
        ahead = self._schedule.num_ahead if self._labeler is None else 0
        while self._collection.expected < min(labels - self._given + ahead, self._bought):
            self._collection.add(questions())
        if self._labeler is not None:
            self._answer()

    def lacks(self, labels: int) -> bool:
        """Whether there are fewer labels than this in all."""
        return self._collection.num_answers < labels - self._given

    def wait_for(self, labels: int, questions: Callable[[], List[QuestionEntry]]) -> None:
        """Return when there are so many labels in all, or when this process is asked to end.

        Where people skip questions, they are asked others.
        """
        there = self._collection.num_answers
        say(f'waiting for people: {there} of {labels - self._given} labels are there')
        while self.lacks(labels) and not preemption.requested():
            self.ask(labels, questions)
            self._collection.wait(lambda: not self.lacks(labels), seconds=1)

    def questions(self, respond: Respond, batch: int, policy: str) -> List[QuestionEntry]:
        """Questions about one batch of what a policy responds; `policy` is kept with them."""
        num_samples = len(self._form.sample_names)
        return ask_policy(respond, self._draws, num_samples, max(1, batch // num_samples), policy=policy)

    @contextlib.contextmanager
    def asking_initial_policy(self) -> Iterator[Callable[[], List[QuestionEntry]]]:
        """A source of questions about the policy that training starts from."""
        with contextlib.ExitStack() as stack:
            respond: List[Respond] = []
            num_samples = len(self._form.sample_names)
            batch = max(1, self._rollout_batch_size // num_samples) * num_samples

            def questions():
                if not respond:
                    respond.append(stack.enter_context(responding(self._initial_model, self._task, batch)))
                return self.questions(respond[0], batch, 'initial')

            yield questions

    def _answer(self):
        """Let the program answer every question that is open."""
        decode = self._task.encoding.decode
        for question in self._collection.unanswered():
            samples = [decode(sample) for sample in question.samples]
            value = self._checked(self._labeler(decode(question.query), samples))
            self._collection.judge(self._schedule.labeler, question.number, value)

    def _checked(self, value):
        """A program's answer as a plain number; UserError for what is no label."""
        places = range(len(self._form.sample_names))
        if self._form.picks_sample:
            if isinstance(value, numbers.Integral) and value in places:
                return int(value)
            wanted = f'the place of the best sample, {places[0]} to {places[-1]}'
        else:
            if isinstance(value, numbers.Real) and math.isfinite(value):
                return float(value)
            wanted = 'a finite number'
        raise UserError(f'the labeler {self._schedule.labeler} gave {value!r}: it must be {wanted}')

    def _serve(self, dataset):
        from lm_human_preferences.labeling.server import serving  # late: most runs have no use for a web server

        instructions = self._schedule.instructions or (dataset if dataset in INSTRUCTIONS else None)
        paragraphs = read_instructions(instructions) if instructions else [self._form.ask]
        server = serving(self._collection, self._task.encoding, paragraphs, self._schedule.port)
        say(f'label page: {self._page.enter_context(server)}')

    def _copy_labels(self, hparams, path):
        """Put the labels that were there before into the folder."""
        label_type = get_label_type(hparams.labels.type)
        schema = label_schema(label_type, hparams.task.query_length, hparams.task.response_length)
        labels = load_labels(hparams.labels.source, schema, self._given, self._task.encoding)
        entries = [{name: labels[name][i].tolist() for name in schema} for i in range(self._given)]
        write_json(path, entries, indent=None)


def find_labeler(name: str) -> Labeler:
    """The function that MODULE:FUNCTION names; UserError where there is none.

    It is given a query and its samples as texts and returns the label: the place of the best sample, the score of the
    only one, or by how much the second is better than the first.
    """
    module_name, _, function_name = name.partition(':')
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise UserError(f'labeler {name}: {error}: is its folder in PYTHONPATH?') from error
    function = getattr(module, function_name, None)
    if not callable(function):
        raise UserError(f'labeler {name}: the module {module_name} has no function {function_name}')
    return function
