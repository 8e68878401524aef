"""Time one PPO step after warm-up, phase by phase, against the limit of this machine's matrix products.

    python benchmarks/ppo_step.py --model 124M --batch 8 --query 64 --response 24
    python benchmarks/ppo_step.py --phases sample --batch 64
    python benchmarks/ppo_step.py --growth      # time and memory over batch, response length and model size

Weights and queries are random. Columns: `phase`; `seconds`, the median; `limit`, the seconds that the necessary
arithmetic takes alone (logits only at the response) at the rate that `limits.py` measures in the same process; `of the
limit`, seconds / limit; `response tokens/s`. With several ranks, which share the batch, the limit is that of one rank.

With --growth each row is a case in its own process, with its arithmetic in TFLOP. The line below gives the exponent
with which time grows with arithmetic.
"""

import sys
import time
from typing import Dict, Sequence, Tuple

import numpy as np
from limits import matmul_rate
from measuring import (
    PHASES,
    figures_of,
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
from lm_human_preferences.hyperparameters import TaskHParams, TrainPolicyHParams
from lm_human_preferences.method.ppo import Rollouts, token_rewards
from lm_human_preferences.method.ppo_trainer import PPOTrainer
from lm_human_preferences.mpi.ranks import Ranks


def hyperparameters(flags) -> TrainPolicyHParams:
    """Return hyperparameters with one minibatch, the whole batch, for `flags.epochs` epochs."""
    hparams = TrainPolicyHParams(
        task=TaskHParams(query_length=flags.query, response_length=flags.response, query_dataset='test')
    )
    hparams.ppo.batch_size = flags.batch
    hparams.ppo.noptepochs = flags.epochs
    hparams.ppo.whiten_rewards = flags.batch >= 8
    if flags.dtype != 'float32':
        hparams.run.dtype = flags.dtype
    return hparams


class Bench:
    """A PPO trainer with random weights in a session, and a method for each phase."""

    def __init__(self, flags, session: tf.Session, ranks: Ranks):
        self.session = session
        hparams = hyperparameters(flags)
        model = model_size(flags.model)
        task = random_task(hparams.task, model)
        start = time.perf_counter()
        self.trainer = PPOTrainer(hparams, task, model, model, ranks)
        self.build_seconds = time.perf_counter() - start
        start = time.perf_counter()
        models = [self.trainer.policy.model, self.trainer.ref_policy.model, self.trainer.reward_model.model]
        loaded = [variable for model in models for variable in model.variables.values()]
        session.run(tf.variables_initializer(loaded))
        session.run(tf.variables_initializer([v for v in tf.global_variables() if v not in loaded]))  # as in a run
        self.initialize_seconds = time.perf_counter() - start
        ranks.broadcast_variables(session, tf.global_variables())
        random = np.random.RandomState(ranks.rank)
        self.queries = random.randint(0, model.n_vocab, [self.trainer.batch, flags.query]).astype(np.int32)
        self.uniforms = random.random_sample([self.trainer.batch, flags.response]).astype(np.float32)
        self.rollout = self.trainer.rollout(self.queries, self.uniforms)
        rewards, _ = token_rewards(
            self.rollout['logprobs'], self.rollout['ref_logprobs'], self.rollout['scores'], kl_coef=0.1
        )
        self.episodes = Rollouts(
            self.queries, self.rollout['responses'], self.rollout['logprobs'], self.rollout['values'], rewards
        )

    def sample(self):
        names = ['responses', 'logprobs', 'values']
        self._fetch(names, {self.trainer._uniforms: self.uniforms})

    def reference(self):
        self._fetch(['ref_logprobs'], self._given('responses'))

    def score(self):
        self._fetch(['scores'], self._given('responses'))

    def train(self):
        self.trainer.train_on(self.episodes, 1e-6, np.random.RandomState(0))

    def _given(self, name):
        return {self.trainer._rollout[name]: self.rollout[name]}

    def _fetch(self, names, feed):
        outputs = [self.trainer._rollout[name] for name in names]
        feed[self.trainer._queries] = self.queries
        self.session.run(outputs, feed)

    def step(self):
        self.trainer.rollout(self.queries, self.uniforms)
        self.train()


def phase_flops(flags, batch: int) -> Dict[str, float]:
    """Return the necessary arithmetic of each phase; a backward pass is twice its forward pass.

    Only the reward model reads the last token of a response: the policy predicts nothing after it.
    """
    model, tokens = model_size(flags.model), flags.query + flags.response
    with_logits = forward_flops(model, batch, tokens - 1, flags.response)
    return dict(
        sample=with_logits,
        reference=with_logits,
        score=forward_flops(model, batch, tokens),
        train=flags.epochs * 3 * with_logits,
    )


def measure(flags, ranks: Ranks) -> Dict[str, object]:
    """Return the seconds of each phase and of the step, their limits, and memory."""
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        bench = Bench(flags, session, ranks)
        phases = {name: seconds(getattr(bench, name), flags.repeats, ranks=ranks) for name in flags.phases}
        whole = len(phases) == len(PHASES)
        step = seconds(bench.step, flags.repeats, warm_up=0, ranks=ranks) if whole else sum(phases.values())
        memory = peak_gigabytes()
    model, batch = model_size(flags.model), ranks.share(flags.batch)
    rate = matmul_rate(model, batch * (flags.query + flags.response), batch * flags.response, flags.dtype, ranks)
    return dict(
        model=flags.model,
        batch=flags.batch,
        query=flags.query,
        response=flags.response,
        epochs=flags.epochs,
        dtype=flags.dtype,
        ranks=ranks.size,
        tensorflow=tf.__version__,
        phases=phases,
        step=step,
        gflops=rate / 1e9,
        limits={name: flops / rate for name, flops in phase_flops(flags, batch).items() if name in phases},
        build=bench.build_seconds,
        initialize=bench.initialize_seconds,
        peak_gigabytes=memory,
    )


def report(figures: Dict[str, object]) -> None:
    """Print the phases as a table."""
    tokens = figures['batch'] * figures['response']
    limits = dict(figures['limits'], step=sum(figures['limits'].values()))
    rows = [
        [name, spent, limits[name], spent / limits[name], tokens / spent]
        for name, spent in list(figures['phases'].items()) + [('step', figures['step'])]
    ]
    table(['phase', 'seconds', 'limit', 'of the limit', 'response tokens/s'], rows)
    per_rank = f', each of {figures["ranks"]} ranks' if figures['ranks'] > 1 else ''
    print(
        f'TensorFlow {figures["tensorflow"]}, {figures["dtype"]}{per_rank}: '
        f'matrix products {figures["gflops"]:.0f} GFLOP/s; peak memory {figures["peak_gigabytes"]:.2f} GB; '
        f'graph built in {figures["build"]:.1f} s, variables initialized in {figures["initialize"]:.1f} s'
    )


def growth(arguments) -> None:
    """Print time and memory of a step for series of cases, each in its own process, and the exponents of growth."""
    series = [('batch', [8, 16, 32, 64]), ('response', [12, 24, 48, 96]), ('model', ['124M', '355M'])]
    rows, exponents = [], []
    for flag, settings in series:
        measured = []
        for setting in settings:
            figures = figures_of('ppo_step.py', *arguments, f'--{flag}={setting}', '--repeats=1', '--json')
            limit, step, peak = sum(figures['limits'].values()), figures['step'], figures['peak_gigabytes']
            arithmetic = limit * figures['gflops'] / 1000
            rows.append([f'{flag} {setting}', arithmetic, limit, step, step / limit, peak])
            measured.append((arithmetic, step))
            done = f'{flag} {setting}: {arithmetic:.2f} TFLOP, limit {limit:.1f} s, step {step:.1f} s, {peak:.2f} GB'
            print(done, file=sys.stderr, flush=True)
        exponents.append(f'{flag} {growth_exponent(measured):.2f}')
    table(['case', 'TFLOP', 'limit, s', 'step, s', 'of the limit', 'peak GB'], rows)
    print(f'seconds grow with TFLOP to the power of: {", ".join(exponents)}')


def growth_exponent(measured: Sequence[Tuple[float, float]]) -> float:
    """Return the exponent of the power law that fits pairs (size, time), by least squares of their logarithms."""
    sizes, times = np.log(np.array(measured)).T
    return float(np.polyfit(sizes, times, 1)[0])


def main() -> None:
    flags = parser(__doc__, ranks=1)
    flags.add_argument('--epochs', type=int, default=4, help='updates on the minibatch')
    flags.add_argument('--phases', nargs='+', choices=PHASES, default=list(PHASES), help='phases to time')
    flags.add_argument('--growth', action='store_true', help='a table of several cases')
    given = flags.parse_args()
    if given.growth:
        growth([argument for argument in sys.argv[1:] if argument not in ('--growth', '--json')])
        return
    figures = measure(given, start_ranks(given.ranks))
    report(figures)
    if given.json:
        json_line(figures)


if __name__ == '__main__':
    main()
