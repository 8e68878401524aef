"""The cache folder of users without a home folder that can be written."""

import os
import subprocess
import sys
import tempfile

import pytest
from repository import ROOT

from lm_human_preferences.remote import cache as cache_module
from lm_human_preferences.utils.errors import UserError

FIND = """
import os, sys
from lm_human_preferences.remote.cache import cache_dir, cache_folder
uid = int(sys.argv[1])
if uid:
    os.setgid(uid)
    os.setuid(uid)
print(cache_dir())
print(cache_folder('places'))
"""


def find(folder, uid=0, **environment):
    """Ask for the cache folder in a process of its own; return (status, output, errors)."""
    env = {name: value for name, value in os.environ.items() if name in ('PATH', 'LD_LIBRARY_PATH')}
    env.update(PYTHONPATH=ROOT, TMPDIR=str(folder), **environment)
    done = subprocess.run([sys.executable, '-c', FIND, str(uid)], env=env, cwd=str(folder), capture_output=True)
    return done.returncode, done.stdout.decode().splitlines(), done.stderr.decode()


@pytest.mark.parametrize('home', ['/dev/null', 'relative', '/dev/null/none'])
def test_without_a_usable_home(tmp_path, home):
    environment = {'XDG_CACHE_HOME': 'relative'} if home == 'relative' else {'HOME': home}
    status, folders, errors = find(tmp_path, **environment)
    private = str(tmp_path / f'lm-human-preferences-{os.geteuid()}')
    assert status == 0 and folders == [private, private + '/places'], errors
    assert errors.startswith('note: ') and errors.count('\n') == 1, errors
    assert (
        f'cannot be written: the cache is in {private}; set LM_HUMAN_PREFERENCES_CACHE to keep it elsewhere' in errors
    )
    assert os.stat(private).st_mode & 0o777 == 0o700
    assert os.listdir(str(tmp_path)) == [os.path.basename(private)]


@pytest.mark.parametrize('environment', [{}, {'HOME': '/'}])
def test_a_user_without_an_entry_in_passwd(environment):
    """For example in a container that is started with another user number."""
    if os.geteuid():
        pytest.skip('only root can become another user')
    with tempfile.TemporaryDirectory() as folder:
        os.chmod(folder, 0o777)
        status, folders, errors = find(folder, uid=54321, **environment)
        assert status == 0 and folders[0] == os.path.join(folder, 'lm-human-preferences-54321'), errors
        assert os.listdir(folder) == ['lm-human-preferences-54321'] and errors.startswith('note: ')


def test_a_temporary_folder_that_is_not_private(tmp_path):
    (tmp_path / f'lm-human-preferences-{os.geteuid()}').mkdir(mode=0o755)
    status, folders, errors = find(tmp_path, HOME='/dev/null')
    assert (
        status == 1 and folders == [] and 'is not private: set LM_HUMAN_PREFERENCES_CACHE to another folder' in errors
    )


def test_a_cache_that_is_named_and_cannot_be_made(tmp_path, monkeypatch):
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', '/dev/null/cache')
    with pytest.raises(
        OSError, match='^cannot write /dev/null/cache/places .*set LM_HUMAN_PREFERENCES_CACHE to another'
    ):
        cache_module.cache_folder('places')


def test_a_home_that_does_not_exist(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match='^~nobody-here/x: there is no home folder for ~nobody-here: set HOME, or give'):
        cache_module.expanded_home('~nobody-here/x')
    (tmp_path / '~x').write_text('')
    assert cache_module.expanded_home('~x') == '~x'
