"""Fetch files from web servers and Google Cloud Storage: complete, verified, once per host; else one clear line."""

import fcntl
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import termios
import time

import loopback
import pytest
import requests
from repository import ROOT

from lm_human_preferences.remote import storage, transports

BODY = os.urandom(1000) * 3000  # 3 MB


def content(source):
    with open(storage.local_file(source), 'rb') as f:
        return f.read()


def visible(folder):
    """Return the files below a folder that are not hidden."""
    return [name for _, _, names in os.walk(str(folder)) for name in names if not name.startswith('.')]


def test_a_local_path_stays_one(tmp_path):
    (tmp_path / 'x').write_text('here')
    assert storage.local_file(str(tmp_path / 'x')) == str(tmp_path / 'x')
    with pytest.raises(FileNotFoundError, match='nothing not found'):
        storage.local_file(str(tmp_path / 'nothing'))


def test_a_file_is_fetched_once_and_kept(cache, web):
    web.files['/folder/a b.bin'] = BODY
    path = storage.local_file(web.url + '/folder/a%20b.bin')
    assert path == str(cache / 'http' / f'127.0.0.1:{web.server_port}' / 'folder' / 'a b.bin')
    assert content(web.url + '/folder/a%20b.bin') == BODY
    assert web.bodies == {'/folder/a b.bin': 1}  # the second request found it unchanged
    assert not [name for name in os.listdir(os.path.dirname(path)) if 'lock' in name or 'partial' in name]


def test_a_changed_file_is_fetched_anew(cache, web):
    web.files['/x'] = b'old'
    assert content(web.url + '/x') == b'old'
    web.files['/x'] = b'newer'
    assert content(web.url + '/x') == b'newer'


def test_without_an_answer_the_copy_is_used(cache, web, quick_retries):
    web.files['/x'] = b'kept'
    content(web.url + '/x')
    web.faults['/x'] = [503] * 9
    assert content(web.url + '/x') == b'kept'


def test_a_file_put_there_by_hand_is_used(cache):
    path = storage.cache_path('https://nowhere.invalid/labels.json')
    os.makedirs(os.path.dirname(path))
    with open(path, 'w') as f:
        f.write('by hand')
    assert content('https://nowhere.invalid/labels.json') == b'by hand'


def test_a_cut_download_is_resumed(cache, web, quick_retries):
    web.files['/x'] = BODY
    web.faults['/x'] = ['cut', 'cut', 'cut']
    assert content(web.url + '/x') == BODY
    starts = [asked for _, asked in web.requests]
    assert starts[0] is None and all(re.match(r'bytes=\d+-$', asked) for asked in starts[1:]) and len(starts) == 4


def test_without_ranges_a_cut_download_starts_again(cache, quick_retries):
    with loopback.WebServer(ranges=False).running() as web:
        web.files['/x'] = BODY
        web.faults['/x'] = ['cut']
        assert content(web.url + '/x') == BODY and web.bodies['/x'] == 2


def test_a_file_that_changes_during_a_download_is_not_mixed(cache, web, quick_retries):
    web.files['/x'] = BODY
    web.faults['/x'] = ['cut'] * storage.ATTEMPTS * 9
    with pytest.raises(ConnectionError):
        content(web.url + '/x')
    web.files['/x'], web.faults['/x'] = BODY[::-1], []
    assert content(web.url + '/x') == BODY[::-1]


def test_a_complete_partial_file_is_used(cache, web):
    """The process was killed after the last byte and before the renaming."""
    web.files['/x'] = BODY
    path = storage.local_file(web.url + '/x')
    folder = os.path.dirname(path)
    os.rename(path, os.path.join(folder, '.x.partial'))
    os.rename(os.path.join(folder, '.x.version'), os.path.join(folder, '.x.partial.version'))
    assert content(web.url + '/x') == BODY


def test_a_server_that_is_busy_is_asked_again(cache, web, quick_retries):
    web.files['/x'] = b'at last'
    web.faults['/x'] = [503, 500, 429, (503, {'Retry-After': '1'})]
    start = time.time()
    assert content(web.url + '/x') == b'at last'
    assert time.time() - start >= 1  # as long as it asked for


@pytest.mark.parametrize('checksums', [True, False])
def test_a_download_that_never_completes(cache, quick_retries, checksums):
    with loopback.WebServer(ranges=False, checksums=checksums).running() as web:
        web.files['/x'] = BODY
        web.faults['/x'] = ['cut'] * 20
        with pytest.raises(ConnectionError, match=r'x: the connection ended .*\(attempt 5\)\. .*put the file at .*/x$'):
            storage.local_file(web.url + '/x')
    assert visible(cache) == []


def test_a_wrong_byte(cache, web, quick_retries):
    web.files['/x'] = BODY
    web.faults['/x'] = ['wrong']
    assert content(web.url + '/x') == BODY
    web.files['/y'] = BODY
    web.faults['/y'] = ['wrong'] * 20
    with pytest.raises(ConnectionError, match=r'/y: the checksum \(md5\) of the download is not'):
        storage.local_file(web.url + '/y')
    assert visible(cache) == ['x']


@pytest.mark.parametrize(
    'headers, status, expected',
    [
        ({'x-goog-hash': 'crc32c=AAAAAA==,md5=1B2M2Y8AsgTpgAmY7PhCfg=='}, 200, {'crc32c', 'md5'}),
        ({'Content-MD5': '1B2M2Y8AsgTpgAmY7PhCfg=='}, 200, {'md5'}),
        ({'Content-MD5': '1B2M2Y8AsgTpgAmY7PhCfg=='}, 206, set()),
        ({'x-ms-blob-content-md5': '1B2M2Y8AsgTpgAmY7PhCfg=='}, 206, {'md5'}),
        ({'ETag': '"d41d8cd98f00b204e9800998ecf8427e"'}, 200, set()),
        ({'ETag': '"d41d8cd98f00b204e9800998ecf8427e"', 'Server': 'AmazonS3'}, 200, {'md5'}),
        ({'ETag': '"d41d8cd98f00b204e9800998ecf8427e-2"', 'Server': 'AmazonS3'}, 200, set()),
    ],
)
def test_which_checksums_count(headers, status, expected):
    response = requests.Response()
    response.status_code = status
    response.headers.update(headers)
    found = transports._checksums(response)
    assert set(found) == expected and found.get('md5', '1B2M2Y8AsgTpgAmY7PhCfg==') == '1B2M2Y8AsgTpgAmY7PhCfg=='


def test_a_server_that_stalls(cache, web, quick_retries):
    web.files['/x'] = BODY
    web.faults['/x'] = ['stall']
    assert content(web.url + '/x') == BODY
    web.faults['/y'] = ['stall'] * 20
    web.files['/y'] = b'yy'
    with pytest.raises(ConnectionError, match='no data for 0.5 seconds'):
        storage.local_file(web.url + '/y')


def test_neither_size_nor_checksum(cache):
    with loopback.WebServer(sizes=False, checksums=False).running() as web:
        web.files['/x'] = BODY
        with pytest.raises(OSError, match='neither size nor checksum'):
            storage.local_file(web.url + '/x')


@pytest.mark.parametrize(
    'status, kind, words', [(404, FileNotFoundError, 'not found'), (403, PermissionError, 'no permission')]
)
def test_a_clear_refusal_is_not_retried(cache, web, status, kind, words):
    web.faults['/x'] = [status] * 9
    with pytest.raises(kind) as caught:
        storage.local_file(web.url + '/x?key=secret')
    message = str(caught.value)
    assert message.startswith(f'cannot fetch {web.url}/x: {words} ({status}). To supply it by hand, put the file at ')
    assert 'secret' not in message and len(web.requests) == 1


def test_no_server_and_no_name(cache, quick_retries):
    with pytest.raises(ConnectionError, match=r'http://127.0.0.1:9/x: .*refused \(attempt 5\)\. To supply'):
        storage.local_file('http://127.0.0.1:9/x')
    with pytest.raises(ConnectionError, match='https://nowhere.invalid/x: .*(esolve|known)'):
        storage.local_file('https://nowhere.invalid/x')


@pytest.mark.parametrize('source', ['https://host', 'https://host/folder/', 'gs://bucket', 'gs://bucket/a/../b'])
def test_what_names_no_file(cache, source):
    with pytest.raises(ValueError, match='does not name a file'):
        storage.local_file(source)


def test_https(cache, tmp_path, monkeypatch, web):
    trustme = pytest.importorskip('trustme')
    import ssl

    authority = trustme.CA()
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('127.0.0.1').configure_cert(context)
    web.socket = context.wrap_socket(web.socket, server_side=True)
    web.scheme = 'https'
    web.files['/x'] = BODY
    with pytest.raises(OSError, match='its certificate cannot be verified'):
        storage.local_file(web.url + '/x')
    authority.cert_pem.write_to_path(str(tmp_path / 'authority.pem'))
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', str(tmp_path / 'authority.pem'))
    assert content(web.url + '/x') == BODY
    assert storage.cache_path(web.url + '/x') == str(cache / 'https' / f'127.0.0.1:{web.server_port}' / 'x')


FETCH = """
import sys
from lm_human_preferences.remote import storage
print(storage.local_file(sys.argv[1]))
"""


def fetching(url):
    env = dict(os.environ, PYTHONPATH=ROOT)
    return subprocess.Popen([sys.executable, '-c', FETCH, url], env=env, stdout=subprocess.PIPE)


def test_processes_share_one_download(cache, web):
    web.files['/x'] = BODY
    paths = {process.communicate()[0] for process in [fetching(web.url + '/x') for _ in range(4)]}
    assert len(paths) == 1 and web.bodies == {'/x': 1}
    assert content(web.url + '/x') == BODY


def test_progress_on_a_terminal(cache, web):
    web.files['/x'] = BODY
    ours, terminal = os.openpty()
    os.set_blocking(ours, False)
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack('HHHH', 24, 80, 0, 0))  # a new terminal has 0 columns
    env = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run(
        [sys.executable, '-c', FETCH, web.url + '/x'], env=env, stdout=subprocess.PIPE, stderr=terminal
    )
    assert done.returncode == 0
    shown = os.read(ours, 1 << 16).decode()
    os.close(terminal)
    os.close(ours)
    assert shown.startswith('\rx: ') and '2.86M' in shown and 'B/s' in shown


def test_a_killed_download_leaves_no_lock_and_is_resumed(cache, web):
    web.files['/x'] = BODY
    web.faults['/x'] = ['stall']
    killed = fetching(web.url + '/x')
    partial = cache / 'http' / f'127.0.0.1:{web.server_port}' / '.x.partial'
    while not (partial.exists() and partial.stat().st_size >= 1 << 20):
        assert killed.poll() is None
        time.sleep(0.01)
    waiting = fetching(web.url + '/x')
    killed.send_signal(signal.SIGKILL)
    killed.communicate()
    waiting.communicate()
    assert waiting.returncode == 0 and content(web.url + '/x') == BODY
    assert web.requests[1][1] is not None  # the second resumed where the first stopped


def test_full_disk(cache, web, tmp_path, monkeypatch):
    if os.geteuid() or not shutil.which('mount'):
        pytest.skip('only root can mount a small disk')
    disk = tmp_path / 'disk'
    disk.mkdir()
    if subprocess.call(['mount', '-t', 'tmpfs', '-o', 'size=1m', 'tmpfs', str(disk)], stderr=subprocess.DEVNULL):
        pytest.skip('mounting a small disk is not allowed here')
    try:
        monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(disk))
        web.files['/x'] = BODY
        for checked_before in (True, False):
            if not checked_before:  # as if another process had filled the disk
                monkeypatch.setattr(shutil, 'disk_usage', lambda path: shutil._ntuple_diskusage(0, 0, 1 << 40))
            with pytest.raises(OSError, match='no space left for .*/x .*LM_HUMAN_PREFERENCES_CACHE') as caught:
                storage.local_file(web.url + '/x')
            assert not isinstance(caught.value, FileNotFoundError) and '\n' not in str(caught.value)
            assert visible(disk) == []
    finally:
        subprocess.check_call(['umount', str(disk)])


def test_a_cache_that_cannot_be_made(tmp_path, monkeypatch, web):
    (tmp_path / 'file').write_text('')
    monkeypatch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path / 'file'))
    web.files['/x'] = b''
    with pytest.raises(OSError, match='cannot write .*Not a directory.* set LM_HUMAN_PREFERENCES_CACHE'):
        storage.local_file(web.url + '/x')


# Google Cloud Storage.


def test_cloud_storage(cache, cloud):
    cloud.put('folder/a b.bin', BODY)
    path = storage.local_file('gs://bucket/folder/a b.bin')
    assert path == str(cache / 'gs' / 'bucket' / 'folder' / 'a b.bin')
    assert content('gs://bucket/folder/a b.bin') == BODY
    cloud.put('folder/a b.bin', b'changed')
    assert content('gs://bucket/folder/a b.bin') == b'changed'


def test_cloud_storage_resumes_and_verifies(cache, cloud, quick_retries):
    cloud.put('x', BODY)
    path = storage.local_file('gs://bucket/x')
    folder = os.path.dirname(path)
    for keep, right in ((2000000, True), (2000000, False)):
        with open(path, 'rb') as f:
            part = f.read(keep)
        os.rename(os.path.join(folder, '.x.version'), os.path.join(folder, '.x.partial.version'))
        with open(os.path.join(folder, '.x.partial'), 'wb') as f:
            f.write(part if right else b'!' + part[1:])
        os.unlink(path)
        assert content('gs://bucket/x') == BODY


def test_cloud_storage_without_the_object(cache, cloud):
    with pytest.raises(FileNotFoundError, match=r'cannot fetch gs://bucket/none: not found \(404\)\. To supply it by'):
        storage.local_file('gs://bucket/none')


@pytest.mark.parametrize('status', [401, 403])
def test_cloud_storage_without_permission(cache, web, status):
    """The emulator refuses nothing, so our own server does, in a process that knows only this server."""
    web.faults['/storage/v1/b/bucket/o/x'] = [status] * 9
    env = dict(os.environ, PYTHONPATH=ROOT, STORAGE_EMULATOR_HOST=web.url)
    done = subprocess.run([sys.executable, '-c', FETCH, 'gs://bucket/x'], env=env, capture_output=True)
    last = done.stderr.decode().strip().splitlines()[-1]
    assert re.match(r'\S*Refused: cannot fetch gs://bucket/x: no permission.*put the file at \S*/gs/bucket/x\Z', last)
    assert len(web.requests) <= 3  # google-auth retries after a 401


# The data of 2019.


def test_moved_buckets_are_found_at_their_new_home(cache, mirror):
    mirror.files['/lm-human-preferences/labels/a.json'] = b'[]'
    mirror.files['/gpt-2/encodings/main/vocab.bpe'] = b'#version'
    assert storage.local_file('gs://lm-human-preferences/labels/a.json') == str(cache / 'labels' / 'a.json')
    assert content('gs://gpt-2/encodings/main/vocab.bpe') == b'#version'
    asked = len(mirror.requests)
    content('gs://gpt-2/encodings/main/vocab.bpe')
    assert len(mirror.requests) == asked  # they never change


def test_moved_buckets_are_tried_at_both_places(cache, mirror):
    message = r'cannot fetch {}/gpt-2/x: not found \(404\); gs://gpt-2/x: not found \(404\)\. To .* at {}/x$'
    with pytest.raises(FileNotFoundError, match=message.format(mirror.url, cache)):
        storage.local_file('gs://gpt-2/x')


def test_the_new_home_is_public_and_secure():
    assert storage.NEW_HOME == 'https://openaipublic.blob.core.windows.net'


def test_join():
    assert storage.join('gs://b/run/', 'policy', 'x') == 'gs://b/run/policy/x'
    assert storage.join('https://h/run?sig=a', 'policy', 'x y') == 'https://h/run/policy/x%20y?sig=a'
    assert storage.join('/run', 'policy') == '/run/policy'
