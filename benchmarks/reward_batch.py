"""Time one step of reward training on best_of_N labels, against the same step computed naively.

    python benchmarks/reward_batch.py --model 124M --batch 8 --samples 4

The naive graph reads each sample with its own copy of the query, at all positions of all blocks. Our graph reads a
query once, and its samples branch off it. Columns: `graph`, median `seconds` of a step, `labels/s`. The line below has
the median ratio and its range over pairs, the ratio of arithmetic, both losses of the first step, and peak memory.
"""

import contextlib

import numpy as np
from measuring import (
    forward_flops,
    json_line,
    model_size,
    parser,
    peak_gigabytes,
    random_task,
    seconds,
    start_ranks,
    table,
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
        model, random, share = model_size(flags.model), np.random.RandomState(ranks.rank), ranks.share(flags.batch)
        with tf.Graph().as_default() as graph:
            tf.set_random_seed(0)
            task = random_task(hparams.task, model)
            self.trainer = RewardTrainer(hparams, task, model, ranks)
            self.session = new_session(graph, ranks.threads())
            self.session.run([v.initializer for v in tf.global_variables() if not v.name.startswith('ref_policy')])
        lengths = dict(query=flags.query, **{f'sample{i}': flags.response for i in range(flags.samples)})
        self.labels = {
            name: random.randint(0, model.n_vocab, [share, length]).astype(np.int32) for name, length in lengths.items()
        }
        self.labels['best'] = random.randint(0, flags.samples, [share]).astype(np.int32)

    def step(self):
        with self.session.as_default():
            return self.trainer.step(self.labels, 1e-6)


def main() -> None:
    flags = parser(__doc__, ranks=1)
    flags.add_argument('--samples', type=int, default=4, help='samples of each label')
    flags.add_argument('--naive', action='store_true', help='only the naive graph, to measure its memory')
    flags = flags.parse_args()
    ranks = start_ranks(flags.ranks)
    if flags.naive:
        with naive():
            spent = seconds(Bench(flags, ranks).step, flags.repeats, ranks=ranks)
        print(f'naive: {spent:.3g} s, peak memory {peak_gigabytes():.2f} GB')
        return
    ours = Bench(flags, ranks)
    losses = [ours.step()['loss']]
    memory = peak_gigabytes()
    with naive():
        theirs = Bench(flags, ranks)
    losses.append(theirs.step()['loss'])
    pairs = [[seconds(bench.step, 1, warm_up=0, ranks=ranks) for bench in (theirs, ours)] for _ in range(flags.repeats)]
    naive_time, our_time = (float(np.median(column)) for column in zip(*pairs))
    ratios = [slow / fast for slow, fast in pairs]
    model, together = model_size(flags.model), flags.query + flags.samples * flags.response
    fraction = forward_flops(model, 1, together) / forward_flops(model, flags.samples, flags.query + flags.response)
    table(
        ['graph', 'seconds', 'labels/s'],
        [['naive', naive_time, flags.batch / naive_time], ['query shared', our_time, flags.batch / our_time]],
    )
    print(
        f'{np.median(ratios):.2f} times as fast ({min(ratios):.2f} to {max(ratios):.2f}; the arithmetic gives '
        f'{1 / fraction:.2f}); losses of the first step {losses[0]:.6f} and {losses[1]:.6f}; '
        f'peak memory {memory:.2f} GB'
    )
    if flags.json:
        json_line(dict(naive=naive_time, shared=our_time, ratios=ratios, peak_gigabytes=memory))


if __name__ == '__main__':
    main()
