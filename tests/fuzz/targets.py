"""What is fuzzed: the readers of labels, hyperparameters and vocabularies, and what they must do with any input."""

import json
import os

import numpy as np

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.hyperparameters import ModelHParams, TrainPolicyHParams
from lm_human_preferences.language.encodings import Encoding, test_encoding

SCHEMA = {
    'query': (np.int32, (2,)),
    'sample0': (np.int32, (1,)),
    'sample1': (np.int32, (1,)),
    'best': (np.int32, ()),
    'score': (np.float32, ()),
}


def check(target: str, data: bytes, folder: str) -> None:
    """Read `data` as a file in `folder`; AssertionError for an error that is not one clear line, any other as it is."""
    try:
        TARGETS[target](data, folder)
    except ValueError as error:
        if type(error) is not ValueError:
            raise
        message = str(error)
        known = message.startswith(folder) or message.startswith("the vocabulary 'own' cannot encode ")
        assert known and len(message.splitlines()) == 1 and len(message) < 2000, message


def read_labels(data: bytes, folder: str) -> None:
    """A label file with the answers of two label types."""
    found = load_labels(_write(folder, 'labels.json', data), SCHEMA, 1, test_encoding())
    assert all(np.isfinite(array).all() for array in found.values())
    assert 0 <= found['best'][0] < 2 and found['query'].min() >= 0


def read_hparams(data: bytes, folder: str) -> None:
    """A model's sizes, or else the hyperparameters of a run."""
    path = _write(folder, 'hparams.json', data)
    try:
        found = ModelHParams.from_json_file(path, required=['n_layer'])
    except ValueError:
        found = TrainPolicyHParams.from_json_file(path)
    assert json.loads(json.dumps(found.to_nested_dict())) == found.to_nested_dict()


def read_vocabulary(data: bytes, folder: str) -> None:
    """encoder.json, a zero byte, vocab.bpe."""
    encoder, _, merges = data.partition(b'\0')
    paths = _write(folder, 'encoder.json', encoder), _write(folder, 'vocab.bpe', merges)
    encoding = Encoding.from_files('own', *paths)
    encoding.decode(range(encoding.n_vocab))
    encoding.encode('ab')  # a ValueError if a, b or ab is missing


TARGETS = {'labels': read_labels, 'hparams': read_hparams, 'vocabulary': read_vocabulary}


def _write(folder: str, name: str, data: bytes) -> str:
    path = os.path.join(folder, name)
    with open(path, 'wb') as file:
        file.write(data)
    return path
