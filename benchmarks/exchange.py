"""Measure the exchange of gradients between ranks: its processor seconds, and how much of it the backward pass hides.

    python benchmarks/exchange.py                  # 124M on two ranks
    python benchmarks/exchange.py --backward       # … and a trace of training steps: does the exchange overlap?

The first table is of the exchange alone. Its processor seconds are those of one rank, with all its threads, waits for
the other rank included. The second one is of a whole step of `train_lm`, from a trace: seconds of the backward pass,
how many of these were still to come when the first collective began, seconds in which collectives ran, and in how many
of these the same rank also computed.
"""

import os
import re
from typing import Dict

import numpy as np
from measuring import (  # first: it makes the package importable
    json_line,
    model_size,
    parser,
    start_ranks,
    table,
    time_call,
)

from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TrainLmHParams
from lm_human_preferences.language.model import variable_shapes
from lm_human_preferences.method.lm_trainer import LmTrainer
from lm_human_preferences.mpi.collectives import average_gradients


def exchange_alone(flags, ranks):
    """Return seconds and processor seconds of averaging gradients of the model's shapes, and their bytes."""
    with tf.Graph().as_default() as graph, new_session(graph, flags.threads) as session:
        tf.set_random_seed(ranks.rank)
        shapes = variable_shapes(model_size(flags.model))
        specs = {name: VariableSpec(shape, stddev=1.0) for name, shape in shapes.items()}
        gradients = [variable.read_value() for variable in create_variables(specs).values()]
        averaged = tf.group(*average_gradients(gradients, ranks))
        session.run(tf.global_variables_initializer())
        times = []
        for _ in range(1 + flags.repeats):
            ranks.wait_for_all()
            times.append(time_call(lambda: session.run(averaged)))
    size = sum(4 * int(np.prod(shape)) for shape in shapes.values())
    return [*np.median(times[1:], axis=0).tolist(), size]


def traced_step(flags, ranks):
    """Return the figures of `overlap` of a training step."""
    hparams = TrainLmHParams(batch_size=flags.batch * ranks.size, sequence_length=flags.query)
    with tf.Graph().as_default() as graph, new_session(graph, flags.threads) as session:
        trainer = LmTrainer(hparams, model_size(flags.model), ranks)
        session.run(tf.global_variables_initializer())
        random = np.random.RandomState(ranks.rank)
        tokens = random.randint(0, model_size(flags.model).n_vocab, [flags.batch, flags.query + 1])
        feed = {trainer._tokens: tokens, trainer._lr: 1e-5, trainer._dropout_seed: [0, 0]}
        session.run(trainer._train_op, feed)
        ranks.wait_for_all()
        trace = tf.RunMetadata()
        session.run(trainer._train_op, feed, tf.RunOptions(trace_level=tf.RunOptions.FULL_TRACE), trace)
    return overlap(trace)


def overlap(trace: tf.RunMetadata) -> Dict[str, float]:
    """Return the seconds of a traced step by the names of the table's columns."""
    collectives, others, backward = [], [], []
    for device in trace.step_stats.dev_stats:
        for node in device.node_stats:
            start = node.all_start_micros + node.op_start_rel_micros
            end = node.all_start_micros + node.op_end_rel_micros
            (collectives if 'PyFunc' in node.node_name else others).append((start, max(start, end)))
            if re.match(r'gradients/.*MatMul', node.node_name):
                backward.append((start, end))
    both = sum(end - start for end, start in _common(_union(collectives), _union(others)))
    spans = collectives + others
    step = max(end for _, end in spans) - min(start for start, _ in spans)
    begin, end = min(start for start, _ in backward), max(end for _, end in backward)
    microseconds = {
        'step': step,
        'backward': end - begin,
        'to come': max(0, end - min(start for start, _ in collectives)),
        'collectives': sum(end - start for start, end in _union(collectives)),
        'while computing': both,
    }
    return {name: value / 1e6 for name, value in microseconds.items()}


def _union(intervals):
    """Return the union of intervals as disjoint intervals, in order."""
    joined = []
    for start, end in sorted(intervals):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined


def _common(one, two):
    """Return what two lists of disjoint intervals have in common, as pairs of end and start."""
    pairs = ((min(a[1], b[1]), max(a[0], b[0])) for a in one for b in two)
    return [(end, start) for end, start in pairs if end > start]


def main() -> None:
    flags = parser(__doc__, batch=2, ranks=2, repeats=5)
    flags.add_argument('--threads', type=int, default=4, help='threads of each rank')
    flags.add_argument('--backward', action='store_true', help='also trace a training step')
    flags = flags.parse_args()
    ranks = start_ranks(flags.ranks)
    os.environ['LM_HUMAN_PREFERENCES_GRADIENTS'] = 'mpi4py'
    wall, processor, size = exchange_alone(flags, ranks)
    figures = dict(seconds=wall, processor_seconds=processor, bytes=size)
    print(f'{flags.model}, {ranks.size} ranks of {flags.threads} threads on {os.cpu_count()} cores')
    table(['gradients GB', 'exchange s', 'processor s of a rank'], [[size / 2**30, wall, processor]])
    if flags.backward:
        traced = traced_step(flags, ranks)
        figures.update(traced)
        print()
        table([f'{name} s' for name in traced], [list(traced.values())])
    if flags.json:
        json_line(figures)


if __name__ == '__main__':
    main()
