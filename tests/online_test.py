"""Labels collected while the policy trains."""

import collections
import errno
import importlib
import importlib.util
import json
import os
import sys
import threading
import time

import numpy as np
import pytest
import requests
from launching import Launched

from lm_human_preferences import label, train_policy
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import LabelPageHParams
from lm_human_preferences.labeling.collection import Collection
from lm_human_preferences.labeling.collector import LabelCollector, find_labeler
from lm_human_preferences.labeling.forms import get_form
from lm_human_preferences.labeling.shared_responder import SharedResponder
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.online import Schedule
from lm_human_preferences.runs.checkpoints import latest_checkpoint
from lm_human_preferences.runs.journal import Journal
from lm_human_preferences.utils.errors import UserError

SETTINGS = {
    'run': {'seed': 1},
    'task': {'query_length': 2, 'response_length': 3, 'query_dataset': 'test', 'policy': {'initial_model': 'test'}},
    'ppo': {'batch_size': 16, 'total_episodes': 96, 'lr': 1e-2},
}
REWARD = {
    'run': {'seed': 5},
    'task': SETTINGS['task'],
    'labels': {'type': 'best_of_4', 'source': 'labeler', 'num_train': 64},
    'batch_size': 8,
    'lr': 1e-2,
    'rollout_batch_size': 16,
    'normalize_samples': 16,
    'normalize_before': True,
    'normalize_after': True,
}
SCHEDULE = {'num_initial': 16, 'labeler': 'online_labeler:most_es', 'num_retrainings': 2}
LABELER = """
judged, limit = 0, None

def most_es(query, samples):
    global judged
    judged += 1
    if limit is not None and judged > limit:
        raise InterruptedError
    return max(range(len(samples)), key=lambda i: samples[i].count('e'))

def number(query, samples):
    return 'two'
"""


@pytest.fixture(scope='module')
def labeler(tmp_path_factory):
    """The module of a labeler, which can be imported by its name."""
    folder = tmp_path_factory.mktemp('labeler')
    (folder / 'online_labeler.py').write_text(LABELER)
    sys.path.insert(0, str(folder))
    yield importlib.import_module('online_labeler')
    sys.path.remove(str(folder))


def online_hparams(folder, **schedule):
    hparams = train_policy.HParams()
    hparams.override_from_nested_dict(SETTINGS)
    hparams.override_from_nested_dict({'rewards': {'train_new_model': REWARD}})
    hparams.run.save_dir = str(folder)
    labels = hparams.rewards.train_new_model.labels
    labels.override_from_nested_dict({'schedule': dict(SCHEDULE, **schedule)})
    return hparams, labels


@pytest.fixture(scope='module')
def uninterrupted(labeler, tmp_path_factory):
    """The folder of a finished run that was never interrupted."""
    hparams, _ = online_hparams(tmp_path_factory.mktemp('online') / 'run')
    train_policy.train(hparams)
    return tmp_path_factory.getbasetemp() / os.path.relpath(hparams.run.save_dir, str(tmp_path_factory.getbasetemp()))


def read(path):
    with open(str(path)) as file:
        return json.load(file)


def journal(folder, who='program'):
    with open(str(folder / 'online' / 'labels' / f'1-{who}.journal.jsonl')) as file:
        return [json.loads(line) for line in file]


def variables(path, scope=''):
    """Return the parameters under a scope of a checkpoint."""
    reader = tf.train.load_checkpoint(path)
    names = reader.get_variable_to_shape_map()
    return {name: reader.get_tensor(name) for name in names if name.startswith(scope) and 'adam' not in name.lower()}


def test_the_papers_schedule():
    """Section 2.3: l(n) = N_r⁰ + (N_r − N_r⁰)(1 − (1 − n/N_π)²), with retrainings at evenly spaced values of it."""
    initial, total, episodes = 500, 5000, 2000000
    schedule = Schedule(initial, total, 19, episodes)
    assert [schedule.wanted(n) for n in (0, 200000, 500000, 1000000)] == [500, 1355, 2468, 3875]
    spaced = [schedule.labels(k) for k in range(20)]
    assert spaced == list(range(500, 5000, 225)) and schedule.budget == 4775
    assert schedule.wanted(1999999) == schedule.wanted(episodes) == 4775  # no training would use the others
    starts = [next(n for n in range(0, episodes, 500) if schedule.training(n) == k) for k in range(20)]
    assert starts[0] == 0 and all(np.diff(np.diff(starts)) >= 0)  # at growing distances
    for k, n in enumerate(starts[1:], start=1):
        assert schedule.wanted(n) >= spaced[k] > schedule.wanted(n - 500)
    offline = Schedule(5000, 5000, 19, episodes)
    assert {(offline.wanted(n), offline.training(n)) for n in range(0, episodes, 99999)} == {(5000, 19)}


def test_labels_are_collected_while_the_policy_trains(uninterrupted):
    # l(n) is 16, 30, 42, … before the six steps; the trainings are at 16, 32 and 48 labels.
    entries = read(uninterrupted / 'online' / 'labels' / '1-program.json')
    assert len(entries) == 48
    letters = 'abcdefghijklmnopqrstuvwxyz.'
    for entry in entries:
        samples = [''.join(letters[token] for token in entry[f'sample{i}']) for i in range(4)]
        assert entry['best'] == int(np.argmax([sample.count('e') for sample in samples]))
    policies = [entry['policy'] for entry in journal(uninterrupted) if entry['kind'] == 'question']
    assert collections.Counter(policies) == {'initial': 16, 'step 1': 16, 'step 2': 12, 'step 3': 4}
    trainings = sorted(os.listdir(str(uninterrupted / 'online')))
    assert trainings == ['labels', 'training-0', 'training-1', 'training-2']
    # PPO ended with the last reward model, which is in the run's folder.
    last = variables(latest_checkpoint(str(uninterrupted / 'reward_model')))
    used = variables(latest_checkpoint(str(uninterrupted / 'policy')), 'reward_model/')
    assert set(used) == set(last) and len(used) > 20
    for name in used:
        np.testing.assert_array_equal(used[name], last[name])
    assert latest_checkpoint(str(uninterrupted / 'reward_model')).endswith('model.ckpt-6')  # 48 labels, 8 a step


def collect(folder, hparams, *numbers, who='program', num=48):
    """Ask for labels on samples of the initial policy, up to these numbers in turn. Return the label file's entries."""
    for labels in numbers:
        collector = LabelCollector(hparams, str(folder / 'online' / 'labels'), num, seed=1)
        with collector.asking_initial_policy() as questions:
            collector.ask(labels, questions)
        assert not collector.lacks(labels)
        collector.close()
    return read(folder / 'online' / 'labels' / f'1-{who}.json')


@pytest.mark.parametrize('num, batch', [(48, 20), (48, 48), (5, 20), (21, 20)])
def test_no_more_labels_than_the_budget(labeler, tmp_path, num, batch):
    hparams, _ = online_hparams(tmp_path)
    new = hparams.rewards.train_new_model
    new.rollout_batch_size = 4 * batch
    assert len(collect(tmp_path / 'once', new, num, num=num)) == num
    questions = [entry for entry in journal(tmp_path / 'once') if entry['kind'] == 'question']
    assert len(questions) == num  # those of the last batch that are left over were not kept
    at_times = collect(tmp_path / 'at-times', new, 1, num // 2, num, num, num=num)
    assert at_times == read(tmp_path / 'once' / 'online' / 'labels' / '1-program.json')


def test_a_full_disk_is_waited_for_while_people_answer(tmp_path, monkeypatch, capsys):
    hparams, _ = online_hparams(tmp_path, labeler='page', num_ahead=0)
    collector = LabelCollector(hparams.rewards.train_new_model, str(tmp_path / 'labels'), budget=48, seed=1)
    append, faults = Journal.append, [errno.ENOSPC, errno.ENOSPC]

    def full(journal, *entries):
        if faults:
            raise OSError(faults.pop(), 'No space left on device')
        append(journal, *entries)

    monkeypatch.setattr(Journal, 'append', full)
    with collector.asking_initial_policy() as questions:
        collector.ask(4, questions)
    said = capsys.readouterr().out
    assert said.count('labels cannot be written now: No space left on device.') == 1
    assert said.count('labels are written again') == 1 and collector._collection.asked == 4
    collector.close()


def test_questions_about_a_run_have_the_task_of_the_run(uninterrupted, tmp_path):
    hparams = LabelPageHParams(
        policy=str(uninterrupted), out=str(tmp_path / 'labels.json'), num_questions=5, temperature=0.5
    )
    task_hparams, label_type = label.find_task(hparams)
    assert (task_hparams.query_length, task_hparams.policy.temperature, label_type) == (2, 0.5, 'best_of_4')
    collection = Collection(hparams.out, get_form(label_type), {}, planned=hparams.num_questions)
    policy = find_model(hparams.policy, hparams.savescope)
    task = Task(task_hparams, policy.encoding())
    with SharedResponder(policy, task, 4 * hparams.batch_size, Ranks(alone=True)) as responder:
        label.add_questions(collection, hparams, task, responder, stopped=lambda: False)
    assert [np.shape(question.samples) for question in collection.questions] == [(4, 3)] * 5
    collection.close()


@pytest.mark.slow
def test_an_interrupted_run_ends_like_an_uninterrupted_one(uninterrupted, labeler, tmp_path):
    hparams, _ = online_hparams(tmp_path / 'run')
    hparams.run.save_interval = 1
    labeler.judged = 0
    for labeler.limit in (10, 40):  # among the first labels, and in the third step
        with pytest.raises(InterruptedError):
            train_policy.train(hparams)
    labeler.limit = None
    train_policy.train(hparams)
    assert labeler.judged == 48 + 2
    folder = ('online', 'labels', '1-program.json')
    assert read(tmp_path.joinpath('run', *folder)) == read(uninterrupted.joinpath(*folder))
    ends = [variables(latest_checkpoint(str(run / 'policy'))) for run in (uninterrupted, tmp_path / 'run')]
    assert set(ends[0]) == set(ends[1])
    for name in ends[0]:
        np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=0, atol=1e-6, err_msg=name)


def test_all_labels_at_first_is_the_offline_case(labeler, tmp_path):
    hparams, labels = online_hparams(tmp_path / 'run', num_initial=64)
    hparams.ppo.total_episodes = 32
    random = np.random.RandomState(0)
    entries = []
    for _ in range(64):
        samples = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        entries.append(dict(samples, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    (tmp_path / 'given.json').write_text(json.dumps(entries))
    labels.source = str(tmp_path / 'given.json')
    ends = []
    for name in ('online', 'offline'):
        hparams.run.save_dir = str(tmp_path / name)
        train_policy.train(hparams)
        ends.append(variables(latest_checkpoint(str(tmp_path / name / 'policy'))))
        labels.schedule = None
    assert set(ends[0]) == set(ends[1])
    for name in ends[0]:
        np.testing.assert_allclose(ends[0][name], ends[1][name], rtol=0, atol=1e-5, err_msg=name)


@pytest.mark.parametrize(
    'name, message',
    [
        ('no_module:f', "labeler no_module:f: No module named 'no_module': is its folder in PYTHONPATH?"),
        ('online_labeler:nothing', 'the module online_labeler has no function nothing'),
    ],
)
def test_labelers_that_are_not_there(labeler, name, message):
    with pytest.raises(UserError, match=message.replace('?', r'\?')):
        find_labeler(name)


def test_answers_that_are_no_labels(labeler, tmp_path):
    hparams, _ = online_hparams(tmp_path / 'run', labeler='online_labeler:number')
    with pytest.raises(
        UserError, match="labeler:number returned 'two': it must return the index of the best sample, 0 to 3"
    ):
        train_policy.train(hparams)


@pytest.mark.parametrize(
    'settings, message',
    [
        ({'schedule': {'num_initial': 4}}, r'schedule.num_initial \(4\) must be at least .*batch_size \(8\)'),
        ({'schedule': {'num_initial': 65}}, r'at most .*labels.num_train \(64\)'),
        ({'schedule': {'labeler': 'eval'}}, "labeler must be page or MODULE:FUNCTION, not 'eval'"),
        ({'schedule': None}, 'source labeler needs .*labels.schedule=on'),
    ],
)
def test_bad_schedules(settings, message):
    hparams, labels = online_hparams('run')
    labels.override_from_nested_dict(settings)
    with pytest.raises(ValueError, match=message):
        hparams.validate()


DEFINITION = """
run: {seed: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: TYPE, source: labeler, num_train: 24, schedule: {num_initial: 8, num_retrainings: 1, num_ahead: 0}}
  batch_size: 8
train_policy:
  ppo: {batch_size: 16, total_episodes: 32}
"""


def launch(experiment, *flags):
    environment = dict(os.environ, PYTHONPATH=str(experiment.parent))
    arguments = ['train_policy', experiment, 'run', f'--save_dir={experiment.parent}', *flags]
    return Launched(*arguments, environment=environment)


def test_the_trainer_waits_for_people(tmp_path):
    given = [dict(query=[1, 2], sample0=[1, 1, 1], sample1=[2, 2, 2], difference=n) for n in range(10)]
    (tmp_path / 'given.json').write_text(json.dumps(given))
    definition = DEFINITION.replace('TYPE', 'scalar_compare').replace('labeler', str(tmp_path / 'given.json'))
    (tmp_path / 'tiny.yaml').write_text(definition)
    process = launch(tmp_path / 'tiny.yaml')
    printed = iter(lambda: process.stdout.readline().decode(), '')
    address = next(line.split()[-1] for line in printed if line.startswith('label page: '))
    stop = threading.Event()
    answers = []

    def person(name):
        session = requests.Session()
        base = address.split('/?')[0]
        session.get(address)
        page = session.post(f'{base}/name', {'name': name}).text
        while not stop.is_set():
            number = page.partition('name="question" value="')[2].partition('"')[0]
            try:
                if number:
                    if int(number) % 7 == 3:
                        page = session.post(f'{base}/skip', {'question': number}).text
                        continue
                    answers.append(number)
                    page = session.post(f'{base}/answer', {'question': number, 'answer': int(number) % 5}).text
                else:
                    time.sleep(0.1)
                    page = session.get(base).text
            except requests.ConnectionError:
                return  # the run is over

    people = [threading.Thread(target=person, args=(name,)) for name in ('ann', 'bob')]
    for thread in people:
        thread.start()
    output, errors = process.communicate(timeout=300)
    stop.set()
    for thread in people:
        thread.join()
    assert (process.returncode, errors.decode()) == (0, '')
    folder = tmp_path / 'run' / 'online' / 'labels'
    assert read(folder / '0-initial.json') == given[:8]
    assert 8 <= len(read(folder / '1-people.json')) == len(set(answers))
    questions = [entry for entry in journal(tmp_path / 'run', 'people') if entry['kind'] == 'question']
    assert {entry['policy'] for entry in questions} == {'step 1'}
    assert 'reward model: training 1 on 16 labels' in output.decode()
    orders = {answer['value'] for answer in journal(tmp_path / 'run', 'people') if answer['kind'] == 'answer'}
    assert orders <= {-2, -1, 0, 1, 2} and len(orders) > 2
    process = launch(tmp_path / 'tiny.yaml', '--resume=overwrite')
    output, errors = process.communicate(timeout=300)
    assert process.returncode == 2 and 'holds labels that people gave' in errors.decode()


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec('mpi4py') is None, reason='needs mpi4py')
def test_on_two_ranks(tmp_path):
    (tmp_path / 'tiny.yaml').write_text(DEFINITION.replace('TYPE', 'best_of_4'))
    (tmp_path / 'online_labeler.py').write_text(LABELER)
    process = launch(tmp_path / 'tiny.yaml', '--mpi=2', '--labeler', SCHEDULE['labeler'])
    output, errors = process.communicate(timeout=300)
    assert (process.returncode, errors.decode()) == (0, '')
    assert output.decode().count('reward model: training 1 on 16 labels') == 1
    assert len(read(tmp_path / 'run' / 'online' / 'labels' / '1-program.json')) == 16
