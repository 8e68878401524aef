"""Which of the lines that a language model wrote are kept as text to learn from."""

import re
from typing import Iterator, List, Sequence, Set

FEWEST_WORDS, MOST_WORDS = 5, 40
COPIED_WORDS = 8  # so many words in a row that a known text has, too, are a copy


def words_of(text: str) -> List[str]:
    """Return the words of a text in small letters, without punctuation."""
    return re.findall(r"[^\W_]+(?:'[^\W_]+)*", text.lower())


def runs_of(words: Sequence[str], length: int) -> Iterator[str]:
    """Yield every `length` words in a row."""
    return (' '.join(words[i : i + length]) for i in range(len(words) - length + 1))


class Filter:
    """Which lines are kept."""

    def __init__(self, known: Sequence[str]):
        """`known` are the texts whose copies are left out."""
        self._copies: Set[str] = {run for text in known for run in runs_of(words_of(text), COPIED_WORDS)}
        self._seen = {' '.join(words_of(text)) for text in known}

    def is_kept(self, line: str) -> bool:
        """Whether a line is of good length and ASCII, repeats no three words, and is neither known nor kept already."""
        words = words_of(line)
        key = ' '.join(words)
        threes = list(runs_of(words, 3))
        if (
            not FEWEST_WORDS <= len(words) <= MOST_WORDS
            or not re.fullmatch(r'[ -~]+', line)
            or len(set(threes)) < len(threes)
            or any(first == second for first, second in zip(words, words[1:]))
            or key in self._seen
            or any(run in self._copies for run in runs_of(words, COPIED_WORDS))
        ):
            return False
        self._seen.add(key)
        return True
