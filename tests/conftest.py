"""Fixtures for all tests. Helpers that tests import are modules of tests/support."""

import asyncio
import os
import shutil
import signal
import sys
import time

import pytest

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, ROOT)
for folder in ('tests/support', 'benchmarks'):
    sys.path.insert(0, os.path.join(ROOT, folder))

import hub_server as hub_servers  # noqa: E402
import loopback  # noqa: E402
from tiny_run import TinyRun  # noqa: E402

from lm_human_preferences.remote import failures, storage  # noqa: E402
from lm_human_preferences.remote import hub as hub_files  # noqa: E402

# A shell makes background processes ignore Ctrl-C. Without this line, processes that tests start would ignore it, too.
signal.signal(signal.SIGINT, signal.default_int_handler)


# No test asks the public hub; the fixture `hub_server` lifts this for its own.
os.environ['HF_HUB_OFFLINE'] = '1'


@pytest.fixture(scope='session')
def golden_dir():
    """Return the folder of numbers recorded from the 2019 code. GOLDEN_DIR names another folder of that form."""
    return os.environ.get('GOLDEN_DIR') or os.path.join(ROOT, 'tests', 'golden')


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """Return an empty cache folder for this test alone."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'cache'))
    (tmp_path / 'cache').mkdir()
    return tmp_path / 'cache'


@pytest.fixture
def web():
    """Return a web server that has no files yet."""
    with loopback.WebServer().running() as server:
        yield server


@pytest.fixture(scope='session')
def cloud():
    """Return an emulated Google Cloud Storage with the bucket `bucket`. STORAGE_EMULATOR_HOST names it from then on."""
    server = loopback.CloudStorage('bucket')
    os.environ['STORAGE_EMULATOR_HOST'] = server.url  # google-cloud-storage reads it when it is loaded
    yield server
    server.stop()


@pytest.fixture(scope='session')
def hub_server(tmp_path_factory):
    """Return a server of the Hugging Face hub's protocol. HF_ENDPOINT names it from then on."""
    home = str(tmp_path_factory.mktemp('hub'))
    os.environ.update(HF_HOME=home, HF_HUB_DISABLE_XET='1', HF_HUB_DISABLE_TELEMETRY='1')
    for name in ('HF_TOKEN', 'HUGGING_FACE_HUB_TOKEN', 'HF_HUB_OFFLINE', 'HF_HUB_CACHE', 'HUGGINGFACE_HUB_CACHE'):
        os.environ.pop(name, None)
    for name in [name for name in sys.modules if name.partition('.')[0] == 'huggingface_hub']:
        del sys.modules[name]  # it reads the environment when it is loaded
    hub_files.load_library.cache_clear()
    with hub_servers.HubServer().running() as server:
        os.environ['HF_ENDPOINT'] = server.url
        pytest.importorskip('huggingface_hub', reason='needs the Python package huggingface_hub')
        yield server


@pytest.fixture
def hub(hub_server, cache):
    """Return the server of the hub, without repositories. The hub's cache is empty, and nobody is logged in."""
    hub_server.clear()
    hub_files.forget()
    shutil.rmtree(os.environ['HF_HOME'], ignore_errors=True)
    yield hub_server
    hub_files.forget()


@pytest.fixture
def quick_retries(monkeypatch):
    """Shorten the pauses and time limits of downloads."""
    monkeypatch.setattr(storage, 'FIRST_PAUSE', 0.01)
    monkeypatch.setattr(failures, 'STALL_SECONDS', 0.5)


@pytest.fixture
def quick_hub_retries(monkeypatch):
    """Shorten all pauses, also those of huggingface_hub."""
    pause = time.sleep
    monkeypatch.setattr(time, 'sleep', lambda seconds: pause(min(seconds, 0.02)))


@pytest.fixture
def mirror(web, cloud, monkeypatch):
    """Return a web server that stands for the new place of the 2019 data. The old place has none of it."""
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_PUBLISHED', web.url + '/')
    return web


@pytest.fixture(scope='session')
def tiny_run(tmp_path_factory):
    """Return a finished run of `train_policy` with its reward model. Tests may evaluate it, and change nothing else."""
    return TinyRun(str(tmp_path_factory.mktemp('runs')))


@pytest.fixture(scope='module')
def chromium():
    """Return a headless Chromium of this machine, driven by Playwright. CHROMIUM=PATH names another one."""
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
            # On Python 3.7 Playwright leaves a SIGCHLD handler behind that nothing reads from; Python would warn.
            asyncio.get_child_watcher().attach_loop(None)
