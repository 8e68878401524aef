"""A collection of labels: it says who is asked which question, and keeps the answers.

It has three parts: the state that the journal gives (`journal_state`), the leases of the questions that people are
looking at (`leases`), and the label file (`label_file`). An answer is on disk, in the journal, before it counts.
"""

import enum
import hashlib
import os
import statistics
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence

from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.labeling.forms import Form
from lm_human_preferences.labeling.journal_state import JournalState, Question
from lm_human_preferences.labeling.label_file import LabelFile, label_entries
from lm_human_preferences.labeling.leases import Leases
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.runs.journal import SETTINGS, Entry, Journal, journal_path
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.progress import say


class Outcome(enum.Enum):
    """What became of a person's choice."""

    KEPT = 'kept'
    CHANGED = 'changed'  # it replaces the person's earlier answer to the question
    LATE = 'late'  # others have answered the question, or are busy with it
    FULL = 'full'  # all answers that are wanted were there already
    SKIPPED = 'skipped'
    WITHDRAWN = 'withdrawn'  # a question was skipped that the person had answered: the answer counts no longer
    UNDONE = 'undone'  # and its question is kept for the person
    GIVEN_AWAY = 'given-away'  # undone, but others have the question now
    UNDONE_BEFORE = 'undone-before'  # the choice had been taken back or changed already
    NOTHING = 'nothing'  # there is nothing to undo


class Progress(NamedTuple):
    """How far a collection is, and one person's part in it."""

    answers: int  # of all people
    wanted: int  # including those to questions that do not exist yet
    own: int  # of this person
    seconds: Optional[float]  # this person's median time for an answer
    last: Optional[int]  # the line in the journal of this person's last answer or skip


def overlaps(number: int, share: float) -> bool:
    """Return whether several people answer question `number`: those questions are an evenly spread `share` of all."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def task_settings(task: TaskHParams, encoding: Encoding) -> Dict[str, Any]:
    """Return the settings that all labels of one file must share."""
    return dict(
        query_length=task.query_length,
        response_length=task.response_length,
        n_vocab=encoding.n_vocab,
        padding_token=encoding.padding_token,
    )


class Collection:
    """Questions of one form, shown to any number of people until each has enough answers. Any thread may use it."""

    def __init__(
        self,
        labels_path: str,
        form: Form,
        settings: Dict[str, Any],
        planned: int = 0,
        budget: Optional[int] = None,
        overlap: float = 0.0,
        people: int = 1,
        clock: Callable[[], float] = time.time,
    ):
        """Open the collection whose label file is `labels_path`; start it if it has no journal.

        Args:
          settings: what must not change between openings, as from `task_settings`; ValueError if it did.
          planned: how many questions there will be. `add` brings them.
          budget: how many answers to collect, in place of `planned`. There are never more.
          overlap: the share of questions that `people` people answer. One person answers each of the others.
          clock: returns the time in seconds since 1970.
        """
        self.form = form
        self._num_planned, self._budget = planned, budget
        self._overlap, self._people = overlap, people
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())  # the lock of everything below
        self._state = JournalState()
        self._leases = Leases()
        self._label_file = LabelFile(labels_path)
        self._journal = Journal(journal_path(labels_path))
        settings = dict(settings, type=form.label_type, answers=len(form.answers))
        try:
            self._resume(settings)
        except BaseException:
            self._journal.close()
            raise

    def _resume(self, settings):
        """Take over what the journal has, or start it. A journal of something else is left as it is."""
        path = self._journal.path
        if not self._journal.entries:
            if os.path.lexists(self.labels_path):
                raise UserError(f'{self.labels_path} exists, but no journal of its answers: give another --out or NAME')
            self._journal.append(dict(kind=SETTINGS, settings=settings))
        self._check_settings(settings)
        for line, entry in enumerate(self._journal.entries):
            try:
                self._state.apply(line, entry)
            except ValueError as error:
                raise ValueError(f'{path}: line {line + 1} does not fit the lines before it: {error}') from None
        if self._journal.torn:
            say(f'{path}: the last line is torn and does not count: its writer ended before it was confirmed')

    def _check_settings(self, settings):
        before = self._journal.entries[0].get('settings')
        before = before if isinstance(before, dict) else {}
        changes = [
            f'{name} was {before.get(name)}, now {now}' for name, now in settings.items() if before.get(name) != now
        ]
        if before != settings:
            raise ValueError(
                f'{self._journal.path} was started with other settings ({", ".join(changes)}): '
                'give another --out or NAME'
            )

    @property
    def labels_path(self) -> str:
        return self._label_file.path

    @property
    def questions(self) -> Sequence[Question]:
        """All questions so far."""
        return self._state.questions

    @property
    def position(self) -> int:
        """The position of the last question's query in its data set."""
        with self._changed:
            return self._state.position

    def add(self, questions: Sequence[Dict[str, Any]]) -> None:
        """Add questions: {query: tokens, samples: [tokens, …]}. Any further items are kept in the journal only.

        Questions that are not needed for the budget are left out.
        """
        with self._changed:
            needed = []
            room = float('inf') if self._budget is None else self._budget - self.expected
            for number, question in enumerate(questions, start=len(self.questions)):
                people = min(self._people_for(number), room)
                if people <= 0:
                    break
                room -= people
                needed.append(dict(question, kind='question', people=people))
            if needed:
                self._record(*needed)

    def next_question(self, who: str) -> Optional[Question]:
        """Return the question to show to a person now, None if there is none.

        It is the question that the person is looking at, otherwise the first that nobody else is busy with.
        """
        with self._changed:
            now = self._clock()
            if self._budget is not None and self.num_answers + self._leases.num_of_others(who, now) >= self._budget:
                return None
            held = [number for number in self._leases.held_by(who) if number in self._state.open]
            for number in [*held, *self._state.open]:
                if not self._state.has_passed(who, number) and self._has_room(number, who, now):
                    self._leases.take(number, who, now)
                    return self.questions[number]
            return None

    def order(self, who: str, number: int) -> List[int]:
        """Return the shuffled order in which a person sees the samples of a question. It is always the same."""

        def key(sample):
            return hashlib.sha256(f'{number}/{sample}/{who}'.encode()).digest()

        return sorted(range(len(self.form.sample_names)), key=key)

    def answer(self, who: str, number: int, answer: int) -> Outcome:
        """Keep a person's answer to question `number`: KEPT, CHANGED, or not counted because it is LATE or all is FULL.

        The last answer of a person to a question counts; the journal keeps all. `answer` is the index of the answer on
        the page. ValueError if there is no such question or answer.
        """
        with self._changed:
            if not (0 <= number < len(self.questions) and 0 <= answer < len(self.form.answers)):
                raise ValueError('no such question or answer')
            now = self._clock()
            order = self.order(who, number)
            value = self.form.value(answer, order)
            answered = self._state.has_answered(who, number)
            if answered and self._state.value(who, number) == value:
                return Outcome.KEPT  # sent twice
            if not answered and self._budget is not None and self.num_answers >= self._budget:
                return Outcome.FULL
            if not answered and (number not in self._state.open or not self._has_room(number, who, now)):
                return Outcome.LATE
            seconds = self._leases.seconds_since_shown(number, who, now)
            self._record_answer(who, number, value, order=order, seconds=seconds)
            return Outcome.CHANGED if answered else Outcome.KEPT

    def judge(self, who: str, number: int, value: float) -> None:
        """Keep the label that a program, called `who`, gives to a question."""
        with self._changed:
            self._record_answer(who, number, value)

    def skip(self, who: str, number: int) -> Outcome:
        """Do not show a person this question again: SKIPPED, or WITHDRAWN if they had answered it.

        Others may answer it. ValueError if there is no such question.
        """
        with self._changed:
            if not 0 <= number < len(self.questions):
                raise ValueError('no such question')
            answered = self._state.has_answered(who, number)
            if answered or not self._state.has_passed(who, number):
                self._record(dict(kind='skip', question=number, who=who))
                self._leases.end(number, who)
            return Outcome.WITHDRAWN if answered else Outcome.SKIPPED

    def undo(self, who: str, line: Optional[int] = None) -> Outcome:
        """Take back a person's last answer or skip, and keep its question for them if nobody else has it.

        `line` is that of `Progress.last` on the page that the person saw. A page that is sent twice then takes back
        one choice, not two. Return UNDONE, GIVEN_AWAY, UNDONE_BEFORE or NOTHING.
        """
        with self._changed:
            acts = self._state.acts(who)
            if not acts:
                return Outcome.NOTHING if line is None else Outcome.UNDONE_BEFORE
            line = max(acts) if line is None else line
            if line not in acts:
                return Outcome.UNDONE_BEFORE
            number = acts[line]['question']
            self._record(dict(kind='undo', line=line, who=who))
            self._leases.end_all_of(who)
            now = self._clock()
            if not self._has_room(number, who, now):
                return Outcome.GIVEN_AWAY
            self._leases.take(number, who, now)
            return Outcome.UNDONE

    def progress(self, who: str) -> Progress:
        """Return how far everybody is, and this person."""
        with self._changed:
            acts = self._state.acts(who)
            seconds = [act['seconds'] for act in acts.values() if act.get('seconds') is not None]
            own = sum(act['kind'] == 'answer' for act in acts.values())
            median = statistics.median(seconds) if seconds else None
            return Progress(self.num_answers, self.wanted, own, median, max(acts) if acts else None)

    @property
    def num_answers(self) -> int:
        with self._changed:
            return self._state.num_answers

    @property
    def asked(self) -> int:
        """How many answers the questions so far need."""
        with self._changed:
            return sum(question.people for question in self.questions)

    @property
    def expected(self) -> int:
        """How many answers the questions so far will probably get: none is expected where somebody skipped."""
        with self._changed:
            return self.asked - self._state.num_missing_of_skipped()

    @property
    def wanted(self) -> int:
        """How many answers there will be: the budget, or what all planned questions need."""
        with self._changed:
            if self._budget is not None:
                return max(self._budget, self.num_answers)
            return self.asked + sum(map(self._people_for, range(len(self.questions), self._num_planned)))

    def unanswered(self) -> List[Question]:
        """Return the questions that need more answers."""
        with self._changed:
            return [self.questions[number] for number in self._state.open]

    @property
    def is_complete(self) -> bool:
        """Whether all answers that are wanted are there."""
        with self._changed:
            if self._budget is not None:
                return self.num_answers >= self._budget
            return self.all_asked() and not self._state.open

    def all_asked(self) -> bool:
        """Return whether all questions exist that are needed."""
        with self._changed:
            if self._budget is not None:
                return self.expected >= self._budget
            return len(self.questions) >= self._num_planned

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until `done()` is true, for at most `seconds`, and return its last result. It runs after each change."""
        with self._changed:
            return self._changed.wait_for(done, timeout=seconds)

    def labels(self) -> List[Dict[str, Any]]:
        """Return the entries of the label file: one for each answer, in the order in which the answers came."""
        with self._changed:
            return label_entries(self._state, self.form)

    def values_by_question(self) -> List[List[float]]:
        """Return the labels that people gave to each question."""
        with self._changed:
            return [
                [answer['value'] for answer in self._state.answers(number)] for number in range(len(self.questions))
            ]

    @property
    def is_saved(self) -> bool:
        """Whether the label file holds all answers."""
        with self._changed:
            return self._label_file.is_current(len(self._journal.entries))

    def write_labels(self) -> None:
        """Write the label file, unless it holds all answers."""
        with self._changed:
            if self.is_saved:
                return
            labels, num_entries = self.labels(), len(self._journal.entries)
        self._label_file.write(labels, num_entries)  # without the lock: people's answers do not wait for it

    def close(self) -> None:
        self._journal.close()

    def _people_for(self, number):
        """Return how many people must answer question `number`."""
        return self._people if overlaps(number, self._overlap) else 1

    def _has_room(self, number, who, now):
        """Return whether a question needs one more answer, if all others who are busy with it answer it, too."""
        return self._state.num_missing(number) > self._leases.num_others(number, who, now)

    def _record_answer(self, who, number, value, **more):
        when = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self._clock()))
        self._record(dict(kind='answer', question=number, who=who, value=value, when=when, **more))
        if number in self._state.open:
            self._leases.end(number, who)
        else:
            self._leases.end_all_on(number)

    def _record(self, *entries: Entry):
        """Append entries to the journal, then apply them to the state."""
        first = len(self._journal.entries)
        self._journal.append(*entries)
        for line, entry in enumerate(entries, start=first):
            self._state.apply(line, entry)
        self._changed.notify_all()
