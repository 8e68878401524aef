"""The state of a collection of labels: questions, answers, and who passed which question.

The journal is the only source of this state. `JournalState.apply` takes its entries one by one, in order. There are
four kinds: `question`, `answer`, `skip` and `undo`. An `undo` names the line of the entry that it takes back.
"""

from typing import Any, Dict, Iterator, List, NamedTuple, Set, Tuple

from lm_human_preferences.runs.journal import Entry


class Question(NamedTuple):
    """One question and how many people must answer it; `number` counts the questions of a collection from 0."""

    number: int
    query: List[int]
    samples: List[List[int]]
    people: int


class JournalState:
    """What the entries of a journal add up to."""

    def __init__(self):
        self.questions: List[Question] = []
        self.open: Dict[int, None] = {}  # the numbers of the questions that need more answers, in order
        self.position = 0  # of the last question's query in its data set
        self._answers: List[Dict[int, Entry]] = []  # of each question, by their lines in the journal
        self._acts: Dict[str, Dict[int, Entry]] = {}  # each person's answers and skips, without those taken back
        self._passed: Dict[str, Set[int]] = {}  # the questions that each person has answered or skipped
        self._skipped: Set[int] = set()  # questions that anybody has ever skipped

    def apply(self, line: int, entry: Entry) -> None:
        """Change the state by one entry of the journal, whose line (from 0) is `line`.

        KeyError, IndexError or TypeError if the entry does not fit the entries before it.
        """
        kind = entry['kind']
        if kind == 'question':
            self._add_question(entry)
        elif kind == 'answer':
            self._add_answer(line, entry)
        elif kind == 'skip':
            self._skipped.add(entry['question'])
            self._add_act(line, entry)
        elif kind == 'undo':
            self._take_back(entry['line'], entry['who'])

    def answers(self, number: int) -> List[Entry]:
        """Return the answers to a question, in the order in which they came."""
        return list(self._answers[number].values())

    def all_answers(self) -> Iterator[Tuple[Question, Any]]:
        """Give the question and the value of each answer, in the order in which the answers came."""
        lines = sorted((line, number) for number, answers in enumerate(self._answers) for line in answers)
        for line, number in lines:
            yield self.questions[number], self._answers[number][line]['value']

    def acts(self, who: str) -> Dict[int, Entry]:
        """Return a person's answers and skips by their lines, oldest first, without those taken back."""
        return self._acts.get(who, {})

    def has_answered(self, who: str, number: int) -> bool:
        """Return whether this person's answer to the question counts."""
        return any(answer['who'] == who for answer in self._answers[number].values())

    def has_passed(self, who: str, number: int) -> bool:
        """Return whether this person answered or skipped the question."""
        return number in self._passed.get(who, ())

    @property
    def num_answers(self) -> int:
        """The answers to all questions."""
        return sum(map(len, self._answers))

    def num_missing(self, number: int) -> int:
        """Return how many more answers a question needs."""
        return self.questions[number].people - len(self._answers[number])

    def num_missing_of_skipped(self) -> int:
        """Return how many answers are missing from questions that anybody skipped."""
        return sum(self.num_missing(number) for number in self._skipped if number in self.open)

    def _add_question(self, entry):
        number = len(self.questions)
        self.questions.append(Question(number, entry['query'], entry['samples'], entry['people']))
        self._answers.append({})
        self.open[number] = None
        self.position = entry.get('place', 0)

    def _add_answer(self, line, entry):
        number = entry['question']
        self._answers[number][line] = entry
        if self.num_missing(number) <= 0:
            self.open.pop(number, None)
        self._add_act(line, entry)

    def _add_act(self, line, entry):
        who = entry['who']
        self._acts.setdefault(who, {})[line] = entry
        self._passed.setdefault(who, set()).add(entry['question'])

    def _take_back(self, line, who):
        number = self._acts[who].pop(line)['question']
        self._passed[who].discard(number)
        if self._answers[number].pop(line, None) is not None:
            self.open = dict.fromkeys(sorted([number, *self.open]))
