"""The overlap of collectives with computation is read from a trace."""

import json
import os
import subprocess
import sys

import pytest
from repository import ROOT

from lm_human_preferences.graph.tf_versions import tf


def test_the_overlap_of_a_trace():
    from exchange import overlap

    trace = tf.RunMetadata()
    spans = [
        ('model/MatMul', 0, 10),
        ('gradients/model/MatMul_grad/MatMul', 10, 20),
        ('PyFunc', 25, 45),  # two stretches of it while others run: 25 to 30 and 40 to 45
        ('gradients/model/MatMul_1_grad/MatMul', 20, 30),
        ('gradients/model/MatMul_2_grad/MatMul_1', 40, 50),
        ('PyFunc_1', 44, 60),
        ('model/Adam', 60, 70),
    ]
    devices = [trace.step_stats.dev_stats.add(), trace.step_stats.dev_stats.add()]
    for number, (name, start, end) in enumerate(spans):
        node = devices[number % 2].node_stats.add(node_name=name, all_start_micros=1000)
        node.op_start_rel_micros, node.op_end_rel_micros = start, end
    figures = {name: round(value * 1e6) for name, value in overlap(trace).items()}
    assert figures == {'step': 70, 'backward': 40, 'to come': 25, 'collectives': 35, 'while computing': 15}


@pytest.mark.slow
def test_two_ranks_exchange_while_they_compute():
    command = [sys.executable, os.path.join(ROOT, 'benchmarks', 'exchange.py'), '--model=tiny', '--repeats=1']
    said = subprocess.run([*command, '--backward', '--json'], check=True, stdout=subprocess.PIPE).stdout.decode()
    figures = json.loads(said.splitlines()[-1])
    assert figures['bytes'] == 4 * (512 * 64 + 128 * 64 + 2 * (12 * 64**2 + 13 * 64) + 2 * 64)
    assert figures['collectives'] > 0 and figures['processor_seconds'] > 0
