"""Which of the lines that a language model wrote are kept as text to learn from."""

import os
import re
import sys
from typing import List, Sequence, Set

sys.path.insert(0, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))

from lm_human_preferences.evaluation.texts import ngrams  # noqa: E402

FEWEST_WORDS, MOST_WORDS = 5, 40
COPIED_WORDS = 8  # so many words in a row that a known text has, too, are a copy


def words_of(text: str) -> List[str]:
    """Return the words of a text in small letters, without punctuation. A hyphen parts words."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


class Filter:
    """Which lines are kept."""

    def __init__(self, known: Sequence[str]):
        """`known` are the texts whose copies are left out."""
        self._copies: Set[tuple] = {run for text in known for run in ngrams(words_of(text), COPIED_WORDS)}
        self._seen = {' '.join(words_of(text)) for text in known}

    def is_kept(self, line: str) -> bool:
        """Whether a line is of good length and ASCII, repeats no three words, and is neither known nor kept already."""
        words = words_of(line)
        key = ' '.join(words)
        threes = ngrams(words, 3)
        if (
            not FEWEST_WORDS <= len(words) <= MOST_WORDS
            or not re.fullmatch(r'[ -~]+', line)
            or len(set(threes)) < len(threes)
            or any(first == second for first, second in zip(words, words[1:]))
            or key in self._seen
            or any(run in self._copies for run in ngrams(words, COPIED_WORDS))
        ):
            return False
        self._seen.add(key)
        return True
