"""Servers that answer anything: a wrong file never gets its final name, and each failure is one line."""

import os
import re
import subprocess
import sys

import loopback
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some
from repository import ROOT

from lm_human_preferences.remote import storage

BODY = bytes(range(1, 101))
TAG = {'ETag': '"one"'}


def content(source):
    with open(storage.local_file(source), 'rb') as f:
        return f.read()


def files_in(folder):
    return sorted(name for _, _, names in os.walk(str(folder)) for name in names)


def part(first, last, size=100, body=None, **headers):
    """Return an answer 206 with the bytes from `first` to `last`."""
    headers = dict(TAG, **{'Content-Range': f'bytes {first}-{last}/{size}'}, **headers)
    return 206, headers, BODY[first : last + 1] if body is None else body


CUT = (200, dict(TAG, **{'Content-Length': '100'}), BODY[:50])
MISFITS = {
    'a part without being asked': [part(50, 99)] * 9,
    'a part, then the same again': [part(50, 99), part(50, 99), part(50, 99)],
    'the first part without being asked': [part(0, 49)] * 9,
    'another start': [CUT] + [part(40, 99)] * 9,
    'another start, later': [CUT, part(60, 99), part(50, 99)],
    'the part that is there': [CUT] + [part(0, 49)] * 9,
    'another total': [CUT, part(50, 99, 120)],
    'no total': [CUT, part(50, 99, '*')],
    'no place': [CUT, (206, TAG, BODY[50:])],
    'several parts': [CUT, (206, dict(TAG, **{'Content-Type': 'multipart/byteranges; boundary=x'}), b'--x')],
    'more bytes than said': [CUT, part(50, 99, body=BODY[50:] + b'more')],
    'fewer bytes than said': [CUT, part(50, 99, body=BODY[50:90])],
    'the end before the start': [CUT, (206, dict(TAG, **{'Content-Range': 'bytes 60-50/100'}), BODY[50:])],
    'a place that is no number': [CUT, (206, dict(TAG, **{'Content-Range': 'bytes x-y/z'}), BODY[50:])],
    'another version': [CUT, (206, {'ETag': '"two"', 'Content-Range': 'bytes 50-99/100'}, BODY[50:])],
    'a part of no version': [CUT, (206, {'Content-Range': 'bytes 50-99/100'}, BODY[50:])],
    'the whole in place of a part': [CUT, (200, TAG, BODY)],
    'not modified, without being asked': [(304, TAG)] * 9,
    'not modified, in place of a part': [CUT, (304, TAG), (304, TAG)],
    'no such part': [CUT, (416, {}), (416, {})],
    'a part of a part': [CUT, part(50, 59), part(60, 60), part(61, 99)],
    'the whole as a part': [part(0, 99)],
}


@pytest.mark.parametrize('case', MISFITS)
def test_an_answer_to_another_question(cache, web, quick_retries, case):
    web.files['/x'] = BODY
    web.faults['/x'] = list(MISFITS[case])
    try:
        assert content(web.url + '/x') == BODY
    except ConnectionError as error:
        assert re.match(r'cannot fetch \S+/x: the server .*put the file at \S+/x$', str(error)), error
        assert [name for name in files_in(cache) if not name.startswith('.')] == []
        assert len(web.faults['/x']) < len(MISFITS[case])
    else:
        assert len(MISFITS[case]) < 9


def test_which_answers_fail(cache, web, quick_retries):
    """Those of a server that never answers the question, and no others."""
    lines = {
        '/part': 'the server sends a part of the file (206), where the whole file was asked for',
        '/same': 'the server answers 304 (not modified), but was not asked that',
    }
    web.faults = {'/part': [part(50, 99)] * 99, '/same': [(304, TAG)] * 99}
    for path, line in lines.items():
        with pytest.raises(ConnectionError, match=re.escape(f'{path}: {line} (attempt 5). To supply it by hand')):
            storage.local_file(web.url + path)


@some.composite
def answers(draw):
    """An answer whose bytes are those of the object at the place that it names; the place is any, or none."""
    kind = draw(some.sampled_from(['whole', 'cut', 'part', 'unnamed', 'status']))
    tag = draw(some.sampled_from([TAG, {}, {'ETag': 'W/"one"'}, {'Last-Modified': 'Thu, 01 Jan 2026 00:00:00 GMT'}]))
    first, last = sorted([draw(some.integers(0, 99)), draw(some.integers(0, 99))])
    if kind == 'status':
        return draw(some.sampled_from([204, 206, 301, 304, 400, 404, 416, 500, 503])), tag
    if kind in ('whole', 'cut'):
        return 200, dict(tag, **{'Content-Length': '100'}), BODY if kind == 'whole' else BODY[:last]
    if kind == 'unnamed':
        return 206, dict(tag, **{'Content-Range': draw(some.text('bytes 0123456789-/*', max_size=20))}), BODY[first:]
    size = draw(some.sampled_from([100, 100, 100, '*', last + 1, 1000]))
    return 206, dict(tag, **{'Content-Range': f'bytes {first}-{last}/{size}'}), BODY[first : last + 1]


@pytest.mark.slow
@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(some.lists(answers(), min_size=1, max_size=8))
@example([part(50, 99), part(50, 99), part(50, 99)])
def test_a_server_that_answers_anything(tmp_path_factory, script):
    with pytest.MonkeyPatch.context() as patch, loopback.WebServer().running() as web:
        patch.setenv('LM_HUMAN_PREFERENCES_CACHE', str(tmp_path_factory.mktemp('cache')))
        patch.setattr(storage, 'FIRST_PAUSE', 0)
        web.faults['/x'] = [*script, *[404] * 9]
        for _ in range(3):
            try:
                assert content(web.url + '/x') == BODY
            except OSError as error:
                assert str(error).startswith('cannot fetch http') and '\n' not in str(error), error
                path = storage.cache_path(web.url + '/x')
                if os.path.exists(path):
                    with open(path, 'rb') as file:
                        assert file.read() == BODY


# A file of a server that names no version, and web pages in place of files.

FETCH = """
import sys
from lm_human_preferences.remote import storage
for url in sys.argv[1:]:
    print(open(storage.local_file(url), 'rb').read())
"""


def fetched_by_a_process(*urls):
    env = dict(os.environ, PYTHONPATH=ROOT)
    done = subprocess.run([sys.executable, '-c', FETCH, *urls], env=env, capture_output=True)
    assert done.returncode == 0, done.stderr
    return [eval(line) for line in done.stdout.decode().splitlines()], done.stderr.decode()


def test_a_server_without_versions_is_asked_once_by_each_process(cache):
    with loopback.WebServer(tags=False, checksums=False).running() as web:
        web.files['/x'] = b'old'
        assert fetched_by_a_process(web.url + '/x', web.url + '/x')[0] == [b'old', b'old']
        assert len(web.requests) == 1
        web.files['/x'] = b'new'
        assert fetched_by_a_process(web.url + '/x')[0] == [b'new']
        web.faults['/x'] = [503]
        assert fetched_by_a_process(web.url + '/x') == ([b'new'], '')  # without an answer, the copy is used


def test_a_checksum_stands_for_a_version(cache):
    with loopback.WebServer(tags=False).running() as web:
        web.files['/x'] = b'old'
        for expected in (b'old', b'old', b'new'):
            web.files['/x'] = expected
            assert content(web.url + '/x') == expected


def test_a_file_put_in_place_of_a_fetched_one_is_kept(cache, web):
    web.files['/x.json'] = b'[1]'
    path = storage.local_file(web.url + '/x.json')
    with open(path, 'w') as file:
        file.write('["by hand"]')
    web.files['/x.json'] = b'[2]'
    assert content(web.url + '/x.json') == b'["by hand"]' and len(web.requests) == 1


@pytest.mark.parametrize('version', ['"tag"', 'Thu, 01 Jan 2026 00:00:00 GMT', '12345-abc='])
def test_a_record_of_an_older_form_is_read(cache, web, version):
    """It held only the version."""
    path = storage.cache_path(web.url + '/x')
    os.makedirs(os.path.dirname(path))
    for name, text in (('x', 'old'), ('.x.version', version)):
        with open(os.path.join(os.path.dirname(path), name), 'w') as file:
            file.write(text)
    asked = []

    def not_modified(handler):
        asked.append(handler.headers.get('If-None-Match') or handler.headers.get('If-Modified-Since'))
        return 304, {}

    web.faults['/x'] = [not_modified]
    assert content(web.url + '/x') == b'old' and asked == [version]


def test_killed_between_the_file_and_its_record(cache, web, monkeypatch):
    web.files['/x'] = b'old'
    path = storage.local_file(web.url + '/x')
    folder = os.path.dirname(path)
    os.rename(os.path.join(folder, '.x.version'), os.path.join(folder, '.x.partial.version'))
    web.files['/x'] = b'new'
    assert content(web.url + '/x') == b'new'


PAGE = b'\n<!DOCTYPE html><html><body>Please log in</body></html>'
HTML = {'Content-Type': 'text/html; charset=utf-8'}


@pytest.mark.parametrize(
    'name, headers, body, is_page',
    [
        ('labels.json', HTML, PAGE, True),
        ('labels.json', {}, PAGE, True),
        ('labels.json', {}, b'\xef\xbb\xbf <html>', True),
        ('labels.json', {}, b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', True),
        ('labels.json', HTML, b'Please log in', True),
        ('labels.json', HTML, b' [1, 2]', False),  # a server that calls everything HTML
        ('texts.jsonl', {}, b'<p>Sorry</p>', True),
        ('checkpoint', HTML, PAGE, True),
        ('checkpoint', {}, PAGE, True),
        ('checkpoint', HTML, b'model_checkpoint_path: "model.ckpt"', False),
        ('model.ckpt.data-00000-of-00001', {}, PAGE, True),
        ('model.ckpt.data-00000-of-00001', HTML, b'\0\1\2', False),
        ('vocab.bpe', {}, b'#version: 0.2', False),
        ('texts.txt', {}, b'<html> begins a text', False),
        ('texts.txt', HTML, PAGE, True),
        ('page.html', HTML, PAGE, False),
    ],
)
def test_web_pages_in_place_of_files(cache, web, name, headers, body, is_page):
    web.faults[f'/{name}'] = [(200, dict(headers, ETag='"x"'), body)]
    if not is_page:
        assert content(f'{web.url}/{name}') == body
        return
    with pytest.raises(OSError, match=f'/{name}: the server sends a web page in place of the file. To supply it by'):
        storage.local_file(f'{web.url}/{name}')
    assert [file for file in files_in(cache) if 'lock' not in file] == []
    web.files[f'/{name}'] = b'[]'
    assert content(f'{web.url}/{name}') == b'[]'


def test_a_copy_survives_a_web_page(cache, web):
    web.files['/x.json'] = b'[1]'
    assert content(web.url + '/x.json') == b'[1]'
    web.faults['/x.json'] = [(200, HTML, PAGE)]
    copies, note = fetched_by_a_process(web.url + '/x.json')
    assert copies == [b'[1]']
    assert (
        note
        == f'{web.url}/x.json: the server sends a web page in place of the file: the copy of an earlier time is used\n'
    )


def test_a_web_page_that_is_in_the_cache_already_is_fetched_anew(cache, web):
    path = storage.cache_path(web.url + '/x.json')
    os.makedirs(os.path.dirname(path))
    with open(path, 'wb') as file:
        file.write(PAGE)
    web.files['/x.json'] = b'[1]'
    assert content(web.url + '/x.json') == b'[1]'


# Odd headers, addresses and certificates.


@pytest.mark.parametrize(
    'answer, line',
    [
        ((200, {'Content-Length': 'abc'}), "the server sends a Content-Length that is no number ('abc')"),
        ((200, {'Content-Length': '-5'}), "the server sends a Content-Length that is no number ('-5')"),
        ((200, {'Content-Length': '1_0'}), "the server sends a Content-Length that is no number ('1_0')"),
        ((200, {'Content-Length': '3, 5'}), 'the server sends a Content-Length that is no number. To'),
        ((200, {'Content-Length': '\xb2'}), 'the server sends a Content-Length that is no number'),
        ((301, {}), 'the server answers 301'),
        ((302, {'Location': 'http://[::1'}), 'the server redirects to a URL that cannot be used'),
        ((302, {'Location': 'http://a..b/?sig=SECRET'}), 'the server redirects to a URL that cannot be used'),
        ((302, {'Location': 'http://host:99999/?sig=SECRET'}), 'the server redirects to a URL that cannot be used'),
        ((302, {'Location': 'ftp://user:SECRET@host/x'}), 'the server redirects to a URL that cannot be used'),
        ((302, {'Location': '/x'}), 'Exceeded 30 redirects. To'),
    ],
)
def test_odd_headers(cache, web, quick_retries, answer, line):
    web.faults['/x'] = [answer] * 99
    with pytest.raises(OSError) as caught:
        storage.local_file(web.url + '/x')
    assert str(caught.value).startswith(f'cannot fetch {web.url}/x: {line}'), caught.value
    assert 'SECRET' not in str(caught.value)


@pytest.mark.parametrize('tag', ['*', 'a b', '"a b"', '\xe4', '"\xe4"', 'x' * 5000, 'bytes', '""', '"tag" GMT'])
def test_odd_tags(cache, web, tag):
    """None of them stops a download, nor keeps a later one from being noticed."""
    for body in (b'old', b'new'):
        web.faults['/x'] = [(200, {'ETag': tag}, body)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(storage, '_STARTED', float('inf'))  # as in a process of its own
            expected = b'old' if tag in ('"\xe4"',) else body
            assert content(web.url + '/x') == expected


@pytest.mark.parametrize(
    'url, line',
    [
        ('http://[::1/x?sig=SECRET', 'http://… is no URL'),
        ('http://a..b/x?sig=SECRET', 'cannot fetch http://a..b/x: this URL cannot be read'),
        ('http://host:99999/x?sig=SECRET', 'cannot fetch http://host:99999/x: this URL cannot be read'),
        ('http://user:SEC/RET@host/x', 'cannot fetch http://…: this URL cannot be read'),
    ],
)
def test_odd_urls(cache, url, line):
    with pytest.raises((OSError, ValueError)) as caught:
        storage.local_file(url)
    assert str(caught.value).startswith(line), caught.value


@pytest.mark.parametrize(
    'proxy', ['http://user:SEC RET@host:x/', 'user:SECRET@host:99999', 'http://user:SECRET@', '[SECRET']
)
def test_a_proxy_that_cannot_be_read(cache, monkeypatch, proxy):
    monkeypatch.setenv('http_proxy', proxy)
    with pytest.raises(OSError) as caught:
        storage.local_file('http://host.invalid/x')
    line = 'cannot fetch http://host.invalid/x: the address of the proxy (in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) '
    assert str(caught.value).startswith(line + 'cannot be read. To supply it by hand'), caught.value


@pytest.mark.parametrize('bundle, reason', [('none.pem', 'No such file or directory'), ('text.pem', 'no certificates')])
def test_certificates_that_cannot_be_read(cache, tmp_path, monkeypatch, bundle, reason):
    pytest.importorskip('trustme')
    (tmp_path / 'text.pem').write_text('no certificate')
    path = str(tmp_path / bundle)
    monkeypatch.setenv('REQUESTS_CA_BUNDLE', path)
    with loopback.WebServer().running() as web, pytest.raises(OSError) as caught:
        storage.local_file(f'https://127.0.0.1:{web.server_port}/x')
    line = f'/x: REQUESTS_CA_BUNDLE names {path}, which cannot be read ({reason}): name a file of certificates in PEM'
    assert line in str(caught.value), caught.value


def test_pauses_are_bounded_and_said(cache, web, monkeypatch, capsys):
    slept = []
    monkeypatch.setattr(storage.time, 'sleep', slept.append)
    web.files['/x'] = b'at last'
    web.faults['/x'] = [
        (503, {'Retry-After': '1000000000'}),
        (503, {'Retry-After': '\xb2'}),
        (503, {'Retry-After': '9' * 99}),
    ]
    assert content(web.url + '/x') == b'at last'
    assert slept[0] == slept[2] == storage.LONGEST_PAUSE and slept[1] < 4
    line = f'{web.url}/x: the server answers 503, and asks to wait: trying again in 120 seconds\n'
    assert capsys.readouterr().err == line * 2
