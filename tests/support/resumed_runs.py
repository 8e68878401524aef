"""An experiment of tiny steps for runs that are interrupted, and a comparison of two runs to the last bit."""

import json
import os
import re

import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.runs.checkpoints import latest_checkpoint

DEFINITION = """
description: tiny runs on the built-in names
run: {seed: 1, log_interval: 1, save_interval: 2}
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward:
  labels: {type: best_of_4, source: LABELS, num_train: 800}
  batch_size: 8
  lr: 1e-2
  normalize_samples: 64
  normalize_before: true
  normalize_after: true
train_policy:
  rewards: {adaptive_kl: {target: 1.0, horizon: 1000}}
  ppo: {batch_size: 16, nminibatches: 2, noptepochs: 2, total_episodes: EPISODES, lr: 1e-3}
train_lm:
  dataset: text:TEXT
  model: {n_vocab: 262, n_ctx: 12, n_embd: 8, n_head: 2, n_layer: 1}
  sequence_length: 10
  batch_size: 8
  epochs: 3
  dropout: 0.1
  lr: 1e-2
"""


def write_experiment(folder, num_steps=100):
    """Write an experiment with so many PPO steps, and the files it needs, into a folder; return its path."""
    random = np.random.RandomState(0)
    labels = []
    for _ in range(800):
        label = {f'sample{i}': random.randint(0, 27, 3).tolist() for i in range(4)}
        labels.append(dict(label, query=random.randint(0, 27, 2).tolist(), best=int(random.randint(4))))
    (folder / 'labels.json').write_text(json.dumps(labels))
    (folder / 'lines.txt').write_text('we saw a cat.\na cat saw us.\nwe are here.\n' * 200)
    text = DEFINITION.replace('LABELS', str(folder / 'labels.json')).replace('TEXT', str(folder / 'lines.txt'))
    path = folder / 'tiny.yaml'
    path.write_text(text.replace('EPISODES', str(16 * num_steps)))
    return path


def variables(folder):
    """Return all values in the last checkpoint of a model folder: parameters, and those of the optimizer."""
    reader = tf.train.load_checkpoint(latest_checkpoint(folder))
    return {name: reader.get_tensor(name) for name in reader.get_variable_to_shape_map()}


def state(folder):
    """Return the state saved with the last checkpoint, without what depends on time and place."""
    with open(os.path.join(folder, 'checkpoints', f'state-{latest_checkpoint(folder).split("-")[-1]}.json')) as file:
        content = json.load(file)
    assert content.pop('seconds', 1) > 0
    content.pop('checksum')
    hparams = content.get('hparams', {})
    for group in (hparams, (hparams.get('rewards') or {}).get('train_new_model')):
        if group:
            group['run'].pop('save_dir')
    return content


def event_files(folder):
    """Return the names of the event files in a folder, in order."""
    return sorted(name for name in os.listdir(str(folder)) if name.startswith('events.'))


def curve(folder):
    """Return [(tag, step, value)] of a folder's event files, without times and without what a restart discards."""
    found = []
    for name in event_files(folder):
        try:
            for event in tf.train.summary_iterator(os.path.join(folder, name)):
                if event.session_log.status == tf.SessionLog.START:
                    found = [entry for entry in found if entry[1] < event.step]
                found += [(value.tag, event.step, value.SerializeToString()) for value in event.summary.value]
        except tf.errors.DataLossError:  # the process was killed while it wrote
            continue
    return [entry for entry in found if entry[0] not in ('elapsed/time', 'elapsed/fps')]


def sample_lines(run):
    with open(os.path.join(run, 'samples.jsonl')) as file:
        return file.readlines()


def samples(printed):
    """Return the blocks of samples that a run printed: {title: set of blocks}."""
    blocks = {}
    for title, block in re.findall(r'^(Samples (?:before|after) fine-tuning:)\n(.*?)\n\n', printed, re.DOTALL | re.M):
        blocks.setdefault(title, set()).add(block)
    return blocks


def assert_same_run(first, second, models, curves):
    """Assert that two runs are the same to the last bit: variables, state, curves, samples."""
    if 'policy' in models:
        one, two = (sample_lines(run) for run in (first, second))
        assert one == two and len(one) > 0
    for model in models:
        one, two = (variables(os.path.join(run, model)) for run in (first, second))
        assert set(one) == set(two)
        assert any('Adam' in name for name in one) or model == 'model'
        for name in one:
            np.testing.assert_array_equal(one[name], two[name], name)
        assert state(os.path.join(first, model)) == state(os.path.join(second, model))
    for name in curves:
        one, two = (curve(os.path.join(run, 'tb', name)) for run in (first, second))
        assert one == two
        assert len({entry[:2] for entry in one}) == len(one) > 0  # no step is there twice
