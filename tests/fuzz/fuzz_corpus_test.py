"""The inputs that fuzzing kept, read once more: each is good, or gives one clear line."""

import glob
import os
import sys

import pytest
from repository import TESTS

FUZZ = os.path.join(TESTS, 'fuzz')
sys.path.insert(0, FUZZ)

import targets  # noqa: E402


@pytest.mark.parametrize('target', sorted(targets.TARGETS))
def test_corpus(target, tmp_path):
    inputs = sorted(glob.glob(os.path.join(FUZZ, 'corpus', target, '*')))
    assert len(inputs) >= 10
    for path in inputs:
        with open(path, 'rb') as file:
            data = file.read()
        try:
            targets.check(target, data, str(tmp_path))
        except Exception as error:
            raise AssertionError(f'{path}: {data!r}') from error


def test_the_corpus_is_small():
    sizes = [os.path.getsize(path) for path in glob.glob(os.path.join(FUZZ, 'corpus', '*', '*'))]
    assert sum(sizes) < 64 * 1024
