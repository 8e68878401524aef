"""Samples of a run on disk, token by token: what a report shows of the policy before and after.

A line of the file is one response as JSON: `policy` (whose it is), `index` (the same for all policies' responses to a
query), `query`, `score`, `scored` (how many tokens are scored: the rest is after the end), and for each token `tokens`
(its text), `logprobs` under the policy and `ref_logprobs` under the initial policy.
"""

import json
import os
from typing import Any, Dict, List, Sequence

from lm_human_preferences.utils.files import written_whole

SAMPLES_FILE = 'samples.jsonl'  # of training: the first batch's queries, before and after
HELD_OUT_FILE = 'evaluation_samples.jsonl'  # of an evaluation: held-out queries


def keep_samples(folder: str, rows: Sequence[Dict[str, Any]]) -> None:
    """Write samples of one policy into a run's folder, beside those of other policies to these queries."""
    path = os.path.join(folder, SAMPLES_FILE)
    others = [row for row in read_samples(path) if row['policy'] != rows[0]['policy']]
    write_samples(path, others + list(rows))


def write_samples(path: str, rows: Sequence[Dict[str, Any]]) -> None:
    """Write the file anew; OSError where that is not possible."""
    with written_whole(path) as file:
        file.writelines(json.dumps(row, sort_keys=True) + '\n' for row in rows)


def read_samples(path: str) -> List[Dict[str, Any]]:
    """The lines of the file; none where there is no such file."""
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
