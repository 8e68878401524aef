"""Sampling responses: tokens per second against batch, and time per token against how many came before.

    python benchmarks/sampling.py --model 124M --batches 8 64
    python benchmarks/sampling.py --against CHECKOUT      # another checkout of this repository, in turn

A token of a small batch costs the reading of all weights: the last column is at which rate they are read, and the line
below the table at which rate this machine reads memory.
"""

import statistics

import numpy as np
from limits import read_rate
from measuring import (
    ROOT,
    figures_of,
    json_line,
    model_size,
    parser,
    peak_gigabytes,
    seconds,
    start_ranks,
    table,
)

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams
from lm_human_preferences.language.encodings import test_encoding
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.mpi.ranks import Ranks


def time_responses(flags, ranks: Ranks, batch: int, response: int) -> float:
    """Seconds to sample responses of a length to a batch of queries, which the ranks share."""
    model, random = model_size(flags.model), np.random.RandomState(0)
    share = ranks.share(batch)
    queries = random.randint(0, model.n_vocab, [share, flags.query]).astype(np.int32)
    uniforms = random.random_sample([share, response]).astype(np.float32)
    other_type = {} if flags.dtype == 'float32' else {'dtype': flags.dtype}  # which first checkouts do not know
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        task = Task(TaskHParams(query_length=flags.query, response_length=response), test_encoding())
        task.padding_token = model.n_vocab + 2
        policy = Policy(model, task, **other_type)
        feed = {tf.placeholder(tf.int32, queries.shape): queries, tf.placeholder(tf.float32, uniforms.shape): uniforms}
        responded = policy.respond(*feed)
        session.run(tf.global_variables_initializer())
        return seconds(lambda: session.run(responded, feed), flags.repeats, ranks=ranks)


def weight_bytes(model: ModelHParams, dtype: str) -> float:
    """What sampling a token reads: the blocks' matrices in `dtype`, and the output head's in float32."""
    blocks = model.n_layer * 12 * model.n_embd**2 * (2 if dtype == 'bfloat16' else 4)
    return float(blocks + 4 * model.n_vocab * model.n_embd)


def compare(flags) -> None:
    """Print the seconds of another checkout and of this one, pair by pair."""
    rows = []
    for batch in flags.batches:
        same = [
            f'--{name}={getattr(flags, name)}' for name in ('model', 'query', 'response', 'dtype', 'repeats', 'ranks')
        ]
        command = ['sampling.py', *same, f'--batches={batch}', f'--lengths={flags.response}', '--json']
        pairs = []
        for _ in range(flags.pairs):
            figures = [figures_of(*command, checkout=checkout) for checkout in (flags.against, ROOT)]
            pairs.append([pair[f'{batch}/{flags.response}']['seconds'] for pair in figures])
        ratios = [theirs / ours for theirs, ours in pairs]
        medians = [statistics.median(column) for column in zip(*pairs)]
        rows.append([batch, *medians, statistics.median(ratios), f'{min(ratios):.2f} to {max(ratios):.2f}'])
    table(['batch', f'{flags.against}, s', 'this checkout, s', 'times as fast', 'pairs'], rows)


def main() -> None:
    flags = parser(__doc__, ranks=1)
    flags.add_argument('--batches', type=int, nargs='+', default=[8, 64])
    flags.add_argument('--lengths', type=int, nargs='+', default=[24, 48, 96], help='of responses, for the first batch')
    flags.add_argument('--against', help='another checkout')
    flags.add_argument('--pairs', type=int, default=3, help='with another checkout')
    flags = flags.parse_args()
    if flags.against:
        compare(flags)
        return
    ranks = start_ranks(flags.ranks)
    model, rows, figures = model_size(flags.model), [], {}
    cases = [(batch, flags.response) for batch in flags.batches]
    cases += [(flags.batches[0], length) for length in flags.lengths if length != flags.response]
    weights = weight_bytes(model, flags.dtype)
    for batch, response in cases:
        first = time_responses(flags, ranks, batch, 1)
        whole = time_responses(flags, ranks, batch, response)
        later = (whole - first) / (response - 1)
        rows.append([batch, response, whole, batch * response / whole, first, 1000 * later, weights / later / 1e9])
        figures[f'{batch}/{response}'] = dict(seconds=whole, first=first, later=later)
    columns = [
        'batch',
        'response',
        'seconds',
        'tokens/s',
        'first token, s',
        'later tokens, ms each',
        'weights read, GB/s',
    ]
    table(columns, rows)
    print(
        f'TensorFlow {tf.__version__}, {flags.dtype}; peak memory {peak_gigabytes():.2f} GB; '
        f'{weights / 1e9:.2f} GB of weights, memory is read at {read_rate() / 1e9:.0f} GB/s'
    )
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
