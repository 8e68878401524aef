"""What a person is asked, for each type of label, and how the place of a choice on the page becomes a label.

Every form shows the samples of a question in an order of its own and offers up to nine answers, one a key.
"""

import re
from typing import List, NamedTuple, Sequence, Union

from lm_human_preferences.hyperparameters import best_of
from lm_human_preferences.utils import files

Value = Union[int, float]

INSTRUCTIONS = {
    'sentiment': 'The best continuation is the one with the most positive sentiment: the happiest and warmest.',
    'descriptiveness': 'The best continuation is the most vividly descriptive one: it paints the scene.',
    'cnndm': 'The best summary of the article is accurate, says what matters most, and is short and well written.',
    'tldr': 'The best summary of the post is accurate, says what matters most, and is short and well written.',
    'demo': 'The best continuation is the one that speaks most positively of the film.',
}
"""Instructions by the name of an experiment or data set."""


class Form(NamedTuple):
    """The question that a label type asks, over `sample_names`, to be answered by the label's `field`."""

    label_type: str
    field: str
    sample_names: Sequence[str]
    ask: str  # the question in a few words
    answers: Sequence[str]  # what the answers say, in the order of their keys
    picks_sample: bool  # whether an answer is the choice of one of the samples shown

    def value(self, answer: int, order: Sequence[int]) -> Value:
        """The label of the answer at place `answer`, the sample `order[i]` having been shown at place i."""
        if self.picks_sample:
            return order[answer]
        if self.field == 'score':
            return answer + 1
        second_over_first = answer - len(self.answers) // 2
        return second_over_first if list(order) == [0, 1] else -second_over_first

    def entry(self, query: Sequence[int], samples: Sequence[Sequence[int]], value: Value) -> dict:
        """One entry of a label file."""
        return {'query': query, self.field: value, **dict(zip(self.sample_names, samples))}


def get_form(label_type: str, scale: int = 5) -> Form:
    """The form of a label type, best_of_N (N up to 9), scalar_rating from 1 to `scale`, or scalar_compare."""
    if label_type == 'scalar_rating':
        answers = [str(score) for score in range(1, scale + 1)]
        ask = f'How good is it, from 1 (worst) to {scale} (best)?'
        return Form(label_type, 'score', ['sample'], ask, answers, False)
    if label_type == 'scalar_compare':
        answers = ['A is much better', 'A is better', 'about the same', 'B is better', 'B is much better']
        return Form(label_type, 'difference', ['sample0', 'sample1'], 'Which is better?', answers, False)
    samples = best_of(label_type)
    if samples is None or samples > 9:
        raise ValueError(f'type must be best_of_N (N from 2 to 9), scalar_rating or scalar_compare, not {label_type!r}')
    names = [f'sample{i}' for i in range(samples)]
    return Form(label_type, 'best', names, 'Which is best?', [str(i + 1) for i in range(len(names))], True)


def agreement_by_chance(form: Form) -> float:
    """How often two people who answer at random agree."""
    return 1 / len(form.answers)


def read_instructions(name_or_path: str) -> List[str]:
    """The paragraphs of the instructions called so, or of a text file; ValueError for one that is not UTF-8."""
    text = INSTRUCTIONS.get(name_or_path)
    if text is None:
        text = files.read_text(name_or_path)
    return [' '.join(part.split()) for part in re.split(r'\n\s*\n', text) if part.strip()]
