"""Time one PPO step after warm-up, phase by phase, against the limit of this machine's matrix products.

    python benchmarks/ppo_step.py --model 124M --batch 8 --query 64 --response 24
    python benchmarks/ppo_step.py --phases sample --batch 64
    python benchmarks/ppo_step.py --growth      # time and memory over batch, response length and model size
    python benchmarks/ppo_step.py --real 0.75   # a quarter of the tokens of the batch is padding (see ragged.py)
    python benchmarks/ppo_step.py --shares 0.4 0.55 0.7 0.85 --epochs 1   # time by share of real tokens

Weights and queries are random. Columns: `phase`; `real`, the share of real tokens in what it reads; `seconds`, the
median; `limit`, the seconds that the necessary arithmetic takes alone (real tokens, and logits only at the response) at
the rate that `limits.py` measures in the same process; `of the limit`, seconds / limit; `response tokens/s`. With
several ranks, which share the batch, the limit is that of one rank.

With --growth each row is a case in its own process, with its arithmetic in TFLOP. The line below gives the exponent
with which time grows with arithmetic.

With --shares the phases run on batches of each share in turn. `prefill` is the pass over the queries, with which
sampling begins. Columns: `real`; wall and processor `seconds`; both as a share of those of full rows, median over the
turns; the same ratio of the necessary arithmetic; and `real + 0.06`, which the time should not exceed.
"""

import argparse
import functools
import sys
import time
from typing import Dict, Sequence, Tuple

import numpy as np
import ragged
from limits import matmul_rate
from measuring import (
    PHASES,
    SHARE_COLUMNS,
    Case,
    figures_of,
    forward_flops,
    full_last,
    json_line,
    model_size,
    parser,
    peak_gigabytes,
    random_task,
    rows_by_share,
    start_ranks,
    table,
    wall_and_processor,
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
        self.batch = ragged.episodes(flags, ranks.share(flags.batch), model.n_vocab, seed=ranks.rank)
        task = random_task(hparams.task, model)
        task.truncate = self.truncate
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
        self.uniforms = random.random_sample([self.trainer.batch, flags.response]).astype(np.float32)
        self.rollout = self.trainer.rollout(self.batch.queries, self.uniforms)
        self.rewards, _ = token_rewards(
            self.rollout['logprobs'], self.rollout['ref_logprobs'], self.rollout['scores'], kl_coef=0.1
        )

    def truncate(self, responses):
        """Do what the task does, but end each response at the length that the batch has for it."""
        kept = tf.sequence_mask(self.batch.scored_lengths, self.batch.response)
        truncated = tf.where(kept, responses, tf.fill(tf.shape(responses), self.batch.padding))
        return truncated, tf.ones(tf.shape(responses)[:1], tf.bool)

    def add_prefill(self):
        """Add the pass over the queries alone to the graph."""
        policy, task = self.trainer.policy, self.trainer.task
        states = policy.model(task.context(self.trainer._queries), task.padding_token, read=[task.context_length - 1])
        made = [states.hidden, *(array for layer in states.past.keys_values for array in layer)]
        self._prefill = [array.op for array in made]

    def prefill(self):
        self.session.run(self._prefill, {self.trainer._queries: self.batch.queries})

    def sample(self):
        names = ['responses', 'logprobs', 'values']
        self._fetch(names, {self.trainer._uniforms: self.uniforms})

    def reference(self):
        self._fetch(['ref_logprobs'], {self.trainer._rollout['responses']: self.rollout['responses']})

    def score(self):
        responses = self.rollout['responses']
        self._fetch(['scores'], {self.trainer._rollout['truncated']: self.batch.truncated(responses)})

    def train(self):
        given = [self.rollout[name] for name in ('responses', 'logprobs', 'values')]
        self.trainer.train_on(Rollouts(self.batch.queries, *given, self.rewards), 1e-6, np.random.RandomState(0))

    def _fetch(self, names, feed):
        outputs = [self.trainer._rollout[name] for name in names]
        feed[self.trainer._queries] = self.batch.queries
        self.session.run(outputs, feed)

    def step(self):
        self.trainer.rollout(self.batch.queries, self.uniforms)
        self.train()


def phase_flops(flags, batch: ragged.Episodes) -> Dict[str, float]:
    """Return the necessary arithmetic of each phase; a backward pass is twice its forward pass.

    Only the reward model reads the last token of a response: the policy predicts nothing after it.
    """
    model = model_size(flags.model)
    whole, scored = batch.query_lengths + flags.response, batch.query_lengths + batch.scored_lengths
    with_logits = sum(forward_flops(model, 1, int(tokens) - 1, flags.response) for tokens in whole)
    return dict(
        prefill=sum(forward_flops(model, 1, int(tokens)) for tokens in batch.query_lengths),
        sample=with_logits,
        reference=with_logits,
        score=sum(forward_flops(model, 1, int(tokens)) for tokens in scored),
        train=flags.epochs * 3 * with_logits,
    )


def measure(flags, ranks: Ranks) -> Dict[str, object]:
    """Return the seconds of each phase and of the step, their limits, and memory."""
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        bench = Bench(flags, session, ranks)
        spent = {name: wall_and_processor(getattr(bench, name), flags.repeats, ranks=ranks) for name in flags.phases}
        if len(spent) == len(PHASES):
            spent['step'] = wall_and_processor(bench.step, flags.repeats, warm_up=0, ranks=ranks)
        else:
            spent['step'] = tuple(map(sum, zip(*spent.values())))
        memory = peak_gigabytes()
    batch, rows = bench.batch, len(bench.batch.queries)
    tokens = int(batch.query_lengths.sum()) + rows * flags.response
    rate = matmul_rate(model_size(flags.model), tokens, rows * flags.response, flags.dtype, ranks)
    return dict(
        model=flags.model,
        batch=flags.batch,
        query=flags.query,
        response=flags.response,
        epochs=flags.epochs,
        dtype=flags.dtype,
        ranks=ranks.size,
        tensorflow=tf.__version__,
        batch_checksum=batch.checksum(),
        real=batch.shares(),
        seconds={name: wall for name, (wall, _) in spent.items()},
        processor={name: processor for name, (_, processor) in spent.items()},
        gflops=rate / 1e9,
        limits={name: flops / rate for name, flops in phase_flops(flags, batch).items() if name in spent},
        build=bench.build_seconds,
        initialize=bench.initialize_seconds,
        peak_gigabytes=memory,
    )


def report(figures: Dict[str, object]) -> None:
    """Print the phases as a table."""
    tokens = figures['batch'] * figures['response']
    limits, real = dict(figures['limits'], step=sum(figures['limits'].values())), figures['real']
    rows = [
        [name, real[name], spent, limits[name], spent / limits[name], tokens / spent]
        for name, spent in figures['seconds'].items()
    ]
    table(['phase', 'real', 'seconds', 'limit', 'of the limit', 'response tokens/s'], rows)
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
            limit, step, peak = sum(figures['limits'].values()), figures['seconds']['step'], figures['peak_gigabytes']
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


def by_share(flags, ranks: Ranks) -> None:
    """Print the time of each phase by the share of real tokens, compared with full rows."""

    def with_share(share):
        return argparse.Namespace(**dict(vars(flags), real=share))

    vocabulary, number = model_size(flags.model).n_vocab, ranks.share(flags.batch)
    batches = [ragged.episodes(with_share(share), number, vocabulary, ranks.rank) for share in full_last(flags.shares)]
    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        bench = Bench(with_share(1.0), session, ranks)
        bench.add_prefill()

        def run(phase, batch):
            bench.batch = batch
            getattr(bench, phase)()

        rows = []
        for phase in ['prefill', *(phase for phase in flags.phases if phase != 'sample')]:
            cases = [
                Case(batch.shares()[phase], phase_flops(flags, batch)[phase], functools.partial(run, phase, batch))
                for batch in batches
            ]
            rows += rows_by_share(phase, cases, flags.repeats)
    table(SHARE_COLUMNS, rows)
    print(f'TensorFlow {tf.__version__}, {flags.model}, {flags.dtype}, {flags.query} + {flags.response} tokens')


def main() -> None:
    flags = parser(__doc__, ranks=1, real=1.0)
    ragged.add_shares(flags)
    flags.add_argument('--epochs', type=int, default=4, help='updates on the minibatch')
    flags.add_argument('--phases', nargs='+', choices=PHASES, default=list(PHASES), help='phases to time')
    flags.add_argument('--growth', action='store_true', help='a table of several cases')
    given = flags.parse_args()
    if given.growth:
        growth([argument for argument in sys.argv[1:] if argument not in ('--growth', '--json')])
        return
    ragged.check(given)
    if given.shares:
        by_share(given, start_ranks(given.ranks))
        return
    figures = measure(given, start_ranks(given.ranks))
    report(figures)
    if given.json:
        json_line(figures)


if __name__ == '__main__':
    main()
