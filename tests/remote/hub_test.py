"""Files on the Hugging Face hub: the real library against a server of the hub's protocol on this machine."""

import os
import subprocess
import sys

import pytest
from repository import ROOT

from lm_human_preferences.launcher import mpiexec
from lm_human_preferences.remote import hub as hub_files
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.text import shared

BODY = bytes(range(256)) * 12000  # 3 MB
FETCH = """
import sys, time
time.sleep = lambda seconds: None
from lm_human_preferences.remote import storage
print(storage.local_file(sys.argv[1]))
"""


def content(url):
    with open(storage.local_file(url), 'rb') as file:
        return file.read()


def failure(url, error=OSError):
    with pytest.raises(error) as caught:
        storage.local_file(url)
    line = str(caught.value)
    assert '\n' not in line and url in line, line
    return caught.value, line


def fetched_elsewhere(url, **env):
    """Fetch a file in a process of its own. Return (status, last line of its errors, path)."""
    done = subprocess.run(
        [sys.executable, '-c', FETCH, url],
        env=dict(os.environ, PYTHONPATH=ROOT, **env),
        capture_output=True,
        text=True,
    )
    return done.returncode, (done.stderr.strip().splitlines() or [''])[-1], done.stdout.strip()


@pytest.mark.parametrize(
    'url, place',
    [
        ('hf://a/b', ('model', 'a/b', None, '')),
        ('hf://a/b/', ('model', 'a/b', None, '')),
        ('hf://a/b@v1.0/x/y.json', ('model', 'a/b', 'v1.0', 'x/y.json')),
        ('hf://a/b@feature%2Fone/x', ('model', 'a/b', 'feature/one', 'x')),
        ('hf://a/b@refs/pr/7/x', ('model', 'a/b', 'refs/pr/7', 'x')),
        ('hf://datasets/a/b/x y.txt', ('dataset', 'a/b', None, 'x y.txt')),
        (
            'hf://datasets/a/b@refs/convert/parquet/en/0.parquet',
            ('dataset', 'a/b', 'refs/convert/parquet', 'en/0.parquet'),
        ),
        ('hf://datasets/data', ('model', 'datasets/data', None, '')),
    ],
)
def test_spellings(url, place):
    assert hub_files.parse(url) == place


@pytest.mark.parametrize(
    'url', ['hf://', 'hf://gpt2', 'hf://a/b/../c', 'hf://a/b//c', 'hf://a b/c', 'hf://u:hf_secret@a/b']
)
def test_other_spellings_are_refused(url):
    with pytest.raises(UserError, match=r'names nothing on the hub: give hf://OWNER/NAME\[@REVISION\]'):
        hub_files.parse(url)


def test_a_url_of_the_hub_has_no_secrets_to_hide():
    assert shared('hf://a/b@v1/x.parquet#text') == 'hf://a/b@v1/x.parquet#text'
    assert shared('parquet:hf://datasets/a/b@v1/x*.parquet#text') == 'parquet:hf://datasets/a/b@v1/x*.parquet#text'
    assert 'secret' not in shared('hf://user:secret@a/b')


def test_a_small_and_a_large_file(hub):
    hub.put('a/b', {'config.json': {'x': 1}, 'model.safetensors': BODY})
    assert content('hf://a/b/config.json') == b'{"x": 1}'
    assert content('hf://a/b/model.safetensors') == BODY
    folder = os.path.dirname(storage.local_file('hf://a/b/config.json'))
    assert folder == os.path.dirname(storage.local_file('hf://a/b/model.safetensors'))
    assert folder.startswith(os.environ['HF_HOME'])
    before = len(hub.requests)
    content('hf://a/b/model.safetensors')
    assert len(hub.requests) == before  # one process reads one commit
    hub_files.forget()
    content('hf://a/b/model.safetensors')
    assert [asked.method for asked in hub.requests[before:]] == ['HEAD']


def test_data_sets_and_revisions(hub):
    data = hub.put('datasets/a/b', {'x.txt': 'first'})
    data.refs['v1'] = first = data.refs['main']
    data.refs['refs/convert/parquet'] = data.commit({'x.txt': b'second'}, 'other')
    data.commit({'x.txt': b'third'})
    assert content('hf://datasets/a/b/x.txt') == b'third'
    assert content('hf://datasets/a/b@v1/x.txt') == b'first'
    assert content(f'hf://datasets/a/b@{first}/x.txt') == b'first'
    assert content('hf://datasets/a/b@refs/convert/parquet/x.txt') == b'second'


def test_all_files_are_of_one_commit(hub):
    model = hub.put('a/b', {'x': 'old x', 'y': 'old y'})
    assert content('hf://a/b/x') == b'old x'
    model.commit({'x': b'new x', 'y': b'new y'})
    assert content('hf://a/b/y') == b'old y'
    hub_files.forget()  # as another process
    assert content('hf://a/b/y') == b'new y'


def test_the_token_is_sent_to_the_hub_alone(hub, monkeypatch):
    hub.put('a/b', {'model.safetensors': BODY}, private=True)
    failure('hf://a/b/model.safetensors')
    monkeypatch.setenv('HF_TOKEN', 'hf_reader')
    assert content('hf://a/b/model.safetensors') == BODY
    assert {asked.authorization for asked in hub.asked('HEAD /a/b')} == {'', 'Bearer hf_reader'}
    assert [asked.authorization for asked in hub.asked('GET /cdn')] == ['']


# Errors.


def test_a_file_that_is_not_there(hub):
    hub.put('a/b', {'x': ''})
    error, line = failure('hf://a/b/y')
    assert isinstance(error, FileNotFoundError)
    assert line == 'cannot fetch hf://a/b/y: the repository has no such file (404)'


def test_a_revision_that_is_not_there(hub):
    hub.put('a/b', {'x': ''})
    _, line = failure('hf://a/b@v2/x')
    assert 'the repository has no revision v2: give a branch, a tag or a commit of it' in line


@pytest.mark.parametrize('token, status', [('', 401), ('hf_reader', 404)])
def test_a_repository_that_is_not_there(hub, monkeypatch, token, status):
    monkeypatch.setenv('HF_TOKEN', token)
    error, line = failure('hf://a/none/x')
    assert not isinstance(error, storage.NOT_THERE)  # no other name in it is tried
    assert (
        f'there is no repository a/none that you may read ({status}): check the name; if it is private, log in' in line
    )


def test_a_wrong_token(hub, monkeypatch):
    hub.put('a/b', {'x': ''})
    monkeypatch.setenv('HF_TOKEN', 'hf_other')
    _, line = failure('hf://a/b/x')
    assert '(401)' in line and 'set HF_TOKEN' in line and 'hf_other' not in line


@pytest.mark.parametrize('token, status', [('', 401), ('hf_writer', 403)])
def test_a_gated_repository(hub, monkeypatch, token, status):
    hub.put('datasets/a/b', {'x.txt': 'text'}, gated=True)
    monkeypatch.setenv('HF_TOKEN', token)
    _, line = failure('hf://datasets/a/b/x.txt')
    assert f'the repository is gated ({status}): ask for access at {hub.url}/datasets/a/b, then log in' in line
    monkeypatch.setenv('HF_TOKEN', 'hf_reader')
    assert content('hf://datasets/a/b/x.txt') == b'text'


def test_no_permission(hub):
    hub.put('a/b', {'x': ''})
    hub.faults = [('resolve', 403)]
    assert 'no permission (403): the token' in failure('hf://a/b/x')[1]


def test_too_many_requests(hub, quick_hub_retries):
    hub.put('a/b', {'x': 'text'})
    hub.faults = [('HEAD', (429, {'Retry-After': '1'}))] * 2
    assert content('hf://a/b/x') == b'text'
    hub_files.forget()
    hub.put('a/c', {'x': 'text'})
    hub.faults = [('resolve', (429, {'Retry-After': '1'}))] * 100
    error, line = failure('hf://a/c/x')
    assert isinstance(error, ConnectionError)
    assert 'the hub answers 429, too many requests: try again later, or log in' in line and '(attempt 5)' in line


@pytest.mark.parametrize('status', [500, 503, 504])
def test_a_hub_that_is_down(hub, quick_hub_retries, status):
    hub.put('a/b', {'x': 'text'})
    hub.faults = [('resolve', status)] * 3
    assert content('hf://a/b/x') == b'text'
    hub.faults = [('resolve', status)] * 100
    hub_files.forget()
    assert content('hf://a/b/x') == b'text'  # the copy in the cache
    hub.put('a/c', {'x': 'text'})
    error, line = failure('hf://a/c/x')
    assert isinstance(error, ConnectionError) and f'the hub answers {status}: try again later' in line


def test_a_body_that_is_cut_off_is_resumed(hub, quick_hub_retries):
    body = BODY * 8  # the library writes pieces of 10 MB
    hub.put('a/b', {'model.safetensors': body})
    hub.faults = [('GET /cdn', 'cut')]
    assert content('hf://a/b/model.safetensors') == body
    assert [bool(asked.range) for asked in hub.asked('GET /cdn')] == [False, True]


def test_a_body_that_is_always_cut_off(hub, quick_hub_retries):
    hub.put('a/b', {'x.txt': 'word ' * 1000})
    hub.faults = [('GET', 'cut')] * 100
    error, line = failure('hf://a/b/x.txt')
    assert isinstance(error, ConnectionError) and 'connection ended' in line


@pytest.mark.skipif(sys.version_info < (3, 8), reason='the limit of its library cannot be set')
def test_a_body_that_stalls_is_asked_for_again(hub):
    hub.put('a/b', {'model.safetensors': BODY})
    hub.faults = [('GET /cdn', 'stall')]
    status, line, path = fetched_elsewhere('hf://a/b/model.safetensors', HF_HUB_DOWNLOAD_TIMEOUT='1')
    assert status == 0, line
    with open(path, 'rb') as file:
        assert file.read() == BODY


def test_a_cache_that_cannot_be_written(hub, tmp_path):
    hub.put('a/b', {'x': 'text'})
    (tmp_path / 'file').write_text('')
    status, line, _ = fetched_elsewhere('hf://a/b/x', HF_HOME=str(tmp_path / 'file'))
    assert status == 1 and 'RemoteError: cannot fetch hf://a/b/x: cannot write ' in line, line
    assert line.endswith('(Not a directory): make the folder writable, or set HF_HUB_CACHE to another folder')


def test_a_server_that_is_no_hub(hub, quick_hub_retries):
    hub.faults = [('HEAD', (200, {'ETag': '"x"'}))] * 20
    assert f'{hub.url} does not answer as the hub does: check HF_ENDPOINT and the proxy' in failure('hf://a/b/x')[1]


@pytest.mark.parametrize('body', [b'<html>log in', b'{}'])
def test_a_listing_of_a_server_that_is_no_hub(hub, body):
    hub.faults = [('GET /api/', (200, {}, body))]
    with pytest.raises(OSError, match='does not answer as the hub does: check HF_ENDPOINT and the proxy'):
        storage.matching('hf://a/b/*.txt')


def test_a_token_with_a_line_end(hub, monkeypatch):
    hub.put('a/b', {'x': 'text'}, private=True)
    monkeypatch.setenv('HF_TOKEN', ' hf_reader\n')
    assert content('hf://a/b/x') == b'text'


def test_no_hub_there(hub):
    status, line, _ = fetched_elsewhere('hf://a/b/x', HF_ENDPOINT='http://127.0.0.1:9')
    assert status == 1 and 'http://127.0.0.1:9 does not answer' in line and 'set HF_ENDPOINT' in line


def test_offline(hub):
    hub.put('a/b', {'x': 'text', 'y': ''})
    path = storage.local_file('hf://a/b/x')
    asked = len(hub.requests)
    assert fetched_elsewhere('hf://a/b/x', HF_HUB_OFFLINE='1')[::2] == (0, path)
    for url, kind in (('hf://a/b/y', 'Missing'), ('hf://a/c/y', 'Unreachable')):
        status, line, _ = fetched_elsewhere(url, HF_HUB_OFFLINE='1')
        assert (
            status == 1 and f'{kind}: cannot fetch {url}: HF_HUB_OFFLINE is set, and this is not in the cache' in line
        )
    assert len(hub.requests) == asked


def test_a_whole_repository_is_no_file(hub):
    hub.put('a/b', {'x': ''})
    with pytest.raises(UserError, match='hf://a/b is a whole repository: give a file of it'):
        storage.local_file('hf://a/b')


# Listings.


def test_files_that_match(hub):
    hub.put('datasets/a/b', {f'data/train-{i}-00001': 'x' for i in range(7)})
    names = ['README.md', 'data/x.txt', 'data/deep/x.txt', 'data/deep/er/x.txt', 'x.txt']
    hub.put('datasets/a/c', dict.fromkeys(names, 'x'))
    hub.page_size = 2
    found = storage.matching('hf://datasets/a/b/data/train-?-*')
    assert found == [f'hf://datasets/a/b/data/train-{i}-00001' for i in range(7)]
    assert len(hub.asked('GET .*/tree/')) == 4 or sys.version_info < (3, 8)  # its library reads no pages
    prefix = 'hf://datasets/a/c'
    assert storage.matching(f'{prefix}/data/*.txt') == [f'{prefix}/data/x.txt']
    assert storage.matching(f'{prefix}/data/**/x.txt') == [
        f'{prefix}/data/{name}' for name in ('deep/er/x.txt', 'deep/x.txt', 'x.txt')
    ]
    assert storage.matching(f'{prefix}@main/x.txt') == [f'{prefix}@main/x.txt']
    with pytest.raises(FileNotFoundError, match='no file matches this'):
        storage.matching(f'{prefix}/*.parquet')


def test_a_listing_is_kept_for_times_without_a_hub(hub, quick_hub_retries):
    hub.put('datasets/a/b', {'x.txt': 'one', 'y.txt': 'two'})
    urls = storage.matching('hf://datasets/a/b/*.txt')
    assert [content(url) for url in urls] == [b'one', b'two']
    hub_files.forget()
    hub.faults = [('', 503)] * 1000
    assert storage.matching('hf://datasets/a/b/*.txt') == urls
    assert [content(url) for url in urls] == [b'one', b'two']
    with pytest.raises(ConnectionError, match='the hub answers 503'):
        storage.matching('hf://datasets/a/c/*.txt')


def test_local_files_that_match(tmp_path):
    for name in ('b.txt', 'a.txt', 'c.json'):
        (tmp_path / name).write_text('')
    (tmp_path / 'folder.txt').mkdir()
    assert storage.matching(f'{tmp_path}/*.txt') == [f'{tmp_path}/a.txt', f'{tmp_path}/b.txt']
    with pytest.raises(ValueError, match='local paths and hf:// only'):
        storage.matching('https://host/*.txt')


READ_IN_TURN = """
import sys, time
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.remote import hub, storage
ranks = Ranks()
for reader in range(2):
    if ranks.rank == reader:
        storage.local_file('hf://a/b/x')
        storage.local_file('hf://a/b@v1/x')
    ranks.wait_for_all()
    if ranks.is_first:
        print('read', flush=True)
        sys.stdin.readline()
    ranks.wait_for_all()
try:
    hub.check_commits(ranks.from_first(hub.commits))
    print(ranks.rank, 'agrees', flush=True)
except hub.UserError as error:
    print(ranks.rank, error, flush=True)
"""


@pytest.mark.slow
@pytest.mark.parametrize('pushed', [False, True])
def test_ranks_read_one_commit_or_say_so(hub, pushed):
    pytest.importorskip('mpi4py')
    repository = hub.put('a/b', {'x': 'old'})
    first = repository.find('main')
    repository.refs['v1'] = first
    with mpiexec.session() as environment:
        process = subprocess.Popen(
            [*mpiexec.ranks_of(2), sys.executable, '-c', READ_IN_TURN],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert process.stdout.readline() == b'read\n'
        if pushed:
            repository.commit({'x': b'new'})
        printed = process.communicate(b'\n\n')[0].decode()
    said = dict(line.split(' ', 1) for line in printed.splitlines()[1:])
    assert said['0'] == 'agrees'
    if pushed:
        second = repository.find('main')
        assert said['1'] == (
            f'hf://a/b changed while the run started: one rank read commit {first[:12]}, and another one '
            f'{second[:12]}: give the same command again, or name a commit, as in OWNER/NAME@COMMIT'
        )
    else:
        assert said['1'] == 'agrees'
