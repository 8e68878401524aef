"""The command `report`: write one HTML page about runs, which needs no network to view."""

import os
from typing import List, Optional

from lm_human_preferences.hyperparameters import ReportHParams
from lm_human_preferences.remote.cache import expanded_home
from lm_human_preferences.reporting.page import render
from lm_human_preferences.reporting.run_data import find_runs
from lm_human_preferences.runs.run_folder import REPORT_FILE
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.progress import say


def report(hparams: ReportHParams) -> None:
    """Write the page that `hparams` ask for, and print its path."""
    say(write_report(hparams.runs, hparams.out))


def write_report(folders: List[str], path: Optional[str] = None) -> str:
    """Write the report of run folders, or of folders that hold runs; return its absolute path.

    If `path` is None, the report of one folder is written into it, and that of several into the current folder.
    FileNotFoundError for a folder without a run.
    """
    if path is None:
        path = os.path.join(folders[0], REPORT_FILE) if len(folders) == 1 else REPORT_FILE
    path = os.path.abspath(expanded_home(path))
    page = render(find_runs(folders))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with written_whole(path) as file:
        file.write(page)
    return path
