"""The reference page of hyperparameters agrees with the code."""

import os
import sys

from repository import ROOT

sys.path.insert(0, os.path.join(ROOT, 'tools'))

import hyperparameter_reference  # noqa: E402


def test_the_committed_page_is_up_to_date():
    with open(hyperparameter_reference.PAGE, encoding='utf-8') as file:
        committed = file.read()
    assert committed == hyperparameter_reference.page(), 'run python tools/hyperparameter_reference.py'


def test_what_the_page_says():
    page = hyperparameter_reference.page()
    for row in (
        '| `--lr` | float | `5e-05` | Learning rate of the first step. It falls linearly to 0. |',
        '| `--task.query_length` | int | *required* | ',
        '| `--rewards.adaptive_kl` | on/off | off | ',
        '| `--rewards.adaptive_kl.horizon` | int | `10000` | ',
        "| `--save_dir` | str | `'/tmp/save/train_policy'` | ",
        '| `--num_queries` | int | `512` | Number of held-out queries. Older name: `--queries`. |',
        '| `--labels.schedule.num_initial` | int | *required* | ',
    ):
        assert row in page
    assert page.count('| `--ppo.lr` |') == 1 and page.count('| `--run.seed` |') == 3
