"""Texts that cannot be read: a few are passed over, and said; too many end the run.

A data set of single files, such as cnndm, is fetched file by file while a run trains. One file of 300 000 that is
missing must not end the run for ever at the step that draws it.
"""

from typing import Callable, Iterator, Optional, Sequence

from lm_human_preferences.utils.progress import note

# A run ends if more texts are missing than this number, and than this share of all that it has tried to read.
MOST_MISSING = 10
MOST_MISSING_SHARE = 0.01


class MissingText(FileNotFoundError):
    """A text of a data set cannot be read, though the data set names it."""


class TextReader:
    """Reads the texts of a data set by their index, and counts the missing ones."""

    def __init__(self, texts: Sequence[str], dataset: str):
        """
        Args:
          dataset: the name for messages.
        """
        self._texts = texts
        self._dataset = dataset
        self._num_tried = 0
        self._num_missing = 0

    def read(self, index: int, say: Callable[[str], None] = note) -> Optional[str]:
        """Return a text, or None if it is missing. ValueError if too many are missing.

        `say` gets a line for the first missing text, the second, the fourth, the eighth, …, with their number.
        """
        self._num_tried += 1
        try:
            return self._texts[index]
        except MissingText as error:
            self._num_missing += 1
            count = f'{self._num_missing} of {self._num_tried} texts of the data set {self._dataset!r}'
            if self._num_missing > max(MOST_MISSING, MOST_MISSING_SHARE * self._num_tried):
                raise ValueError(f'{count} cannot be read: too many. The last one: {error}') from error
            if self._num_missing & (self._num_missing - 1) == 0:
                say(f'note: passed over {count}. The last one: {error}')
            return None


def readable_texts(texts: Sequence[str], dataset: str) -> Iterator[str]:
    """Yield all texts but the missing ones. ValueError if too many are missing."""
    reader = TextReader(texts, dataset)
    found = (reader.read(index) for index in range(len(texts)))
    return (text for text in found if text is not None)
