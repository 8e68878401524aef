"""Write what runs show as one HTML page: curves, figures, samples and hyperparameters, with nothing to fetch."""

import os
from typing import List

from lm_human_preferences.hyperparameters import ReportHParams
from lm_human_preferences.reporting.page import render
from lm_human_preferences.reporting.runs import find_runs
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.progress import say

REPORT_FILE = 'report.html'


def report(hparams: ReportHParams) -> None:
    """Write the page that `hparams` ask for, and say where it is."""
    path = hparams.out
    if path is None:
        path = os.path.join(hparams.runs[0], REPORT_FILE) if len(hparams.runs) == 1 else REPORT_FILE
    write_report(hparams.runs, path)
    say(path)


def write_report(folders: List[str], path: str) -> None:
    """Write the report of run folders, or of the folders of sweeps. FileNotFoundError for a folder without a run."""
    page = render(find_runs(folders))
    with written_whole(path) as file:
        file.write(page)
