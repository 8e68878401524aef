"""The results of a run's evaluations, in `evaluation.json`."""

import os
from typing import Any, Dict, Optional

from lm_human_preferences.runs.run_folder import RESULTS_FILE
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.text import shared


def read_results(folder: str) -> Dict[str, Any]:
    """Return the results of a run's evaluations by section; none if it was not evaluated yet.

    ValueError if the file is damaged.
    """
    path = os.path.join(folder, RESULTS_FILE)
    if not os.path.exists(path):
        return {}
    results = read_json(path)
    if not isinstance(results, dict):
        raise ValueError(f'{path} should hold a JSON object, not {type(results).__name__}')
    return results


def save_results(folder: Optional[str], **sections: Dict[str, Any]) -> None:
    """Write sections of results, in place of earlier sections of the same name. Do nothing if `folder` is None."""
    if folder is None:
        return
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, RESULTS_FILE), shared({**read_results(folder), **sections}))
