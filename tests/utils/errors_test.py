"""Which errors are reported in one line, and which are bugs."""

import json
import os

import numpy as np
import pytest

from lm_human_preferences.hyperparameters import SampleHParams
from lm_human_preferences.utils.errors import UserError, did_you_mean, user_message


def message_of(call):
    with pytest.raises(Exception) as error:
        call()
    return user_message(error.value)


def test_the_users_mistakes_are_one_line():
    def refuse():
        raise UserError('two\n lines')

    assert message_of(refuse) == 'two lines'
    assert message_of(lambda: os.stat('/none/file')) == '/none/file: No such file or directory'
    assert message_of(lambda: SampleHParams(save_dir='').validate()) == "save_dir must be a name or path, not ''"


def test_errors_inside_libraries_are_bugs():
    assert message_of(lambda: np.zeros([2]) + np.zeros([3])) is None
    assert message_of(lambda: json.loads('{')) is None
    assert message_of(lambda: None.missing) is None


def test_did_you_mean():
    assert did_you_mean('sentimental', ['tldr', 'sentiment']) == 'sentiment'
