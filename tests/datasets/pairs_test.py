"""Pairs of a chosen and a rejected text as labels, from the files that other trainers of reward models read."""

import json

import numpy as np
import pytest
from launching import launch
from tiny_run import TINY_EXPERIMENT

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.language.encodings import test_encoding as letters

SCHEMA = {
    'query': (np.int32, (3,)),
    'sample0': (np.int32, (2,)),
    'sample1': (np.int32, (2,)),
    'best': (np.int32, ()),
}
PAIRS = [{'prompt': 'ab' + 'c' * (i % 2), 'chosen': 'd', 'rejected': 'e' + 'f' * (i % 2)} for i in range(8)]
EXPECTED = {
    'query': [[0, 1, 27], [0, 1, 2]] * 4,
    'sample0': [[3, 27], [4, 5]] * 4,
    'sample1': [[4, 27], [3, 27]] * 4,
    'best': [0, 1] * 4,
}


def lines(pairs):
    return ''.join(json.dumps(pair) + '\n' for pair in pairs)


def load(source, num=8):
    return {name: values.tolist() for name, values in load_labels(str(source), SCHEMA, num, letters()).items()}


def parquet(path, pairs):
    pyarrow = pytest.importorskip('pyarrow', reason='needs the Python package pyarrow')
    writer = pytest.importorskip('pyarrow.parquet')
    writer.write_table(pyarrow.table({name: [pair[name] for pair in pairs] for name in pairs[0]}), str(path))
    return path


def test_json_lines(tmp_path, cache):
    (tmp_path / 'pairs.jsonl').write_text(lines([dict(pair, score=1) for pair in PAIRS]) + '\n')
    assert load(tmp_path / 'pairs.jsonl') == EXPECTED
    assert load(tmp_path / 'pairs.jsonl', None) == EXPECTED
    assert load(tmp_path / 'pairs.jsonl', 3) == {name: values[:3] for name, values in EXPECTED.items()}


def test_parquet(tmp_path, cache):
    assert load(parquet(tmp_path / 'pairs.parquet', PAIRS)) == EXPECTED


def test_shards(tmp_path, cache):
    for number, pairs in enumerate((PAIRS[:3], PAIRS[3:])):
        (tmp_path / f'train-{number}.jsonl').write_text(lines(pairs))
    assert load(tmp_path / 'train-*.jsonl') == EXPECTED


def test_shards_on_the_hub(tmp_path, hub):
    files = {}
    for number, pairs in enumerate((PAIRS[:5], PAIRS[5:])):
        path = parquet(tmp_path / 'shard.parquet', pairs)
        files[f'data/train-{number:05d}-of-00002.parquet'] = path.read_bytes()
    hub.put('datasets/trl-lib/lm-human-preferences-sentiment', files)
    assert load('hf://datasets/trl-lib/lm-human-preferences-sentiment/data/train-*.parquet') == EXPECTED


def test_a_reward_model_is_trained_on_pairs(tmp_path, cache):
    (tmp_path / 'pairs.jsonl').write_text(lines([dict(pair, prompt='ab', rejected='ef') for pair in PAIRS]))
    (tmp_path / 'tiny.yaml').write_text(TINY_EXPERIMENT)
    status, _, errors = launch(
        'train_reward', tmp_path / 'tiny.yaml', 'run', f'--save_dir={tmp_path}', '--labels.type=best_of_2',
        f'--labels.source={tmp_path}/pairs.jsonl', '--labels.num_train=8', '--batch_size=4',
    )  # fmt: skip
    assert status == 0, errors
    statistics = (tmp_path / 'run' / 'tb' / 'reward_model' / 'statistics.jsonl').read_text().splitlines()
    assert len(statistics) == 2 and all(0 < json.loads(line)['loss'] < 5 for line in statistics)
