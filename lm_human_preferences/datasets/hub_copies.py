"""Copies of published texts on the Hugging Face hub, for when the places of 2019 do not have them."""

import functools
from typing import Callable, Optional, Sequence

from lm_human_preferences.remote.failures import RemoteError
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.progress import note


class Cleaned(Sequence):
    """Texts that are cleaned when they are indexed."""

    def __init__(self, texts: Sequence[str], clean: Callable[[str], str]):
        self._texts = texts
        self._clean = clean

    def __len__(self) -> int:
        return len(self._texts)

    def __getitem__(self, index: int) -> str:
        return self._clean(self._texts[index])


def published_or_copy(
    published: Callable[[], Sequence[Optional[str]]], copy: Callable[[], Sequence[Optional[str]]], title: str
) -> Sequence[Optional[str]]:
    """Return the published texts, or their copy on the hub if they can neither be found nor fetched.

    If both fail, the error is of the type of the first one and says both.
    """
    try:
        return published()
    except RemoteError as failure:
        try:
            texts = copy()
        except (RemoteError, UserError, ImportError) as error:
            raise type(failure)(f'{failure}. The copy on the hub: {error}') from None
        _note_copy(title)
        return texts


@functools.lru_cache(maxsize=None)  # one note for each data set
def _note_copy(title: str) -> None:
    note(f'note: {title}: its texts are read from the copy on the hub, as their place of 2019 does not give them')
