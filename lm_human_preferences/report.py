"""Write what runs show as one HTML page: curves, figures, samples and hyperparameters, with nothing to fetch."""

import os
from typing import List, Optional

from lm_human_preferences.hyperparameters import ReportHParams
from lm_human_preferences.reporting.page import render
from lm_human_preferences.reporting.run_data import find_runs
from lm_human_preferences.runs.resuming import REPORT_FILE
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.progress import say


def report(hparams: ReportHParams) -> None:
    """Write the page that `hparams` ask for, and say where it is."""
    say(write_report(hparams.runs, hparams.out))


def write_report(folders: List[str], path: Optional[str] = None) -> str:
    """Write the report of run folders, or of folders that hold runs; returns where it is.

    `path` None: in the run's folder, or for several here. FileNotFoundError for a folder without a run.
    """
    if path is None:
        path = os.path.join(folders[0], REPORT_FILE) if len(folders) == 1 else REPORT_FILE
    path = os.path.abspath(os.path.expanduser(path))
    page = render(find_runs(folders))
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with written_whole(path) as file:
        file.write(page)
    return path
