"""The state of a collection of labels: questions, answers, and who passed which question.

The journal is the only source of this state. `JournalState.apply` takes its entries one by one, in order. After the
settings there are four kinds: `question`, `answer`, `skip` and `undo`. An `undo` names the line of the entry that it
takes back. A person's answer counts until the same person answers or skips that question again.
"""

import math
from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

from lm_human_preferences.runs.journal import SETTINGS, Entry
from lm_human_preferences.utils.errors import short


class Question(NamedTuple):
    """One question and how many people must answer it; `number` counts the questions of a collection from 0."""

    number: int
    query: List[int]
    samples: List[List[int]]
    people: int


class Answer(NamedTuple):
    """A person's answer that counts: its line in the journal, and that of their first answer to this question."""

    entry: Entry
    line: int
    first_line: int


class JournalState:
    """What the entries of a journal add up to."""

    def __init__(self):
        self.questions: List[Question] = []
        self.open: Dict[int, None] = {}  # the numbers of the questions that need more answers, in order
        self.position = 0  # of the last question's query in its data set
        self.num_answers = 0  # to all questions
        self._answers: List[Dict[str, Answer]] = []  # of each question, by person
        self._acts: Dict[str, Dict[int, Entry]] = {}  # each person's answers and skips, without those taken back
        self._passed: Dict[str, Set[int]] = {}  # the questions that each person has answered or skipped
        self._skipped: Set[int] = set()  # questions that anybody has ever skipped

    def apply(self, line: int, entry: Entry) -> None:
        """Change the state by one entry of the journal, whose line (from 0) is `line`.

        ValueError, with the reason, if the entry does not fit the entries before it. The state is then as before.
        """
        kind = entry.get('kind')
        if kind == 'question':
            self._add_question(entry)
        elif kind == 'answer':
            value, seconds = entry.get('value'), entry.get('seconds')
            _require(_is_number(value), 'value', value)
            _require(seconds is None or _is_number(seconds), 'seconds', seconds)
            self._add_answer(line, entry, self._number(entry), _who(entry))
        elif kind == 'skip':
            number, who = self._number(entry), _who(entry)
            self._remove_answer(number, who)
            self._skipped.add(number)
            self._add_act(line, entry, number, who)
        elif kind == 'undo':
            self._take_back(entry.get('line'), _who(entry))
        else:
            _require(kind == SETTINGS and line == 0, 'kind', kind)

    def answers(self, number: int) -> List[Entry]:
        """Return the answers to a question, in the order in which they came."""
        return [answer.entry for answer in sorted(self._answers[number].values(), key=_place)]

    def all_answers(self) -> Iterator[Tuple[Question, Any]]:
        """Give the question and the value of each answer, in the order in which the answers came.

        An answer that was changed stays at the place of the first one.
        """
        places = [(answer, number) for number, answers in enumerate(self._answers) for answer in answers.values()]
        for answer, number in sorted(places, key=lambda place: _place(place[0])):
            yield self.questions[number], answer.entry['value']

    def acts(self, who: str) -> Dict[int, Entry]:
        """Return a person's answers and skips by their lines, oldest first, without those taken back or replaced."""
        return self._acts.get(who, {})

    def has_answered(self, who: str, number: int) -> bool:
        """Return whether an answer of this person to the question counts."""
        return who in self._answers[number]

    def value(self, who: str, number: int) -> Any:
        """Return the value of this person's answer to the question. KeyError if there is none."""
        return self._answers[number][who].entry['value']

    def has_passed(self, who: str, number: int) -> bool:
        """Return whether this person answered or skipped the question."""
        return number in self._passed.get(who, ())

    def num_missing(self, number: int) -> int:
        """Return how many more answers a question needs."""
        return self.questions[number].people - len(self._answers[number])

    def num_missing_of_skipped(self) -> int:
        """Return how many answers are missing from questions that anybody skipped."""
        return sum(self.num_missing(number) for number in self._skipped if number in self.open)

    def _number(self, entry):
        number = entry.get('question')
        _require(_is_whole(number) and 0 <= number < len(self.questions), 'question', number)
        return number

    def _add_question(self, entry):
        number = len(self.questions)
        query, samples, people, place = (entry.get(name) for name in ('query', 'samples', 'people', 'place'))
        _require(_are_tokens(query), 'query', query)
        _require(isinstance(samples, list) and bool(samples) and all(map(_are_tokens, samples)), 'samples', samples)
        _require(_is_whole(people) and people > 0, 'people', people)
        _require(place is None or _is_whole(place) and place >= 0, 'place', place)
        self.questions.append(Question(number, query, samples, people))
        self._answers.append({})
        self.open[number] = None
        self.position = place or 0

    def _add_answer(self, line, entry, number, who):
        before = self._remove_answer(number, who)
        self._answers[number][who] = Answer(entry, line, before.first_line if before else line)
        self.num_answers += 1
        if self.num_missing(number) <= 0:
            self.open.pop(number, None)
        self._add_act(line, entry, number, who)

    def _add_act(self, line, entry, number, who):
        self._acts.setdefault(who, {})[line] = entry
        self._passed.setdefault(who, set()).add(number)

    def _remove_answer(self, number, who):
        """Remove a person's answer to a question, and return it; None if there is none."""
        answer = self._answers[number].pop(who, None)
        if answer is not None:
            self.num_answers -= 1
            self._acts[who].pop(answer.line)
            if self.num_missing(number) > 0:
                self.open = dict.fromkeys(sorted([number, *self.open]))
        return answer

    def _take_back(self, line, who):
        acts = self._acts.get(who, {})
        _require(_is_whole(line) and line in acts, 'line', line)
        number = acts[line]['question']
        if acts[line]['kind'] == 'answer':
            self._remove_answer(number, who)
        else:
            acts.pop(line)
        self._passed[who].discard(number)


def _place(answer: Answer) -> int:
    return answer.first_line


def _who(entry: Entry) -> str:
    who = entry.get('who')
    _require(isinstance(who, str), 'who', who)
    return who


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _are_tokens(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole, value))


def _require(fits: bool, field: str, value: Any) -> None:
    if not fits:
        raise ValueError(f'field {field!r}: {short(value)}')
