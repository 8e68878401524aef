"""A disk that takes nothing for a while, mostly because it is full: the label page stays and goes on afterwards."""

from typing import Callable

from lm_human_preferences.utils.progress import say


class Disk:
    """Says once when the disk does not take the labels, and once when it does again."""

    def __init__(self):
        self._fault = ''

    def takes(self, write: Callable[[], None]) -> bool:
        """Call `write`, and return whether it wrote. An OSError is said in one line and not raised."""
        try:
            write()
        except OSError as error:
            fault = error.strerror or str(error)
            if fault != self._fault:
                say(f'labels cannot be written now: {fault}. All choices so far are kept. The page goes on when it can')
            self._fault = fault
            return False
        if self._fault:
            say('labels are written again')
        self._fault = ''
        return True
