import json
import os
import sys

import numpy as np
import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
sys.path.insert(0, os.path.dirname(__file__))

import loopback  # noqa: E402

from lm_human_preferences.utils import storage, transports  # noqa: E402


@pytest.fixture(scope='session')
def golden_dir():
    """Folder of the numbers recorded from the reference; GOLDEN_DIR names another of the same form."""
    return os.environ.get('GOLDEN_DIR') or os.path.join(ROOT, 'tests', 'golden')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the test's own."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'cache').mkdir()
    return tmp_path / 'cache'


@pytest.fixture
def web():
    """A web server without any file."""
    with loopback.WebServer().running() as server:
        yield server


@pytest.fixture(scope='session')
def cloud():
    """Google Cloud Storage on this machine, with the bucket `bucket`; STORAGE_EMULATOR_HOST names it from now on."""
    server = loopback.CloudStorage('bucket')
    os.environ['STORAGE_EMULATOR_HOST'] = server.url  # before google-cloud-storage is loaded, which reads it then
    yield server
    server.stop()


@pytest.fixture
def quick_retries(monkeypatch):
    """Pauses and time limits of a download short enough for a test."""
    monkeypatch.setattr(storage, 'FIRST_PAUSE', 0.01)
    monkeypatch.setattr(transports, 'STALL_SECONDS', 0.5)


@pytest.fixture
def mirror(web, cloud, monkeypatch):
    """A web server in place of the new home of the data of 2019; their old home has none of it."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', web.url + '/')
    return web


class TinyRun:
    """A run of `train_policy` in the vocabulary of letters, with the labels its reward model learned from."""

    def __init__(self, folder):
        from lm_human_preferences.command_line import main

        self.folder = os.path.join(folder, 'tiny')
        self.labels = os.path.join(folder, 'labels.json')
        random = np.random.RandomState(0)
        labels = []
        for _ in range(64):  # people like the response with the highest letters best
            samples = random.randint(0, 27, (4, 3))
            label = {f'sample{i}': sample.tolist() for i, sample in enumerate(samples)}
            labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(samples.sum(1).argmax())))
        with open(self.labels, 'w') as f:
            json.dump(labels, f)
        definition = os.path.join(folder, 'tiny.yaml')
        with open(definition, 'w') as f:
            f.write(
                'run: {seed: 1, log_interval: 1, save_interval: 2}\n'
                'task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}\n'
                f'train_reward: {{labels: {{type: best_of_4, source: {self.labels}, num_train: 64}},'
                ' batch_size: 16, lr: 1e-2}\n'
                'train_policy: {ppo: {batch_size: 16, total_episodes: 48, lr: 1e-2}}\n'
            )
        main(['train_policy', definition, 'tiny', f'--save_dir={folder}', '--mpi=1'])


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
    return TinyRun(str(tmp_path_factory.mktemp('runs')))
