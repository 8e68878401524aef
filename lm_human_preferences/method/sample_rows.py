"""A policy's responses, token by token, as the rows of a samples file (runs/samples.py)."""

from typing import Dict, List, Sequence

import numpy as np

from lm_human_preferences.language.encodings import Encoding

KEPT = 16


def sample_rows(policy: str, rollout: Dict[str, np.ndarray], encoding: Encoding, count: int = KEPT) -> List[Dict]:
    """Return the first `count` responses of a rollout as rows of a samples file.

    Args:
      policy: the name of the policy that responded.
      rollout: queries [n, query_length], scores [n], and responses, truncated, logprobs and ref_logprobs, each
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


def token_texts(encoding: Encoding, tokens: Sequence[int]) -> List[str]:
    """Return the text of each token. A character that several tokens spell is the text of the last of them."""
    texts, pending = [], []
    for token in tokens:
        pending.append(int(token))
        text = encoding.decode(pending)
        whole = not text.endswith('\ufffd') or len(pending) == 4  # a character has at most four bytes in UTF-8
        texts.append(text if whole else '')
        pending = [] if whole else pending
    return texts
