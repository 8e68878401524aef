"""A collection of labels: it says who is asked which question, and keeps the answers.

It has three parts: the state that the journal gives (`journal_state`), the leases of the questions that people are
looking at (`leases`), and the label file (`label_file`). An answer is on disk, in the journal, before it counts.
"""

import hashlib
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
from lm_human_preferences.runs.journal import Entry, Journal, journal_path


class Progress(NamedTuple):
    """How far a collection is, and one person's part in it."""

    answers: int  # of all people
    wanted: int  # including those to questions that do not exist yet
    own: int  # of this person
    seconds: Optional[float]  # this person's median time for an answer


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
        overlap: float = 0.0,
        people: int = 1,
        clock: Callable[[], float] = time.time,
    ):
        """Open the collection whose label file is `labels_path`; start it if it has no journal.

        Args:
          settings: what must not change between openings, as from `task_settings`; ValueError if it did.
          planned: how many questions there will be. `add` brings them.
          overlap: the share of questions that `people` people answer. One person answers each of the others.
          clock: returns the time in seconds since 1970.
        """
        self.form = form
        self._num_planned, self._overlap, self._people = planned, overlap, people
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())  # the lock of everything below
        self._state = JournalState()
        self._leases = Leases()
        self._label_file = LabelFile(labels_path)
        self._journal = Journal(journal_path(labels_path))
        settings = dict(settings, type=form.label_type, answers=len(form.answers))
        if not self._journal.entries:
            self._journal.append(dict(kind='settings', settings=settings))
        self._check_settings(settings)
        for line, entry in enumerate(self._journal.entries):
            try:
                self._state.apply(line, entry)
            except (KeyError, IndexError, TypeError):
                raise ValueError(f'{self._journal.path}: line {line + 1} does not fit the lines before it') from None

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
        """Add questions: {query: tokens, samples: [tokens, …]}. Any further items are kept in the journal only."""
        with self._changed:
            first = len(self.questions)
            people = [self._people_for(number) for number in range(first, first + len(questions))]
            self._record(*(dict(question, kind='question', people=n) for question, n in zip(questions, people)))

    def next_question(self, who: str) -> Optional[Question]:
        """Return the question to show to a person now, None if there is none.

        It is the question that the person is looking at, otherwise the first that nobody else is busy with.
        """
        with self._changed:
            now = self._clock()
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

    def answer(self, who: str, number: int, answer: int) -> bool:
        """Keep a person's answer to question `number`. Return False if it came too late to count.

        `answer` is the index of the answer on the page. ValueError if there is no such question or answer.
        """
        with self._changed:
            if not (0 <= number < len(self.questions) and 0 <= answer < len(self.form.answers)):
                raise ValueError('no such question or answer')
            if self._state.has_answered(who, number):
                return True  # sent twice
            now = self._clock()
            if number not in self._state.open or not self._has_room(number, who, now):
                return False
            order = self.order(who, number)
            seconds = self._leases.seconds_since_shown(number, who, now)
            self._record_answer(who, number, self.form.value(answer, order), order=order, seconds=seconds)
            return True

    def judge(self, who: str, number: int, value: float) -> None:
        """Keep the label that a program, called `who`, gives to a question."""
        with self._changed:
            self._record_answer(who, number, value)

    def skip(self, who: str, number: int) -> None:
        """Do not show a person this question again. Others may answer it."""
        with self._changed:
            if not 0 <= number < len(self.questions):
                raise ValueError('no such question')
            if not self._state.has_passed(who, number):
                self._record(dict(kind='skip', question=number, who=who))
                self._leases.end(number, who)

    def undo(self, who: str) -> bool:
        """Take back a person's last answer or skip and keep its question for them. Return False if there is none."""
        with self._changed:
            acts = self._state.acts(who)
            if not acts:
                return False
            line = max(acts)
            number = acts[line]['question']
            self._record(dict(kind='undo', line=line, who=who))
            self._leases.end_all_of(who)
            now = self._clock()
            if self._has_room(number, who, now):
                self._leases.take(number, who, now)
            return True

    def progress(self, who: str) -> Progress:
        """Return how far everybody is, and this person."""
        with self._changed:
            acts = self._state.acts(who).values()
            seconds = [act['seconds'] for act in acts if act.get('seconds') is not None]
            own = sum(act['kind'] == 'answer' for act in acts)
            return Progress(self.num_answers, self.wanted, own, statistics.median(seconds) if seconds else None)

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
        """How many answers all planned questions need."""
        with self._changed:
            return self.asked + sum(map(self._people_for, range(len(self.questions), self._num_planned)))

    def unanswered(self) -> List[Question]:
        """Return the questions that need more answers."""
        with self._changed:
            return [self.questions[number] for number in self._state.open]

    @property
    def is_complete(self) -> bool:
        """Whether all planned questions exist and have all their answers."""
        with self._changed:
            return self.all_asked() and not self._state.open

    def all_asked(self) -> bool:
        """Return whether all planned questions exist."""
        with self._changed:
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
