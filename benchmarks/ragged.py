"""Ragged batches: rows of random tokens of different lengths, padded to a common length.

This module needs neither TensorFlow nor PyTorch, so that ours and all rows of `peers.py` compute on the same batches.

--real SHARE is the mean share of real tokens. In a PPO step it counts a query and its response. A response is sampled
in full, so that all padding is in the query. The reward model scores a response up to its end, which comes after at
least two thirds of its length, as in the published experiments. In labels the query and each sample have this share.
"""

import argparse
import sys
import zlib
from typing import Dict, List, NamedTuple

import numpy as np

SCORED = 5 / 6  # mean share of a response that is scored, where it ends between two thirds and all of its length


class Episodes(NamedTuple):
    """The queries of a PPO step, and where its responses end."""

    queries: np.ndarray  # [batch, query] int32, padded on the right
    query_lengths: np.ndarray  # [batch], real tokens
    scored_lengths: np.ndarray  # [batch], tokens of the response that are scored
    response: int  # tokens of a sampled response
    padding: int  # the padding token

    def shares(self) -> Dict[str, float]:
        """Return the share of real tokens in what each phase of a step reads."""
        batch, query = self.queries.shape
        queries, scored = self.query_lengths.sum(), self.scored_lengths.sum()
        tokens = batch * (query + self.response)
        whole = float((queries + batch * self.response) / tokens)
        score = float((queries + scored) / tokens)
        return dict(
            prefill=float(queries / (batch * query)),
            sample=whole,
            reference=whole,
            score=score,
            train=whole,
            step=whole,
        )

    def truncated(self, responses: np.ndarray) -> np.ndarray:
        """Return responses [batch, response] as they are scored: with padding after their end."""
        return pad(responses, self.scored_lengths, self.padding)

    def checksum(self) -> int:
        """Return a number that differs for other episodes."""
        return checksum(self.queries, self.scored_lengths)


class Labels(NamedTuple):
    """A batch of labels for the reward model."""

    arrays: Dict[str, np.ndarray]  # query, sample0 …, each [batch, length] int32, padded on the right; best, [batch]
    padding: int  # the padding token

    def texts(self) -> List[np.ndarray]:
        """Return the queries and the samples, each [batch, length]."""
        return [array for name, array in self.arrays.items() if name != 'best']

    def text_lengths(self) -> np.ndarray:
        """Return the number of real tokens of each query and of each of its samples, [1 + N, batch]."""
        return np.array([np.sum(text != self.padding, axis=1) for text in self.texts()])

    def share(self) -> float:
        """Return the share of tokens that are real."""
        return float(self.text_lengths().sum() / sum(text.size for text in self.texts()))

    def checksum(self) -> int:
        """Return a number that differs for other labels."""
        return checksum(*self.arrays.values())


def episodes(flags: argparse.Namespace, batch: int, vocabulary: int, seed: int = 0) -> Episodes:
    """Return `batch` random episodes for the lengths and the share of real tokens in `flags`."""
    random, padding = np.random.RandomState(seed), vocabulary + 2
    query_share = (flags.real * (flags.query + flags.response) - flags.response) / flags.query
    tokens = random.randint(0, vocabulary, [batch, flags.query])
    query_lengths = lengths(random, batch, flags.query, query_share)
    scored_lengths = lengths(random, batch, flags.response, max(flags.real, SCORED))
    return Episodes(pad(tokens, query_lengths, padding), query_lengths, scored_lengths, flags.response, padding)


def labels(flags: argparse.Namespace, batch: int, vocabulary: int, seed: int = 0) -> Labels:
    """Return `batch` random labels `best_of_N` for the flags of `reward_batch.py`."""
    random, padding = np.random.RandomState(seed), vocabulary + 2

    def texts(length):
        tokens = random.randint(0, vocabulary, [batch, length])
        return pad(tokens, lengths(random, batch, length, flags.real), padding)

    made = {'query': texts(flags.query)}
    made.update({f'sample{i}': texts(flags.response) for i in range(flags.samples)})
    return Labels(dict(made, best=random.randint(0, flags.samples, [batch]).astype(np.int32)), padding)


def lengths(random: np.random.RandomState, number: int, longest: int, share: float) -> np.ndarray:
    """Return `number` random lengths between 1 and `longest`: even around their mean, `share` of the longest.

    The mean is as near to that as whole tokens allow.
    """
    total = max(number, int(round(number * longest * share)))
    mean = total / number
    spread = min(longest - mean, mean - 1)
    least, most = np.floor(mean - spread), np.ceil(mean + spread)
    drawn = np.round(mean + spread * random.uniform(-1, 1, number)).astype(np.int64)
    while drawn.sum() != total:
        step = 1 if drawn.sum() < total else -1
        possible = np.flatnonzero((drawn + step >= least) & (drawn + step <= most))
        drawn[random.choice(possible)] += step
    return drawn


def pad(tokens: np.ndarray, real: np.ndarray, padding: int) -> np.ndarray:
    """Return tokens [batch, length] with padding after the first `real` [batch] of each row, as int32."""
    return np.where(np.arange(tokens.shape[1]) < real[:, np.newaxis], tokens, padding).astype(np.int32)


def padded_on_the_left(tokens: np.ndarray, padding: int) -> np.ndarray:
    """Return rows of tokens [batch, length] with their padding moved before the real tokens."""
    order = np.argsort(tokens != padding, axis=1, kind='stable')
    return np.take_along_axis(tokens, order, axis=1)


def checksum(*arrays: np.ndarray) -> int:
    """Return a number that differs for other arrays."""
    number = 0
    for array in arrays:
        number = zlib.crc32(np.ascontiguousarray(array, np.int32).tobytes(), number)
    return number


def share(text: str) -> float:
    """Parse a share of real tokens."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value <= 1:
        raise argparse.ArgumentTypeError(f'{text!r} is no share of real tokens: give a number above 0 and at most 1')
    return value


def add_share(flags: argparse.ArgumentParser) -> None:
    """Add the flag --real."""
    flags.add_argument(
        '--real', type=share, default=1.0, metavar='SHARE', help='mean share of real tokens; the others are padding'
    )


def add_shares(flags: argparse.ArgumentParser) -> None:
    """Add the flag --shares."""
    about = 'a table of time by share of real tokens, compared with full rows'
    flags.add_argument('--shares', nargs='+', type=share, metavar='SHARE', help=about)


def check(flags: argparse.Namespace, of_labels: bool = False) -> None:
    """Exit with status 2 and one line if rows of these lengths cannot have the shares in `flags`."""
    shares = [flags.real, *(getattr(flags, 'shares', None) or [])]
    if of_labels:
        least, why = 1 / min(flags.query, flags.response), 'each text has a token'
    else:
        least = (flags.response + 1) / (flags.query + flags.response)
        why = f'a query has a token, and all {flags.response} tokens of a sampled response are real'
    if min(shares) < least:
        allowed = np.ceil(100 * least) / 100
        sys.stderr.write(f'error: a share of {min(shares):g} is too small: {why}; give at least {allowed:.2f}\n')
        sys.exit(2)
