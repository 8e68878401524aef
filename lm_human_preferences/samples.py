"""Samples of a run on disk, token by token: what a report shows of the policy before and after.

A line of the file is one response as JSON: `policy` (whose it is), `index` (the same for all policies' responses to a
query), `query`, `score`, `scored` (how many tokens are scored: the rest is after the end), and for each token `tokens`
(its text), `logprobs` under the policy and `ref_logprobs` under the initial policy.
"""

import json
import os
from typing import Any, Dict, List, Sequence

import numpy as np

from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.utils.files import written_whole

SAMPLES_FILE = 'samples.jsonl'  # of training: the first batch's queries, before and after
HELD_OUT_FILE = 'evaluation_samples.jsonl'  # of an evaluation: held-out queries
KEPT = 16


def sample_rows(policy: str, rollout: Dict[str, np.ndarray], encoding: Encoding, count: int = KEPT) -> List[Dict]:
    """The first `count` responses of a batch as lines of the file.

    `rollout` has queries [n, query_length], scores [n], and responses, truncated, logprobs and ref_logprobs, each
    [n, response_length].
    """
    rows = []
    for i in range(min(count, len(rollout['queries']))):
        row = dict(
            policy=policy,
            index=i,
            query=encoding.decode(rollout['queries'][i]),
            tokens=token_texts(encoding, rollout['responses'][i]),
            score=round(float(rollout['scores'][i]), 4),
            scored=int(np.sum(rollout['truncated'][i] != encoding.padding_token)),
        )
        for name in ('logprobs', 'ref_logprobs'):
            row[name] = [round(float(value), 4) for value in rollout[name][i]]
        rows.append(row)
    return rows


def keep_samples(folder: str, policy: str, rollout: Dict[str, np.ndarray], encoding: Encoding) -> None:
    """Write the first responses of a rollout into a run's folder, beside those of other policies to these queries."""
    path = os.path.join(folder, SAMPLES_FILE)
    others = [row for row in read_samples(path) if row['policy'] != policy]
    write_samples(path, others + sample_rows(policy, rollout, encoding))


def token_texts(encoding: Encoding, tokens: Sequence[int]) -> List[str]:
    """The text of each token; of a character that several tokens spell, the last of them has it all."""
    texts, pending = [], []
    for token in tokens:
        pending.append(int(token))
        text = encoding.decode(pending)
        whole = not text.endswith('\ufffd') or len(pending) == 4  # UTF-8 has at most four bytes for one
        texts.append(text if whole else '')
        pending = [] if whole else pending
    return texts


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
