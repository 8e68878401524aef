"""Train the demo's policy with several KL coefficients, and print the score that each KL buys.

    python benchmarks/demo_frontier.py SAVE_DIR [COEF …] [--seed N] [--FLAG=VALUE …]

Trains one reward model in SAVE_DIR, and a policy with each coefficient (default 0.03 0.05 0.07 0.12 0.2). A run in
SAVE_DIR that has finished is not trained again, and one that was interrupted goes on. The other flags are passed to
each training of a policy. The policies respond to queries of the split `valid`, since the demo's settings are chosen by
this table. The seed, too, is none of those of `demo_seeds.py`.

The rows "best of n" are there to compare with: the initial policy responds n times, and the reward model picks one of
the responses. The KL of this choice is log n − (n − 1)/n nats. Each response is one that the initial policy wrote, so
these rows show what the reward model's choice can do without any training of the policy.

The last columns are the shares of responses that a judge rates higher than the initial policy's, the distinct words as
a share of the initial policy's, and the responses that end in time.
"""

import argparse
import math
import os
import subprocess
import sys
from typing import Dict

import numpy as np
from measuring import ROOT

from lm_human_preferences.demo import data_set
from lm_human_preferences.evaluation import policies as policy_evaluation
from lm_human_preferences.evaluation.policies import HeldOut, PolicyResponses
from lm_human_preferences.evaluation.tables import aligned
from lm_human_preferences.hyperparameters import EvaluateHParams
from lm_human_preferences.language.run_models import INITIAL, find_policies, run_reward_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.runs.run_folder import RunFolder

BEST_OF = (4, 16, 64)
NOT_EVALUATED = 'extends: demo\nevaluate: null  # on the test split; the policies are compared on the split valid\n'


def launch(save_dir: str, name: str, command: str, *flags: str) -> str:
    """Run a command of launch.py that trains in SAVE_DIR/NAME, or goes on with it; return the folder.

    launch.py itself sees whether the run has finished, can be resumed, or has other settings.
    """
    experiment = os.path.join(save_dir, 'demo_frontier.yaml')
    given = [sys.executable, os.path.join(ROOT, 'launch.py'), command, experiment, name, f'--save_dir={save_dir}']
    subprocess.run([*given, *flags], check=True)
    return os.path.join(save_dir, name)


def best_of(n: int, many: PolicyResponses, count: int, penalty: float) -> PolicyResponses:
    """Return, for each query, the one of n responses that the reward model scores highest.

    Args:
      many: of each query in turn, `count` responses; the first n of them are looked at.
      penalty: the score of a response that does not end in time, as in PPO.
    """
    scores = np.where(many.valid, many.scores['score'], penalty).reshape(-1, count)
    rows = np.arange(len(scores)) * count + scores[:, :n].argmax(axis=1)
    return PolicyResponses(
        texts=[many.texts[row] for row in rows],
        scores={judge: scores[rows] for judge, scores in many.scores.items()},
        **{name: getattr(many, name)[rows] for name in ('responses', 'truncated', 'valid', 'logprobs', 'ref_logprobs')},
    )


def measure(folders: Dict[str, str]) -> dict:
    """Return the figures of the initial policy, the policies in `folders`, and the rows "best of n", by name."""
    hparams, first = EvaluateHParams(), RunFolder(next(iter(folders.values())))
    policies = find_policies([INITIAL, *folders.values()], first)
    policies[1:] = [policy._replace(name=name) for name, policy in zip(folders, policies[1:])]
    initial, reward_model = policies[0], run_reward_model(first)
    task = Task(first.task, initial.trained.encoding())
    held_out = policy_evaluation.held_out_queries(task, 'valid', hparams.num_queries, hparams.seed)

    def respond(policies, held_out, seed):
        given = (task, held_out, hparams.batch_size, seed, data_set.judges())
        return policy_evaluation.respond_and_score(policies, initial.trained, reward_model, *given)

    responses = respond(policies, held_out, hparams.seed)
    count = max(BEST_OF)
    texts = [text for text in held_out.texts for _ in range(count)]
    repeated = HeldOut(np.repeat(held_out.queries, count, axis=0), texts, [None] * len(texts))
    many = respond([initial], repeated, hparams.seed + 1)[INITIAL]
    chosen = {f'best of {n}': best_of(n, many, count, task.hparams.penalty_reward_value) for n in BEST_OF}
    figures = policy_evaluation.metrics({**responses, **chosen}, held_out, task.padding_token)
    for n in BEST_OF:
        figures['policies'][f'best of {n}']['kl'] = math.log(n) - (n - 1) / n
    return figures


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], epilog='Other flags are those of train_policy.'
    )
    parser.add_argument('save_dir', help='folder of the runs; finished runs are not made again')
    parser.add_argument('coefs', type=float, nargs='*', default=[0.03, 0.05, 0.07, 0.12, 0.2])
    parser.add_argument('--seed', type=int, default=11)
    given, flags = parser.parse_known_intermixed_args()
    save_dir = os.path.abspath(given.save_dir)
    os.makedirs(save_dir, exist_ok=True)
    with open(os.path.join(save_dir, 'demo_frontier.yaml'), 'w') as f:
        f.write(NOT_EVALUATED)
    seed = f'--run.seed={given.seed}'
    reward_model = launch(save_dir, 'reward-model', 'train_reward', seed)
    trained = [f'--rewards.trained_model={reward_model}', '--rewards.train_new_model=off', seed, *flags]
    folders = {
        f'KL coefficient {coef}': launch(
            save_dir, f'kl-coef-{coef}', 'train_policy', f'--rewards.kl_coef={coef}', *trained
        )
        for coef in given.coefs
    }
    result = measure(folders)
    policies, judges = result['policies'], sorted(data_set.judges())
    rows = [['', 'KL (nats)', 'score', *judges, 'distinct words', 'in time']]
    for name, figures in policies.items():
        wins = [f'{figures["wins"][judge]["share"]:.0%}' if 'wins' in figures else '' for judge in judges]
        distinct = figures['distinct']['1'] / policies[INITIAL]['distinct']['1']
        score = f'{figures["judges"]["score"]["mean"]:.2f}'
        rows.append([name, f'{figures["kl"]:.1f}', score, *wins, f'{distinct:.0%}', f'{figures["valid"]:.0%}'])
    print(aligned(rows))
    print(f'{result["queries"]} queries, {result["distinct_queries"]} of them distinct')


if __name__ == '__main__':
    main()
