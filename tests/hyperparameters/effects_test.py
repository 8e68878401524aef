"""Every hyperparameter of every command has an effect: the command reads it, or a named test shows what it does.

Each command runs once on tiny data, with every group on, while reads of hyperparameters are recorded. A read by the
checks of hyperparameters, by their printing or by their saving does not count.
"""

import ast
import importlib
import json
import os
import sys

import pytest
from refusals import good_labels
from repository import ROOT

from lm_human_preferences import train_reward
from lm_human_preferences.hyperparameters import TREES
from lm_human_preferences.utils.hyperparams import HParams

TASK = {
    'query_length': 2,
    'response_length': 3,
    'query_dataset': 'test',
    'truncate_token': 4,
    'truncate_after': 1,
    'policy': {'initial_model': 'test'},
}
RUN = {'seed': 1, 'log_interval': 1, 'save_interval': 1, 'save_dir': 'DIR/run'}
REWARD = {
    'run': RUN,
    'task': TASK,
    'labels': {'type': 'best_of_4', 'source': 'DIR/labels.json', 'num_train': 8},
    'batch_size': 4,
    'normalize_samples': 8,
    'debug_normalize': 8,
    'normalize_before': True,
    'normalize_after': True,
    'normalize_truncated': True,
    'rollout_batch_size': 8,
}
SCHEDULE = {'num_initial': 8, 'num_retrainings': 1, 'labeler': 'effects_labeler:first'}
ONLINE = {**REWARD, 'labels': {'type': 'best_of_4', 'source': 'labeler', 'num_train': 16, 'schedule': SCHEDULE}}
# The hyperparameters of each run, in order: later commands read the run of the first ones.
RUNS = {
    'train_reward': REWARD,
    'train_policy': {
        'run': {**RUN, 'save_dir': 'DIR/policy'},
        'task': TASK,
        'rewards': {'adaptive_kl': {'target': 1.0}, 'train_new_model': ONLINE},
        'ppo': {'batch_size': 16, 'total_episodes': 32, 'microbatch_size': 8},
    },
    'train_lm': {
        'run': {**RUN, 'save_dir': 'DIR/lm'},
        'dataset': 'text:DIR/texts.txt',
        'model': {'n_vocab': 260, 'n_ctx': 12, 'n_embd': 8, 'n_head': 2, 'n_layer': 1},
        'sequence_length': 4,
        'batch_size': 2,
        'dropout': 0.1,
        'patience': 1,
    },
    'sample': {'save_dir': 'DIR/policy', 'nsamples': 1, 'scores': True, 'jsonl': True, 'seed': 1},
    'evaluate': {'run': 'DIR/policy', 'policies': ['initial'], 'num_queries': 2, 'labels': 'DIR/labels.json'},
    'report': {'runs': ['DIR/policy'], 'out': 'DIR/report.html'},
    'convert': {'source': 'DIR/pairs.jsonl', 'target': 'DIR/pairs.json', 'model': 'DIR/policy'},
}
# What these runs do not read, and the test that shows that it has an effect or is refused.
SCHEDULE_FIELDS = ['num_initial', 'labeler', 'num_retrainings', 'num_ahead', 'overlap', 'num_people']
SCHEDULE_FIELDS += ['instructions', 'port']
NEW = 'rewards.train_new_model.labels.schedule.'
PAGE = 'tests/labeling/label_collection_test.py::'
RATES = 'tests/hyperparameters/hyperparameters_test.py::test_dropout_rates_of_a_language_model_in_training'
SHOWN = {
    'train_reward': {
        'task.penalty_reward_value': 'tests/hyperparameters/effects_test.py::test_the_penalty_is_part_of_the_task',
        **{
            f'labels.schedule.{name}': 'tests/hyperparameters/effects_test.py::test_train_reward_refuses_a_schedule'
            for name in SCHEDULE_FIELDS
        },
    },
    'train_policy': {
        'rewards.trained_model': 'tests/training_test.py::test_policy_learns_what_is_rewarded',
        NEW + 'num_ahead': 'tests/online_test.py::test_a_full_disk_is_waited_for_while_people_answer',
        NEW + 'overlap': PAGE + 'test_overlapping_questions_are_answered_by_different_people',
        NEW + 'instructions': PAGE + 'test_instructions',
        NEW + 'port': 'tests/labeling/label_server_test.py::test_a_port_that_is_taken',
    },
    'train_lm': {f'model.{name}_pdrop': RATES for name in ('embd', 'attn', 'resid')},
    'convert': {'private': 'tests/formats/push_test.py::test_a_reward_model_and_its_card'},
}


@pytest.fixture(scope='module')
def reads(tmp_path_factory):
    """The fields that each command reads, as pairs of the names of group and field."""
    folder = str(tmp_path_factory.mktemp('effects'))
    write_data(folder)
    sys.path.insert(0, folder)
    patch, found = pytest.MonkeyPatch(), {}
    try:
        for command, values in RUNS.items():
            hparams = TREES[command]()
            hparams.override_from_nested_dict(json.loads(json.dumps(values).replace('DIR', folder)))
            module = importlib.import_module(f'lm_human_preferences.{command}')
            with patch.context() as recording:
                found[command] = record(recording, hparams)
                (module.train if command.startswith('train_') else getattr(module, command))(hparams)
    finally:
        sys.path.remove(folder)
    return found


def write_data(folder):
    files = {
        'labels.json': json.dumps(good_labels()),
        'texts.txt': 'some text of a few words\n' * 40,
        'pairs.jsonl': json.dumps({'prompt': 'a', 'chosen': 'b', 'rejected': 'c'}) + '\n',
        'effects_labeler.py': 'def first(query, samples):\n    return 0\n',
    }
    for name, text in files.items():
        with open(os.path.join(folder, name), 'w') as file:
            file.write(text)


def record(patch, hparams):
    """Record all reads of fields of hyperparameters, except those by hyperparameters themselves.

    Dropout rates count only if they are read from the tree `hparams`: a model in use is given others.
    """
    found = set()
    model = getattr(hparams, 'model', None)

    def get(self, name):
        reader = sys._getframe(1).f_globals.get('__name__', '')
        if reader.startswith('lm_human_preferences.') and 'hyperparam' not in reader:
            group = object.__getattribute__(self, '__class__').__name__
            if self is model or not name.endswith('_pdrop'):  # a model in use has no rates of the tree
                found.add((group, name))
        return object.__getattribute__(self, name)

    patch.setattr(HParams, '__getattribute__', get, raising=False)
    return found


def fields(command):
    """Every field of a command by its dotted name, with the name of its group's class."""
    tree = TREES[command].tree()
    for name, field in tree.items():
        if not field.is_group:
            group = name.rpartition('.')[0]
            yield name, (tree[group].kind if group else TREES[command]).__name__


@pytest.mark.parametrize('command', sorted(RUNS))
def test_every_hyperparameter_is_read_by_its_command(command, reads):
    unread = {name for name, group in fields(command) if (group, name.rpartition('.')[2]) not in reads[command]}
    assert unread == set(SHOWN.get(command, {}))


def test_every_hyperparameter_of_the_label_page_is_read():
    with open(os.path.join(ROOT, 'lm_human_preferences', 'label.py'), encoding='utf-8') as file:
        tree = ast.parse(file.read())
    read = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute) and ast.dump(node.value) == HPARAMS}
    assert {name for name, _ in fields('label')} <= read


HPARAMS = ast.dump(ast.parse('hparams', mode='eval').body)


def test_the_named_tests_exist():
    for where in {where for shown in SHOWN.values() for where in shown.values()}:
        path, name = where.split('::')
        with open(os.path.join(ROOT, path), encoding='utf-8') as file:
            assert f'\ndef {name}(' in file.read(), where


def test_train_reward_refuses_a_schedule():
    hparams = TREES['train_reward']()
    hparams.override_from_nested_dict(dict(ONLINE, run={}))
    with pytest.raises(ValueError, match='labels.schedule collects labels while a policy trains'):
        train_reward.train(hparams)


def test_the_penalty_is_part_of_the_task():
    """A reward model's task is the policy's, so that a penalty given to one alone is refused."""
    hparams = TREES['train_policy']()
    new_model = {**REWARD, 'task': dict(TASK, penalty_reward_value=-2)}
    hparams.override_from_nested_dict({'task': TASK, 'rewards': {'train_new_model': new_model}})
    with pytest.raises(ValueError, match='they differ in task.penalty_reward_value'):
        hparams.validate(num_ranks=1)
