import asyncio
import os
import shutil
import signal
import sys

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
for folder in ('tests/support', 'benchmarks'):
    sys.path.insert(0, os.path.join(ROOT, folder))

import loopback  # noqa: E402
from tiny_run import TinyRun  # noqa: E402

from lm_human_preferences.remote import storage, transports  # noqa: E402

# A shell has what it starts in the background ignore Ctrl-C, and that would pass on to the processes of the tests.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(scope='session')
def golden_dir():
    """Folder of the numbers recorded from the reference; GOLDEN_DIR names another of the same form."""
    return os.environ.get('GOLDEN_DIR') or os.path.join(ROOT, 'tests', 'golden')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """An empty cache folder of the test's own."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'cache').mkdir()
    return tmp_path / 'cache'


@pytest.fixture
def web():
    """A web server without any file."""
    with loopback.WebServer().running() as server:
        yield server


@pytest.fixture(scope='session')
def cloud():
    """Google Cloud Storage on this machine, with the bucket `bucket`; STORAGE_EMULATOR_HOST names it from now on."""
    server = loopback.CloudStorage('bucket')
    os.environ['STORAGE_EMULATOR_HOST'] = server.url  # before google-cloud-storage is loaded, which reads it then
    yield server
    server.stop()


@pytest.fixture
def quick_retries(monkeypatch):
    """Pauses and time limits of a download short enough for a test."""
    monkeypatch.setattr(storage, 'FIRST_PAUSE', 0.01)
    monkeypatch.setattr(transports, 'STALL_SECONDS', 0.5)


@pytest.fixture
def mirror(web, cloud, monkeypatch):
    """A web server in place of the new home of the data of 2019; their old home has none of it."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', web.url + '/')
    return web


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
    """A finished run of `train_policy` with its reward model; tests leave it as it is, evaluations aside."""
    return TinyRun(str(tmp_path_factory.mktemp('runs')))


@pytest.fixture(scope='module')
def chromium():
    """A Chromium of this machine without a window, driven by Playwright; CHROMIUM=PATH names one."""
    playwright = pytest.importorskip('playwright.sync_api', reason='needs the Python package playwright')
    names = ('chromium', 'chromium-browser', 'google-chrome', 'google-chrome-stable')
    path = os.environ.get('CHROMIUM') or next(filter(None, map(shutil.which, names)), None)
    if path is None:
        pytest.skip('no Chromium to drive: install one, or name it with CHROMIUM=PATH')
    try:
        with playwright.sync_playwright() as started:
            browser = started.chromium.launch(executable_path=path, args=['--no-sandbox'])
            yield browser
            browser.close()
    finally:
        if sys.version_info < (3, 8):
            # There Playwright leaves a handler of SIGCHLD behind that nothing reads from, and Python complains.
            asyncio.get_child_watcher().attach_loop(None)
