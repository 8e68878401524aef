"""Collect labels while a policy trains: ask people or a program about samples of the policy."""

import contextlib
import functools
import importlib
import math
import numbers
import os
import time
from typing import Callable, Iterator, List, Sequence

from lm_human_preferences.datasets.labels import check_teaches, load_labels
from lm_human_preferences.hyperparameters import TrainRewardHParams
from lm_human_preferences.labeling.collection import Collection, task_settings
from lm_human_preferences.labeling.disk import Disk
from lm_human_preferences.labeling.forms import INSTRUCTIONS, get_form, read_instructions
from lm_human_preferences.labeling.questions import QuestionDraws, QuestionEntry, Respond, ask_policy
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.inference import Responder
from lm_human_preferences.method.label_types import get_label_type, label_schema
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs import preemption
from lm_human_preferences.runs.run_folder import PEOPLES_LABELS
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.progress import say

Labeler = Callable[[str, Sequence[str]], float]
"""From a query and its samples, as texts, to the label."""

Ask = Callable[[], List[QuestionEntry]]
"""Returns new questions."""

COLLECTED = 'labeler'
"""The value of labels.source for a run that collects its initial labels, too."""

INITIAL_LABELS = '0-initial.json'
PROGRAMS_LABELS = '1-program.json'


class LabelCollector:
    """The labels of a run, in a folder that labels.source can name.

    The folder holds the initial labels, copied from labels.source, and those that the run collects. It also keeps the
    journal of questions and answers, so a resumed run has all of them. Only the first rank has a collector.
    """

    def __init__(self, hparams: TrainRewardHParams, folder: str, budget: int, seed: int):
        """Open the folder and serve the label page, if people answer. `budget` is the number of labels in all."""
        self._schedule = schedule = hparams.labels.schedule
        self._initial_model = find_model(hparams.task.policy.initial_model)
        self._task = Task(hparams.task, self._initial_model.encoding())
        self._labeler = None if schedule.labeler == 'page' else find_labeler(schedule.labeler)
        self._rollout_batch_size = hparams.rollout_batch_size
        self._form = get_form(hparams.labels.type)
        self._disk = Disk()
        os.makedirs(folder, exist_ok=True)
        self._num_copied = 0 if hparams.labels.source == COLLECTED else schedule.num_initial
        if self._num_copied:
            self._copy_labels(hparams, os.path.join(folder, INITIAL_LABELS))
        self._num_to_collect = budget - self._num_copied
        self._collection = self._open_collection(folder)
        num_samples = len(self._form.sample_names)
        self._draws = QuestionDraws(self._task, 'train', num_samples, seed, self._collection.position)
        self._page = contextlib.ExitStack()
        if self._labeler is None and self._num_to_collect:
            self._serve(hparams.task.query_dataset)

    def close(self) -> None:
        """Stop the label page and write the labels."""
        self._page.close()
        try:
            self.save()
        finally:
            self._collection.close()

    def save(self) -> None:
        """Write the labels collected so far to the folder."""
        self._collection.write_labels()

    def ask(self, labels: int, questions: Ask) -> None:
        """Add questions until `labels` labels in all can be expected. A program answers them at once."""
        ahead = self._schedule.num_ahead if self._labeler is None else 0
        while self._collection.expected < min(labels - self._num_copied + ahead, self._num_to_collect):
            if not self._add(questions()):
                return
        if self._labeler is not None:
            self._answer()

    def lacks(self, labels: int) -> bool:
        """Return whether there are fewer than `labels` labels in all."""
        return self._collection.num_answers < labels - self._num_copied

    def wait_for(self, labels: int, questions: Ask) -> None:
        """Wait until there are `labels` labels in all, or until this process is asked to end.

        For questions that people skip, ask others.
        """
        num_answers = self._collection.num_answers
        say(f'waiting for people: {num_answers} of {labels - self._num_copied} labels collected')
        while self.lacks(labels) and not preemption.requested():
            self.ask(labels, questions)
            self._collection.wait(lambda: not self.lacks(labels), seconds=1)

    def questions(self, respond: Respond, batch: int, policy: str) -> List[QuestionEntry]:
        """Return questions about one batch of a policy's responses. The journal keeps its name `policy` with them."""
        return ask_policy(respond, self._draws, max(1, batch // self._draws.num_samples), policy=policy)

    @contextlib.contextmanager
    def asking_initial_policy(self) -> Iterator[Ask]:
        """Give a function that returns questions about the initial policy. Its first call loads that model."""
        num_samples = self._draws.num_samples
        batch = max(1, self._rollout_batch_size // num_samples) * num_samples
        with contextlib.ExitStack() as stack:

            @functools.lru_cache(maxsize=None)
            def responder():
                # The other ranks are not here: they wait for this one.
                return stack.enter_context(Responder(self._initial_model, self._task, batch, Ranks(alone=True)))

            yield lambda: self.questions(responder().truncated, batch, 'initial')

    def _add(self, questions):
        """Add questions, and return whether that was done before this process was asked to end.

        While people answer, a disk that is full is waited for.
        """
        if self._labeler is not None:
            self._collection.add(questions)
            return True
        while not self._disk.takes(lambda: self._collection.add(questions)):
            if preemption.requested():
                return False
            time.sleep(1)
        return True

    def _open_collection(self, folder):
        schedule = self._schedule
        from_people = self._labeler is None
        overlap = schedule.overlap if from_people else 0.0
        return Collection(
            os.path.join(folder, os.path.basename(PEOPLES_LABELS) if from_people else PROGRAMS_LABELS),
            self._form,
            task_settings(self._task.hparams, self._task.encoding),
            budget=self._num_to_collect,
            overlap=overlap,
            people=schedule.num_people,
        )

    def _answer(self):
        """Let the program answer all questions that need an answer."""
        decode = self._task.encoding.decode
        for question in self._collection.unanswered():
            if self._collection.is_complete:  # an older version may have left more questions than the budget
                break
            samples = [decode(sample) for sample in question.samples]
            value = self._checked(self._labeler(decode(question.query), samples))
            self._collection.judge(self._schedule.labeler, question.number, value)

    def _checked(self, value):
        """Return a program's answer as a plain number; UserError if it is no label."""
        indices = range(len(self._form.sample_names))
        if self._form.picks_sample:
            if isinstance(value, numbers.Integral) and value in indices:
                return int(value)
            wanted = f'the index of the best sample, {indices[0]} to {indices[-1]}'
        else:
            if isinstance(value, numbers.Real) and math.isfinite(value):
                return float(value)
            wanted = 'a finite number'
        raise UserError(f'the labeler {self._schedule.labeler} returned {value!r}: it must return {wanted}')

    def _serve(self, dataset):
        from lm_human_preferences.labeling.server import serving  # here, since most runs need no web server

        instructions = self._schedule.instructions or (dataset if dataset in INSTRUCTIONS else None)
        paragraphs = read_instructions(instructions) if instructions else [self._form.ask]
        server = serving(self._collection, self._task.encoding, paragraphs, self._schedule.port)
        say(f'label page: {self._page.enter_context(server)}')

    def _copy_labels(self, hparams, path):
        """Copy the initial labels from labels.source to the file at `path`."""
        label_type = get_label_type(hparams.labels.type)
        schema = label_schema(label_type, hparams.task.query_length, hparams.task.response_length)
        labels = load_labels(hparams.labels.source, schema, self._num_copied, self._task.encoding)
        check_teaches(hparams.labels.source, labels, needs_spread=hparams.normalize_before)
        entries = [{name: labels[name][i].tolist() for name in schema} for i in range(self._num_copied)]
        write_json(path, entries, indent=None)


def find_labeler(name: str) -> Labeler:
    """Return the function that MODULE:FUNCTION names; UserError if there is none.

    The function takes a query and its samples as texts. It returns the label: the index of the best sample, the score
    of the only sample, or by how much the second sample is better than the first.
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
