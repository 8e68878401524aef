"""What the demo achieved, on snippets and queries that took no part in training, also in the eyes of other judges.

python -m lm_human_preferences.demo.evaluation RUN_DIR
"""

import sys
from typing import Any, Dict

from lm_human_preferences.demo import data
from lm_human_preferences.demo.judges import choice_accuracy, choices_of, vader_score
from lm_human_preferences.evaluate import measure_policies, save_results
from lm_human_preferences.evaluation import reward_models, tables
from lm_human_preferences.hyperparameters import EvaluateHParams
from lm_human_preferences.lm_tasks import Task
from lm_human_preferences.run_folder import RunFolder

CHOICES = 800
SEED = 20190918  # of the evaluation alone: every run is asked the same
SAMPLES = [f'sample{i}' for i in range(4)]


def evaluate(run_dir: str) -> Dict[str, Any]:
    """Measure a finished run of the demo, write the figures to its `evaluation.json`, and return them."""
    run, hparams = RunFolder(run_dir), EvaluateHParams(run=run_dir, seed=SEED)
    reward_model = run.reward_model()
    task = Task(run.task, reward_model.encoding())
    labels = data.best_of_4_labels(
        'test', CHOICES, task.encoding, task.hparams.query_length, task.hparams.response_length, SEED
    )
    rewards = reward_models.label_rewards(reward_model, task, SAMPLES, labels, hparams.batch_size)
    reward = dict(reward_models.figures(rewards, labels), source='demo, held out')
    reward['vader_accuracy'] = choice_accuracy(vader_score, choices_of(labels, task.encoding))
    results = dict(reward_model=reward, policies=measure_policies(run, reward_model, hparams, run_dir))
    save_results(run_dir, **results)
    return results


def table(results: Dict[str, Any]) -> str:
    """The figures as a person reads them."""
    reward, policies = results['reward_model'], results['policies']
    rows = [*tables.reward_rows(reward), ['VADER’s lexicon agrees', f'{reward["vader_accuracy"]:.1%}']]
    lines = [f'Reward model on {CHOICES} held-out human choices of the best of 4', tables.aligned(rows)]
    lines += ['', f'Policies on {policies["queries"]} held-out queries', tables.aligned(tables.policy_rows(policies))]
    return '\n'.join(lines)


def report(run_dir: str) -> None:
    """Evaluate a finished run and print the table."""
    print(f'\n{table(evaluate(run_dir))}\n', flush=True)


if __name__ == '__main__':
    report(sys.argv[1])
