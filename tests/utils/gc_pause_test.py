"""Where Python's collector of cycles is off, and that it is on again."""

import gc

import pytest

from lm_human_preferences.utils.gc_pause import collector_off


def test_the_collector_is_off_within_and_as_it_was_after():
    assert gc.isenabled()
    with collector_off():
        assert not gc.isenabled()
        with collector_off():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_an_error_leaves_the_collector_on():
    @collector_off()
    def build():
        assert not gc.isenabled()
        raise ValueError('no graph')

    for _ in range(2):
        with pytest.raises(ValueError, match='no graph'):
            build()
        assert gc.isenabled()
