"""What the label page asks for each label type, and how a choice on the page becomes a label.

The page shows the samples of a question in shuffled order. It offers at most nine answers, one for each digit key.
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
"""Instructions for people, by the name of the experiment or data set."""


class Form(NamedTuple):
    """What a label type asks about the samples called `sample_names`. The answer becomes the label's `field`."""

    label_type: str
    field: str
    sample_names: Sequence[str]
    ask: str  # the question in a few words
    answers: Sequence[str]  # the texts of the answers, in the order of their keys
    picks_sample: bool  # whether each answer selects one of the samples

    def value(self, answer: int, order: Sequence[int]) -> Value:
        """Return the label for the answer with index `answer`. The page showed sample `order[i]` at place i."""
        if self.picks_sample:
            return order[answer]
        if self.field == 'score':
            return answer + 1
        second_over_first = answer - len(self.answers) // 2
        return second_over_first if list(order) == [0, 1] else -second_over_first

    def entry(self, query: Sequence[int], samples: Sequence[Sequence[int]], value: Value) -> dict:
        """Return one entry of a label file."""
        return {'query': query, self.field: value, **dict(zip(self.sample_names, samples))}


def get_form(label_type: str, scale: int = 5) -> Form:
    """Return the form of a label type: best_of_N (N from 2 to 9), scalar_rating (1 to `scale`), or scalar_compare.

    ValueError for another label type.
    """
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
    """Return how often two people agree if they answer at random."""
    return 1 / len(form.answers)


def read_instructions(name_or_path: str) -> List[str]:
    """Return the paragraphs of the instructions with this name, or of a text file.

    ValueError if the file is not UTF-8 text.
    """
    text = INSTRUCTIONS.get(name_or_path)
    if text is None:
        text = files.read_text(name_or_path)
    return [' '.join(part.split()) for part in re.split(r'\n\s*\n', text) if part.strip()]
