"""Sample responses of a run, in JSON lines: a report shows them token by token.

Each line is one response, with these fields:
    policy        the name of the policy that responded
    index         the number of the query, the same for all policies
    query         its text
    score         of the reward model
    scored        the number of tokens that were scored; the rest comes after the end of the response
    tokens        the text of each token
    logprobs      of each token under the policy
    ref_logprobs  of each token under the initial policy
"""

import json
import os
from typing import Any, Dict, List, Sequence

from lm_human_preferences.runs.run_folder import SAMPLES_FILE
from lm_human_preferences.utils.files import written_whole


def keep_samples(folder: str, rows: Sequence[Dict[str, Any]]) -> None:
    """Write the samples of one policy into a run's folder. Samples of other policies stay there."""
    path = os.path.join(folder, SAMPLES_FILE)
    others = [row for row in read_samples(path) if row['policy'] != rows[0]['policy']]
    write_samples(path, others + list(rows))


def write_samples(path: str, rows: Sequence[Dict[str, Any]]) -> None:
    """Write `rows` to the file at `path`, and replace an older one. OSError if it cannot be written."""
    with written_whole(path) as file:
        file.writelines(json.dumps(row, sort_keys=True) + '\n' for row in rows)


def read_samples(path: str) -> List[Dict[str, Any]]:
    """Return the lines of the file; none if there is no such file. ValueError for a line that is not JSON."""
    if not os.path.exists(path):
        return []
    rows = []
    with open(path, 'rb') as file:
        for number, line in enumerate(file, start=1):
            try:
                if line.strip():
                    rows.append(json.loads(line.decode('utf-8')))
            except (ValueError, RecursionError):
                raise ValueError(f'{path}: line {number}: not JSON') from None
    return rows
