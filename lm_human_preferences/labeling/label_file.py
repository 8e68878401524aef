"""The label file of a collection: one entry for each answer, in the format that `labels.source` reads."""

import threading
from typing import Any, Dict, List

from lm_human_preferences.labeling.forms import Form
from lm_human_preferences.labeling.journal_state import JournalState
from lm_human_preferences.utils.files import write_json


def label_entries(state: JournalState, form: Form) -> List[Dict[str, Any]]:
    """Return the entries of the label file, in the order in which the answers came."""
    return [form.entry(question.query, question.samples, value) for question, value in state.all_answers()]


class LabelFile:
    """The file at `path`, and how many entries the journal had when it was written."""

    def __init__(self, path: str):
        self.path = path
        self._writing = threading.Lock()
        self._num_entries = 0  # not written yet

    def is_current(self, num_entries: int) -> bool:
        """Return whether the file was written when the journal had this many entries."""
        return self._num_entries == num_entries

    def write(self, labels: List[Dict[str, Any]], num_entries: int) -> None:
        """Replace the file by the labels of the journal's first `num_entries` entries, unless it is newer."""
        with self._writing:
            if num_entries > self._num_entries:
                write_json(self.path, labels, indent=None)
                self._num_entries = num_entries
