"""Who is asked which question, and what was answered: the state of the label page, kept in a journal.

The journal is the truth: entries of `kind` question, answer, skip and undo, in the order in which they came. What is
answered is on disk before it counts. All methods may be called from any thread.
"""

import hashlib
import statistics
import threading
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Sequence, Set

from lm_human_preferences.hyperparameters import TaskHParams
from lm_human_preferences.labeling.forms import Form
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.runs.journal import Journal, journal_path
from lm_human_preferences.utils.files import write_json

LEASE_SECONDS = 600
"""How long a question that somebody was shown is kept for them."""


class Question(NamedTuple):
    """One question: its place in the collection, and how many people are to answer it."""

    number: int
    query: List[int]
    samples: List[List[int]]
    people: int


class Lease(NamedTuple):
    shown_at: float
    expires: float


class Progress(NamedTuple):
    answers: int  # of all people
    wanted: int  # including questions that are still to come
    own: int  # of this person
    seconds: Optional[float]  # this person's median time for an answer


def overlaps(number: int, share: float) -> bool:
    """Whether question `number` is one of the evenly spread `share` that several people answer."""
    return int((number + 1) * share + 1e-9) > int(number * share + 1e-9)


def task_settings(task: TaskHParams, encoding: Encoding) -> Dict[str, Any]:
    """What must be the same for all labels of one file."""
    return dict(
        query_length=task.query_length,
        response_length=task.response_length,
        n_vocab=encoding.n_vocab,
        padding_token=encoding.padding_token,
    )


class Collection:
    """Questions of one form, asked of any number of people until each has as many answers as it should."""

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
        """Open or continue the collection whose label file is `labels_path`.

        Args:
          settings: what must be the same when it is continued, as of `task_settings`; ValueError where it is not.
          planned: questions in all; `add` brings them.
          overlap: the share of questions that `people` people answer; the others are answered once.
        """
        self.form = form
        self.labels_path = labels_path
        self._planned, self._overlap, self._people = planned, overlap, people
        self._clock = clock
        self._changed = threading.Condition(threading.RLock())
        self.questions: List[Question] = []
        self.place = 0  # of the last question's query in its data set
        self._answers: List[Dict[int, Dict[str, Any]]] = []  # of each question, by the journal's line
        self._acts: Dict[str, List[int]] = {}  # each person's answers and skips that stand, by the journal's line
        self._passed: Dict[str, Set[int]] = {}  # the questions each person has answered or skipped
        self._skipped: Set[int] = set()  # questions that somebody has skipped, at one time or another
        self._leases: Dict[int, Dict[str, Lease]] = {}
        self._open: Dict[int, None] = {}  # in order, the questions that lack answers
        self._journal = Journal(journal_path(labels_path))
        settings = dict(settings, type=form.label_type, answers=len(form.answers))
        if not self._journal.entries:
            self._journal.append(dict(kind='settings', settings=settings))
        self._check_settings(settings)
        for line, entry in enumerate(self._journal.entries):
            try:
                self._apply(line, entry)
            except (KeyError, IndexError, TypeError):
                raise ValueError(f'{self._journal.path}: line {line + 1} does not fit the lines before it') from None
        self.is_saved = False

    def _check_settings(self, settings):
        before = self._journal.entries[0].get('settings')
        if before != settings:
            names = [name for name in settings if not isinstance(before, dict) or before.get(name) != settings[name]]
            told = ', '.join(f'{name} was {(before or {}).get(name)}, now {settings[name]}' for name in names)
            raise ValueError(f'{self._journal.path} was begun otherwise ({told}): give another --out or NAME')

    def add(self, samples_of_queries: Sequence[Dict[str, Any]]) -> None:
        """Add questions: {query: tokens, samples: [tokens, …]} and whatever else the journal should keep of them."""
        with self._changed:
            entries = []
            for number, question in enumerate(samples_of_queries, start=len(self.questions)):
                people = self._people if overlaps(number, self._overlap) else 1
                entries.append(dict(question, kind='question', people=people))
            self._record(*entries)

    def next_question(self, who: str) -> Optional[Question]:
        """The question to show to a person now: the one they have already, else one nobody else is busy with."""
        with self._changed:
            now = self._clock()
            passed = self._passed.get(who, set())
            mine = [n for n, leases in self._leases.items() if who in leases and n in self._open and n not in passed]
            for number in mine + [n for n in self._open if n not in passed]:
                if self._has_room(number, who, now):
                    before = self._leases.setdefault(number, {}).get(who)
                    shown_at = before.shown_at if before and before.expires > now else now
                    self._leases[number][who] = Lease(shown_at, now + LEASE_SECONDS)
                    return self.questions[number]
            return None

    def order(self, who: str, number: int) -> List[int]:
        """The shuffled order in which a person sees the samples of a question; always the same."""

        def place(sample):
            return hashlib.sha256(f'{number}/{sample}/{who}'.encode()).digest()

        return sorted(range(len(self.form.sample_names)), key=place)

    def answer(self, who: str, number: int, answer: int) -> bool:
        """Keep a person's answer, by its place on the page; False if it came too late to count.

        ValueError for a question or an answer that is not there.
        """
        with self._changed:
            if not (0 <= number < len(self.questions) and 0 <= answer < len(self.form.answers)):
                raise ValueError('no such question or answer')
            if any(given['who'] == who for given in self._answers[number].values()):
                return True  # sent twice
            now = self._clock()
            if number not in self._open or not self._has_room(number, who, now):
                return False
            order = self.order(who, number)
            lease = self._leases.get(number, {}).get(who)
            seconds = round(now - lease.shown_at, 1) if lease else None
            self._record(self._answer_entry(who, number, self.form.value(answer, order), order=order, seconds=seconds))
            return True

    def judge(self, who: str, number: int, value: float) -> None:
        """Keep the label that a program, called `who`, gives to a question."""
        with self._changed:
            self._record(self._answer_entry(who, number, value))

    def _answer_entry(self, who, number, value, **more):
        when = time.strftime('%Y-%m-%dT%H:%M:%SZ', time.gmtime(self._clock()))
        return dict(kind='answer', question=number, who=who, value=value, when=when, **more)

    def skip(self, who: str, number: int) -> None:
        """Do not show a person this question again; others may answer it."""
        with self._changed:
            if not 0 <= number < len(self.questions):
                raise ValueError('no such question')
            if number not in self._passed.get(who, set()):
                self._record(dict(kind='skip', question=number, who=who))

    def undo(self, who: str) -> bool:
        """Take back a person's last answer or skip, and keep its question for them; False if there is none."""
        with self._changed:
            if not self._acts.get(who):
                return False
            line = self._acts[who][-1]
            number = self._journal.entries[line]['question']
            self._record(dict(kind='undo', line=line, who=who))
            for leases in self._leases.values():
                leases.pop(who, None)
            now = self._clock()
            if self._has_room(number, who, now):
                self._leases.setdefault(number, {})[who] = Lease(now, now + LEASE_SECONDS)
            return True

    def progress(self, who: str) -> Progress:
        """How far everybody is, and this person."""
        with self._changed:
            acts = [self._journal.entries[line] for line in self._acts.get(who, [])]
            times = [act['seconds'] for act in acts if act.get('seconds') is not None]
            own = sum(act['kind'] == 'answer' for act in acts)
            return Progress(self.num_answers, self.wanted, own, statistics.median(times) if times else None)

    @property
    def num_answers(self) -> int:
        with self._changed:
            return sum(map(len, self._answers))

    @property
    def asked(self) -> int:
        """Answers that the questions there are ask for."""
        with self._changed:
            return sum(question.people for question in self.questions)

    @property
    def expected(self) -> int:
        """The same, without those questions that lack answers and that somebody has skipped."""
        with self._changed:
            lacking = [n for n in self._skipped if n in self._open]
            return self.asked - sum(self.questions[n].people - len(self._answers[n]) for n in lacking)

    @property
    def wanted(self) -> int:
        """Answers that all planned questions together ask for."""
        with self._changed:
            to_come = range(len(self.questions), self._planned)
            return self.asked + sum(self._people if overlaps(number, self._overlap) else 1 for number in to_come)

    def unanswered(self) -> List[Question]:
        """The questions that lack answers."""
        with self._changed:
            return [self.questions[number] for number in self._open]

    @property
    def is_complete(self) -> bool:
        """Whether every planned question is there and has all its answers."""
        with self._changed:
            return self.all_asked() and not self._open

    def plan(self, questions: int) -> None:
        """Say how many questions there will be in all."""
        with self._changed:
            self._planned = questions

    def all_asked(self) -> bool:
        """Whether no question is still to come."""
        with self._changed:
            return len(self.questions) >= self._planned

    def wait(self, done: Callable[[], bool], seconds: float) -> bool:
        """Wait until `done` says so after a change, or for at most `seconds`; what `done` says then."""
        with self._changed:
            return self._changed.wait_for(done, timeout=seconds)

    def labels(self) -> List[Dict[str, Any]]:
        """One entry of a label file for each answer, in the order in which the answers came."""
        with self._changed:
            found = sorted((line, number) for number, answers in enumerate(self._answers) for line in answers)
            entries = []
            for line, number in found:
                question = self.questions[number]
                value = self._journal.entries[line]['value']
                entries.append(self.form.entry(question.query, question.samples, value))
            return entries

    def values_by_question(self) -> List[List[float]]:
        """The answers to each question, as the values of their labels."""
        with self._changed:
            return [[answer['value'] for answer in answers.values()] for answers in self._answers]

    def write_labels(self) -> None:
        """Write the label file anew, unless it is up to date."""
        with self._changed:
            if self.is_saved:
                return
            labels, self.is_saved = self.labels(), True
        try:
            write_json(self.labels_path, labels, indent=None)
        except BaseException:
            self.is_saved = False
            raise

    def close(self) -> None:
        self._journal.close()

    def _record(self, *entries):
        first = len(self._journal.entries)
        self._journal.append(*entries)
        for line, entry in enumerate(entries, start=first):
            self._apply(line, entry)
        self.is_saved = False
        self._changed.notify_all()

    def _apply(self, line, entry):
        """Change the state as an entry of the journal says."""
        kind = entry['kind']
        if kind == 'question':
            number = len(self.questions)
            self.questions.append(Question(number, entry['query'], entry['samples'], entry['people']))
            self._answers.append({})
            self._open[number] = None
            self.place = entry.get('place', 0)
        elif kind in ('answer', 'skip'):
            number, who = entry['question'], entry['who']
            if kind == 'answer':
                self._answers[number][line] = entry
                if len(self._answers[number]) >= self.questions[number].people:
                    self._open.pop(number, None)
            else:
                self._skipped.add(number)
            self._acts.setdefault(who, []).append(line)
            self._passed.setdefault(who, set()).add(number)
            if kind == 'answer' and number not in self._open:
                self._leases.pop(number, None)
            else:
                self._leases.get(number, {}).pop(who, None)
        elif kind == 'undo':
            number, who = self._journal.entries[entry['line']]['question'], entry['who']
            self._acts[who].remove(entry['line'])
            self._passed[who].discard(number)
            if self._answers[number].pop(entry['line'], None) is not None:
                self._open = dict.fromkeys(sorted([number, *self._open]))

    def _has_room(self, number, who, now):
        """Whether a question wants more answers than it has, or will have from those who are busy with it."""
        others = [name for name, lease in self._leases.get(number, {}).items() if lease.expires > now and name != who]
        return len(self._answers[number]) + len(others) < self.questions[number].people
