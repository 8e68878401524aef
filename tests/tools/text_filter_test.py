"""The filter of the lines that the demo's model learns from."""

import os
import sys

import pytest
from repository import ROOT

sys.path.insert(0, os.path.join(ROOT, 'tools'))

from text_filter import Filter  # noqa: E402

KNOWN = 'A film that is about as thrilling as a long walk in the rain.'


@pytest.mark.parametrize(
    'line, kept',
    [
        ('A smart and funny little film.', True),
        ('One two three four five', True),
        ('One two three four', False),
        (' '.join(f'word{i}' for i in range(40)), True),
        (' '.join(f'word{i}' for i in range(41)), False),
        ('The end of the film is not the end of the story.', False),  # "the end of" twice
        ('The end of a film is the end for us.', True),
        ('It is very very funny to me.', False),
        ('Très drôle, and very smart as well.', False),
        ('a film THAT is about, as "thrilling" as a long walk in the rain', False),  # the known text in other letters
        ('It is about as thrilling as a long walk to the shop.', False),  # eight words of the known text
        ('About as thrilling as a long walk, it is not.', True),  # seven
    ],
)
def test_what_is_kept(line, kept):
    assert Filter([KNOWN]).is_kept(line) == kept


def test_a_line_is_kept_once():
    lines = Filter([])
    assert lines.is_kept('A smart and funny little film.')
    assert not lines.is_kept('A smart, and funny, little film!')
    assert lines.is_kept('A smart and funny little play.')
