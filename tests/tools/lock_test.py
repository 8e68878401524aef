"""Pipfile.lock for every machine and Python that it serves."""

import copy
import json
import os
import re
import sys
from concurrent.futures import ThreadPoolExecutor

import index_tools
import pytest
from packaging.markers import Marker
from repository import ROOT

sys.path.insert(0, os.path.join(ROOT, 'tools'))

import check_wheels  # noqa: E402

# What the markers ask of a machine.
MACHINES = {
    'Linux x86_64': dict(sys_platform='linux', platform_machine='x86_64'),
    'Linux aarch64': dict(sys_platform='linux', platform_machine='aarch64'),
    'macOS arm64': dict(sys_platform='darwin', platform_machine='arm64'),
    'macOS x86_64': dict(sys_platform='darwin', platform_machine='x86_64'),
}
CPU_X86, ARM, ARM_LINUX = {'tensorflow-cpu'}, {'tensorflow'}, {'tensorflow', 'tensorflow-cpu-aws'}
ENVIRONMENTS = {environment.sections: environment for environment in check_wheels.ENVIRONMENTS}
NEWEST = [(e.sections, e.pythons[-1], machine) for e in check_wheels.ENVIRONMENTS for machine in e.machines]


@pytest.fixture(scope='module')
def lock():
    with open(os.path.join(ROOT, 'Pipfile.lock')) as file:
        return json.load(file)


@pytest.fixture(scope='module')
def uv(tmp_path_factory):
    """A Python with the uv of `make lock`."""
    if sys.version_info < (3, 8):
        pytest.skip('uv needs Python 3.8 or later')
    with open(os.path.join(ROOT, 'Makefile')) as file:
        version = re.search(r'^LOCK_TOOLS = .*(uv==\S+)', file.read(), re.M).group(1)
    python = index_tools.installed(str(tmp_path_factory.mktemp('uv')), version)
    if not check_wheels.index_answers(python):
        pytest.skip('no index of packages answers uv here')
    return python


def missing(lock, sections, version, machine, uv):
    return check_wheels.missing(lock, ENVIRONMENTS[sections], version, machine, uv)


@pytest.fixture(scope='module')
def missing_wheels(lock, uv):
    """What is missing for the newest Python of each environment. `make wheels` checks every Python."""
    with ThreadPoolExecutor(4) as pool:
        return dict(zip(NEWEST, pool.map(lambda check: missing(lock, *check, uv), NEWEST)))


def test_every_section_is_checked(lock):
    checked = {section for sections in ENVIRONMENTS for section in sections.split(',')}
    assert checked == set(lock) - {'_meta'}


@pytest.mark.parametrize('name', ['Pipfile', 'Pipfile.lock'])
def test_no_index_is_named(name):
    with open(os.path.join(ROOT, name)) as file:
        assert not re.search(r'(https?|file)://|"index"|index *=', file.read())


@pytest.mark.parametrize(
    'section, machine, builds',
    [
        ('default', 'Linux x86_64', CPU_X86),
        ('default', 'Linux aarch64', ARM_LINUX),
        ('default', 'macOS arm64', ARM),
        ('default', 'macOS x86_64', CPU_X86),
        ('py312', 'Linux x86_64', CPU_X86),
        ('py312', 'Linux aarch64', ARM),
        ('py312', 'macOS arm64', ARM),
    ],
)
def test_each_machine_takes_its_build_of_tensorflow(lock, section, machine, builds):
    named = {name: entry for name, entry in lock[section].items() if re.fullmatch('tensorflow(-cpu.*|-gpu)?', name)}
    assert {name for name, e in named.items() if Marker(e['markers']).evaluate(MACHINES[machine])} == builds


@pytest.mark.slow
@pytest.mark.parametrize('sections, version, machine', NEWEST)
def test_every_machine_has_every_wheel(missing_wheels, sections, version, machine):
    assert missing_wheels[sections, version, machine] == ''


@pytest.mark.slow
def test_what_a_wheel_of_another_machine_needs_is_not_left_out(lock, uv):
    without = copy.deepcopy(lock)
    del without['default']['tensorflow-cpu-aws']
    assert 'tensorflow-cpu-aws' in missing(without, 'default,develop', '3.11', 'Linux aarch64', uv)


@pytest.mark.slow
def test_a_version_without_a_wheel_for_a_machine_is_found(lock, uv):
    old = copy.deepcopy(lock)
    old['default']['tensorflow-cpu']['markers'] = "sys_platform == 'darwin'"  # also Macs with Apple's processors
    assert 'tensorflow-cpu' in missing(old, 'default,develop', '3.11', 'macOS arm64', uv)
