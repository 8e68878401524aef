"""Which errors are reported in one line, and which are bugs."""

import json
import os
import re

import numpy as np
import pytest
from repository import ROOT

from lm_human_preferences.hyperparameters import SampleHParams
from lm_human_preferences.utils import errors
from lm_human_preferences.utils.errors import UserError, did_you_mean, user_message

# Where a package that is imported comes in a distribution of another name, or with one.
_STORAGE = 'google.cloud.storage'
DISTRIBUTIONS = {'werkzeug': 'flask', 'google.api_core': _STORAGE, 'google.auth': _STORAGE, 'google.cloud': _STORAGE}


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


def extras():
    """The extras of pyproject.toml: {name: distributions in lower case}. No library reads TOML on every Python."""
    with open(os.path.join(ROOT, 'pyproject.toml'), encoding='utf-8') as file:
        table = re.search(r'\[project.optional-dependencies\]\n(.*?)\n\n', file.read(), re.S).group(1)
    return {
        name: {re.match(r'[\w-]+', requirement).group().lower() for requirement in re.findall('"([^"]*)"', listed)}
        for name, listed in re.findall(r'^(\w+) = \[(.*)\]$', table, re.M)
    }


@pytest.mark.parametrize('module', errors.EXTRAS)
def test_the_extra_that_an_error_names_installs_the_module(module, monkeypatch):
    monkeypatch.setattr(errors, '_IS_CHECKOUT', False)
    what, extra = errors.EXTRAS[module]
    line = errors.how_to_install(f'{module}.part')
    assert line == f"{what} needs {module}.part: pip install 'lm-human-preferences[{extra}]'"
    assert re.sub('[._]', '-', DISTRIBUTIONS.get(module, module)).lower() in extras()[extra]


def test_every_extra_of_a_command_is_in_all():
    with open(os.path.join(ROOT, 'pyproject.toml'), encoding='utf-8') as file:
        named = re.search(r'^all = \["lm-human-preferences\[(.*)\]"\]$', file.read(), re.M).group(1)
    assert {extra for _, extra in errors.EXTRAS.values()} <= set(named.split(','))


def test_a_missing_part_of_a_package_that_is_there_is_a_bug():
    assert user_message(ModuleNotFoundError('x', name='json.none')) is None
    assert user_message(ModuleNotFoundError('x', name='no_such_package.none')) is not None


def test_did_you_mean():
    assert did_you_mean('sentimental', ['tldr', 'sentiment']) == 'sentiment'
