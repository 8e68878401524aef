"""Time one step of reward training on best_of_N labels, against the same step computed naively.

    python benchmarks/reward_batch.py --model 124M --batch 8 --samples 4
    python benchmarks/reward_batch.py --real 0.7                     # of the tokens are no padding (see ragged.py)
    python benchmarks/reward_batch.py --shares 0.4 0.55 0.7 0.85     # time by share of real tokens

The naive graph reads each sample with its own copy of the query, at all positions of all blocks. Our graph reads a
query once, and its samples branch off it. Columns: `graph`, `real`, the share of real tokens, median `seconds` of a
step, `labels/s`. The line below has the median ratio and its range over pairs, the ratio of arithmetic, both losses of
the first step, and peak memory. With --only a single graph is timed. With --shares the columns are those of
`ppo_step.py --shares`.
"""

import argparse
import contextlib
import functools
from typing import Tuple

import numpy as np
import ragged
from measuring import (
    SHARE_COLUMNS,
    Case,
    forward_flops,
    full_last,
    json_line,
    model_size,
    parser,
    peak_gigabytes,
    random_task,
    rows_by_share,
    seconds,
    start_ranks,
    table,
    wall_and_processor,
)

from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TaskHParams, TrainRewardHParams
from lm_human_preferences.method.reward_trainer import RewardTrainer
from lm_human_preferences.method.rewards import RewardModel
from lm_human_preferences.mpi.ranks import Ranks


def rewards_naively(self: RewardModel, queries: tf.Tensor, samples: tf.Tensor) -> tf.Tensor:
    """Compute the same as `RewardModel.rewards_of_samples`, without sharing the query."""
    n, length = samples.shape.as_list()[1:]
    repeated = tf.reshape(tf.tile(queries[:, tf.newaxis], [1, n, 1]), [-1, queries.shape.as_list()[1]])
    tokens = tf.concat([repeated, tf.reshape(samples, [-1, length])], axis=1)
    last = self.model(tokens, self.padding_token).hidden[:, -1]
    return tf.reshape(self.gain * self.model.scalar_head('reward', last) + self.bias, [-1, n])


@contextlib.contextmanager
def naive():
    """Make the trainers that are built in this block compute rewards naively."""
    ours, RewardModel.rewards_of_samples = RewardModel.rewards_of_samples, rewards_naively
    yield
    RewardModel.rewards_of_samples = ours


class Bench:
    """A reward trainer with random weights in a session of its own."""

    def __init__(self, flags, ranks: Ranks):
        hparams = TrainRewardHParams(
            task=TaskHParams(query_length=flags.query, response_length=flags.response, query_dataset='test'),
            batch_size=flags.batch,
            rollout_batch_size=ranks.size,
        )
        hparams.labels.type = f'best_of_{flags.samples}'
        hparams.run.dtype = flags.dtype
        model = model_size(flags.model)
        with tf.Graph().as_default() as graph:
            tf.set_random_seed(0)
            task = random_task(hparams.task, model)
            self.trainer = RewardTrainer(hparams, task, model, ranks)
            self.session = new_session(graph, ranks.threads())
            self.session.run([v.initializer for v in tf.global_variables() if not v.name.startswith('ref_policy')])
        self.labels = ragged.labels(flags, ranks.share(flags.batch), model.n_vocab, seed=ranks.rank)

    def step(self):
        with self.session.as_default():
            return self.trainer.step(self.labels.arrays, 1e-6)


def necessary_flops(flags, labels: ragged.Labels) -> Tuple[float, float]:
    """Return the arithmetic of a forward pass over the real tokens of labels: our graph's, and the naive one's."""
    model = model_size(flags.model)
    query, *samples = labels.text_lengths()
    ours = sum(forward_flops(model, 1, tokens) for tokens in query + sum(samples))
    return ours, sum(forward_flops(model, 1, tokens) for sample in samples for tokens in query + sample)


def compare(flags, ranks: Ranks) -> None:
    """Print the times of both graphs, run in turn."""
    ours = Bench(flags, ranks)
    losses = [ours.step()['loss']]
    memory = peak_gigabytes()
    with naive():
        theirs = Bench(flags, ranks)
    losses.append(theirs.step()['loss'])
    pairs = [[seconds(bench.step, 1, warm_up=0, ranks=ranks) for bench in (theirs, ours)] for _ in range(flags.repeats)]
    ratios = [slow / fast for slow, fast in pairs]
    naive_time, our_time = (float(np.median(column)) for column in zip(*pairs))
    our_flops, naive_flops = necessary_flops(flags, ours.labels)
    real = ours.labels.share()
    table(
        ['graph', 'real', 'seconds', 'labels/s'],
        [
            ['naive', real, naive_time, flags.batch / naive_time],
            ['query shared', real, our_time, flags.batch / our_time],
        ],
    )
    print(
        f'{np.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}; the arithmetic gives '
        f'{naive_flops / our_flops:.2f}); losses of the first step {losses[0]:.6f} and {losses[1]:.6f}; '
        f'peak memory {memory:.2f} GB'
    )
    if flags.json:
        json_line(dict(naive=naive_time, shared=our_time, ratios=ratios, peak_gigabytes=memory))


def one_graph(flags, ranks: Ranks) -> None:
    """Print the time and the peak memory of one graph alone."""
    with naive() if flags.only == 'naive' else contextlib.nullcontext():
        bench = Bench(flags, ranks)
    wall, processor = wall_and_processor(bench.step, flags.repeats, ranks=ranks)
    figures = dict(
        seconds={'step': wall},
        processor={'step': processor},
        peak_gigabytes=peak_gigabytes(),
        real={'step': bench.labels.share()},
        batch_checksum=bench.labels.checksum(),
    )
    columns = ['graph', 'real', 'seconds', 'peak GB']
    table(columns, [[flags.only, figures['real']['step'], wall, figures['peak_gigabytes']]])
    if flags.json:
        json_line(figures)


def by_share(flags, ranks: Ranks) -> None:
    """Print the time of a step by the share of real tokens, compared with full rows."""
    bench, cases = Bench(flags, ranks), []

    def run(labels):
        bench.labels = labels
        bench.step()

    for share in full_last(flags.shares):
        case = argparse.Namespace(**dict(vars(flags), real=share))
        labels = ragged.labels(case, ranks.share(flags.batch), model_size(flags.model).n_vocab, ranks.rank)
        flops, _ = necessary_flops(flags, labels)
        cases.append(Case(labels.share(), flops, functools.partial(run, labels)))
    table(SHARE_COLUMNS, rows_by_share('reward step', cases, flags.repeats))
    print(
        f'TensorFlow {tf.__version__}, {flags.model}, {flags.dtype}, '
        f'{flags.query} + {flags.samples} × {flags.response} tokens'
    )


def main() -> None:
    flags = parser(__doc__, ranks=1, real=1.0)
    ragged.add_shares(flags)
    flags.add_argument('--samples', type=int, default=4, help='samples of each label')
    flags.add_argument('--only', choices=['naive', 'shared'], help='one graph alone, to measure its memory')
    flags = flags.parse_args()
    ragged.check(flags, of_labels=True)
    ranks = start_ranks(flags.ranks)
    if flags.shares:
        by_share(flags, ranks)
    elif flags.only:
        one_graph(flags, ranks)
    else:
        compare(flags, ranks)


if __name__ == '__main__':
    main()
