"""Time the sampling of responses: tokens per second by batch size, and time per token by response length.

    python benchmarks/sampling.py --model 124M --batches 8 64
    python benchmarks/sampling.py --real 0.7              # of the tokens of the queries are no padding
    python benchmarks/sampling.py --against CHECKOUT      # compare with another checkout of this repository

Columns: `batch`; `response`, its length; median `seconds` of all tokens; `tokens/s` of the batch; `first token, s`,
which includes reading the query; `later tokens, ms each`; and `weights read, GB/s`, the rate at which weights are read
for the later tokens. With a small batch that rate is the limit: the line below the table says how fast this machine
reads memory. With --against the columns are the seconds of both checkouts in turn, their median ratio and its range;
then the same of processor seconds, which matter where other programs use the machine.
"""

from typing import Tuple

import numpy as np
import ragged
from limits import read_rate
from measuring import (
    ROOT,
    comparison,
    figures_of,
    json_line,
    model_size,
    parser,
    peak_gigabytes,
    random_task,
    start_ranks,
    table,
    wall_and_processor,
)

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.mpi.ranks import Ranks


def time_responses(flags, ranks: Ranks, batch: int, response: int) -> Tuple[float, float]:
    """Return the seconds and this rank's processor seconds to sample `response` tokens for each of a batch of queries.

    The ranks share the batch.
    """
    model, random = model_size(flags.model), np.random.RandomState(0)
    share = ranks.share(batch)
    queries = random.randint(0, model.n_vocab, [share, flags.query])
    queries = ragged.pad(queries, ragged.lengths(random, share, flags.query, flags.real), model.n_vocab + 2)
    uniforms = random.random_sample([share, response]).astype(np.float32)
    other_type = {} if flags.dtype == 'float32' else {'dtype': flags.dtype}  # the first checkouts have no such argument
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        task = random_task(TaskHParams(query_length=flags.query, response_length=response), model)
        policy = Policy(model, task, **other_type)
        feed = {tf.placeholder(tf.int32, queries.shape): queries, tf.placeholder(tf.float32, uniforms.shape): uniforms}
        responded = policy.respond(*feed)
        session.run(tf.global_variables_initializer())
        return wall_and_processor(lambda: session.run(responded, feed), flags.repeats, ranks=ranks)


def weight_bytes(model: ModelHParams, dtype: str) -> float:
    """Return the bytes of weights that a token reads: the matrices of the blocks and of the output head."""
    numbers = model.n_layer * 12 * model.n_embd**2 + model.n_vocab * model.n_embd
    return float(numbers * (2 if dtype == 'bfloat16' else 4))


def compare(flags) -> None:
    """Print a table that compares another checkout with this one."""
    rows = []
    for batch in flags.batches:
        same = [
            f'--{name}={getattr(flags, name)}'
            for name in ('model', 'query', 'response', 'dtype', 'repeats', 'ranks', 'real')
        ]
        command = ['sampling.py', *same, f'--batches={batch}', f'--lengths={flags.response}', '--json']
        pairs = []
        for _ in range(flags.pairs):
            figures = [figures_of(*command, checkout=checkout) for checkout in (flags.against, ROOT)]
            pairs.append([figure[f'{batch}/{flags.response}'] for figure in figures])
        row = [batch]
        for clock in ('seconds', 'processor'):
            row += comparison(*([figure[clock] for figure in side] for side in zip(*pairs)))
        rows.append(row)
    columns = ['then', 'now', 'times as fast', 'range']
    table(['batch', *[f'{clock}: {column}' for clock in ('seconds', 'processor s') for column in columns]], rows)


def main() -> None:
    flags = parser(__doc__, ranks=1, real=1.0)
    flags.add_argument('--batches', type=int, nargs='+', default=[8, 64])
    flags.add_argument('--lengths', type=int, nargs='+', default=[24, 48, 96], help='of responses, for the first batch')
    flags.add_argument('--against', help='folder of another checkout')
    flags.add_argument('--pairs', type=int, default=3, help='pairs of runs with --against')
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
        first, _ = time_responses(flags, ranks, batch, 1)
        whole, processor = time_responses(flags, ranks, batch, response)
        later = (whole - first) / (response - 1)
        rows.append([batch, response, whole, batch * response / whole, first, 1000 * later, weights / later / 1e9])
        figures[f'{batch}/{response}'] = dict(seconds=whole, processor=processor, first=first, later=later)
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
        f'TensorFlow {tf.__version__}, {flags.dtype}; {flags.real:.2f} of the tokens of the queries are real; '
        f'peak memory {peak_gigabytes():.2f} GB; '
        f'{weights / 1e9:.2f} GB of weights, memory is read at {read_rate() / 1e9:.0f} GB/s'
    )
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
