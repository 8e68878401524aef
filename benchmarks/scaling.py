"""Measure time per step and bytes sent with 1, 2 and 4 ranks, and forecast them for 8 and 64 GPUs.

    python benchmarks/scaling.py                # measured on this machine, with mpi4py and, if installed, Horovod
    python benchmarks/scaling.py --model 124M --batch 16 --ranks 1 2 --turns 3
    python benchmarks/scaling.py --forecast     # computed from assumptions, which it prints

A step here is one batch of PPO: sample responses, score them, and one update; the ranks share the batch. Columns:
`ranks`; the `cores` that they share; `gradients by`, the library that averages them; median seconds of rollout, update
and step; `times one core`, the step of one rank on one core divided by this one, median over the turns; `MB sent per
rank` in one update.

The forecast's columns are the seconds of each part of a step, the part that takes longest (`bound by`), and the speed
as a share of N times one GPU.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from typing import Dict, List, NamedTuple, Optional

import numpy as np
from measuring import forward_flops, model_size, random_task, table

from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams, TrainPolicyHParams
from lm_human_preferences.launcher import mpiexec

# Published experiments: tokens of the context, tokens of the response, episodes per batch.
EXPERIMENTS = {'sentiment': (64, 24, 512), 'cnndm': (500, 75, 32)}
EPOCHS = 4


class Machine(NamedTuple):
    """The hardware that the forecast assumes."""

    name: str
    flops: float  # per second, by one GPU in the products of training
    memory: float  # bytes per second that a GPU reads
    inside: float  # bytes per second of gradients between GPUs of a host
    between: float  # bytes per second that a host sends to other hosts
    gpus: int = 8  # per host


MACHINES = [
    Machine('V100, float32, MPI through host memory', 11e12, 0.8e12, 5e9, 3e9),
    Machine('A100, bfloat16, MPI through host memory', 125e12, 1.4e12, 8e9, 12e9),
    Machine('A100, bfloat16, NCCL over NVLink', 125e12, 1.4e12, 200e9, 24e9),
]


def num_parameters(hparams: ModelHParams) -> int:
    """Return the number of parameters of a GPT-2 without heads."""
    width = hparams.n_embd
    blocks = hparams.n_layer * (12 * width**2 + 13 * width)
    return (hparams.n_vocab + hparams.n_ctx) * width + blocks + 2 * width


def forecast(machine: Machine, hparams: ModelHParams, experiment: str, gpus: int) -> Dict[str, float]:
    """Return the seconds of each part of one PPO step."""
    query, response, batch = EXPERIMENTS[experiment]
    episodes, tokens, weights = batch / gpus, query + response, 4 * num_parameters(hparams)
    whole = forward_flops(hparams, 1, tokens, response) * episodes / machine.flops
    # Each token of a response reads all weights, and the keys and values of its episode so far.
    cache = 2 * 4 * hparams.n_layer * hparams.n_embd * (query + response / 2) * episodes
    sampling = response * (weights + cache) / machine.memory + whole
    bandwidth = machine.inside if gpus <= machine.gpus else min(machine.inside, machine.between)
    averaging = EPOCHS * weights * 2 * (gpus - 1) / gpus / bandwidth
    return {'sampling': sampling, 'scoring': 2 * whole, 'updates': EPOCHS * 3 * whole, 'averaging': averaging}


def print_forecast() -> None:
    """Print the forecast with its assumptions."""
    print('A step: sample responses (every token reads all weights and the cache; float32 weights), score them by the')
    print(
        f'reference and the reward model (a forward pass each), {EPOCHS} updates (3 forward passes each); gradients of'
    )
    print('4 bytes a parameter, summed in a ring: each rank sends 2(N-1)/N of them per update. Nothing overlaps.')
    print()
    columns = ['assumed', 'TFLOP/s', 'reads GB/s', 'in a host GB/s', 'between hosts GB/s']
    table(columns, [[m.name, m.flops / 1e12, m.memory / 1e9, m.inside / 1e9, m.between / 1e9] for m in MACHINES])
    print()
    rows = []
    for machine in MACHINES:
        for experiment, (_, _, batch) in EXPERIMENTS.items():
            for size in ('124M', '1558M'):
                hparams = model_size(size)
                alone = sum(forecast(machine, hparams, experiment, 1).values())
                for gpus in (8, 64):
                    if batch < gpus:
                        continue
                    parts = forecast(machine, hparams, experiment, gpus)
                    total = sum(parts.values())
                    bound = max(parts, key=parts.get)
                    sent = EPOCHS * 4 * num_parameters(hparams) * 2 * (gpus - 1) / gpus / 1e9
                    rows.append([machine.name, experiment, size, gpus, sent, *parts.values(), total, bound])
                    rows[-1].append(f'{alone / total / gpus:.0%}')
    names = ['sampling s', 'scoring s', 'updates s', 'averaging s', 'step s', 'bound by', 'of N times one GPU']
    table(['on', 'experiment', 'model', 'GPUs', 'GB sent', *names], rows)


def measure_here(size: str, batch: int, repeats: int) -> None:
    """Time steps as one rank; the first rank prints the results as JSON."""
    from lm_human_preferences.graph.tf_versions import new_session, tf
    from lm_human_preferences.method.ppo import Rollouts
    from lm_human_preferences.method.ppo_trainer import PPOTrainer
    from lm_human_preferences.mpi import collectives
    from lm_human_preferences.mpi.ranks import Ranks

    sent_bytes = []

    class CountingRanks(Ranks):
        """Record the sizes of all arrays that go through mpi4py."""

        def mean_buffers(self, *arrays):
            sent_bytes.extend(array.nbytes for array in arrays)
            return super().mean_buffers(*arrays)

    ranks = CountingRanks()
    backend = collectives.describe(ranks).split(' by ')[-1] if ranks.size > 1 else '-'
    hparams = TrainPolicyHParams(task=TaskHParams(query_length=64, response_length=24, query_dataset='test'))
    hparams.ppo.batch_size = batch
    model = model_size(size)
    task = random_task(hparams.task, model)
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        trainer = PPOTrainer(hparams, task, model, model, ranks)
        session.run(tf.global_variables_initializer())
        ranks.broadcast_variables(session, tf.global_variables())
        random = np.random.RandomState(ranks.rank)
        times = []
        for _ in range(1 + repeats):
            ranks.wait_for_all()
            sent_bytes.clear()
            start = time.perf_counter()
            queries = random.randint(0, model.n_vocab, [trainer.batch, 64])
            rollout = trainer.rollout(queries, random.random_sample([trainer.batch, 24]))
            names = ('queries', 'responses', 'logprobs', 'values', 'logprobs')
            middle = time.perf_counter()
            trainer.update(Rollouts(*(rollout[name] for name in names)), 1e-6)
            times.append((middle - start, time.perf_counter() - middle))
    payload = sum(sent_bytes)
    if 'Horovod' in backend:  # which sends the gradients itself
        payload += sum(4 * v.shape.num_elements() for v in trainer.policy.model.variables.values())
    sent = payload * 2 * (ranks.size - 1) / ranks.size
    if ranks.is_first:
        rollout_seconds, update_seconds = np.median(times[1:], axis=0)
        total = rollout_seconds + update_seconds
        figures = [backend, float(rollout_seconds), float(update_seconds), float(total), sent / 1e6]
        print(json.dumps(figures), flush=True)


class Case(NamedTuple):
    """A number of ranks on a number of cores."""

    ranks: int
    backend: str  # that averages gradients
    cores: int


def run_case(case: Case, flags) -> Optional[list]:
    """Run the steps of a case; return what `measure_here` prints, or None if the backend is not installed."""
    command = [*(mpiexec.ranks_of(case.ranks) if case.ranks > 1 else []), sys.executable, os.path.abspath(__file__)]
    command += ['--rank', f'--model={flags.model}', f'--batch={flags.batch}', f'--repeats={flags.repeats}']
    cores = sorted(os.sched_getaffinity(0))[: case.cores]
    with mpiexec.session() as environment:
        environment['LM_HUMAN_PREFERENCES_GRADIENTS'] = case.backend
        done = subprocess.run(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            preexec_fn=lambda: os.sched_setaffinity(0, cores),
        )
    if done.returncode == 0:
        return json.loads(done.stdout.decode().splitlines()[-1])
    if b'has no Horovod' in done.stderr:
        return None
    sys.exit(done.stderr.decode())


def measure(flags) -> None:
    """Time one rank on one core, and each number of ranks with each backend on all cores, in turn; print a table."""
    if not hasattr(os, 'sched_setaffinity'):
        sys.exit('error: this benchmark keeps processes on cores, which only Linux does')
    all_cores = len(os.sched_getaffinity(0))
    cases = [Case(1, 'mpi4py', 1)]
    for ranks in flags.ranks:
        cases += [Case(ranks, backend, all_cores) for backend in (('mpi4py', 'horovod') if ranks > 1 else ('mpi4py',))]
    cases = list(dict.fromkeys(cases))
    turns = [[run_case(case, flags) for case in cases] for _ in range(flags.turns)]
    rows: List[list] = []
    for case, results in zip(cases, zip(*turns)):
        if None in results:
            continue
        backend, *_, sent = results[0]
        seconds = np.median([result[1:4] for result in results], axis=0).tolist()
        faster = float(np.median([turn[0][3] / result[3] for turn, result in zip(turns, results)]))
        rows.append([case.ranks, case.cores, backend, *seconds, faster, sent])
    print(f'{flags.model}, batch of {flags.batch}, 64 + 24 tokens, median of {flags.turns} turns')
    columns = ['ranks', 'cores', 'gradients by', 'rollout s', 'update s', 'step s', 'times one core']
    table([*columns, 'MB sent per rank'], rows)


def main() -> None:
    flags = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    flags.add_argument('--model', default='tiny')
    flags.add_argument('--batch', type=int, default=32, help='episodes over all ranks')
    flags.add_argument('--ranks', type=int, nargs='+', default=[1, 2, 4])
    flags.add_argument('--repeats', type=int, default=5, help='timed steps after one warm-up')
    flags.add_argument('--turns', type=int, default=1, help='times that all cases are run in turn')
    flags.add_argument('--forecast', action='store_true', help='forecast 8 and 64 GPUs instead of measuring')
    flags.add_argument('--rank', action='store_true', help=argparse.SUPPRESS)
    flags = flags.parse_args()
    if flags.forecast:
        print_forecast()
    elif flags.rank:
        measure_here(flags.model, flags.batch, flags.repeats)
    else:
        measure(flags)


if __name__ == '__main__':
    main()
