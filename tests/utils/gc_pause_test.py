"""Garbage collection is paused inside the block, and on again after it."""

import gc

import pytest

from lm_human_preferences.utils.gc_pause import gc_paused


def test_collection_is_paused_inside_and_restored_after():
    assert gc.isenabled()
    with gc_paused():
        assert not gc.isenabled()
        with gc_paused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_restores_collection():
    @gc_paused()
    def build():
        assert not gc.isenabled()
        raise ValueError('no graph')

    for _ in range(2):
        with pytest.raises(ValueError, match='no graph'):
            build()
        assert gc.isenabled()
