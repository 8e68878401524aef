"""A small finished run for tests that read runs, and a small experiment for tests that train."""

import json
import os

import numpy as np

from lm_human_preferences.launcher.command_line import main

TINY_EXPERIMENT = """
description: a tiny run
run: {seed: 1, log_interval: 1}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: best_of_4, source: test, num_train: 16}
  batch_size: 8
train_policy:
  ppo: {batch_size: 16, total_episodes: 32, lr: 1e-2}
"""


class TinyRun:
    """A run of `train_policy` in the vocabulary of letters, and the labels that its reward model was trained on."""

    def __init__(self, folder):
        self.folder = os.path.join(folder, 'tiny')
        self.labels = os.path.join(folder, 'labels.json')
        random = np.random.RandomState(0)
        labels = []
        for _ in range(64):  # the best response is the one with the highest letters
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
