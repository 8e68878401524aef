"""The figures of a run's evaluations: `evaluation.json` in its folder."""

import os
from typing import Any, Dict, Optional

from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.json_files import read_json

RESULTS_FILE = 'evaluation.json'


def read_results(folder: str) -> Dict[str, Any]:
    """The figures of a run's evaluations so far; none where there was no evaluation."""
    path = os.path.join(folder, RESULTS_FILE)
    if not os.path.exists(path):
        return {}
    results = read_json(path)
    if not isinstance(results, dict):
        raise ValueError(f'{path} should hold a JSON object, not {type(results).__name__}')
    return results


def save_results(folder: Optional[str], **sections: Dict[str, Any]) -> None:
    """Add sections to the figures in a folder, in place of earlier ones of the same name; None: nowhere."""
    if folder is None:
        return
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, RESULTS_FILE), {**read_results(folder), **sections})
