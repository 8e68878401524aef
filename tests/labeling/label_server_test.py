"""The label page's server over HTTP, in this process and as the command that a person starts."""

import collections
import contextlib
import json
import os
import re
import resource
import select
import signal
import socket
import threading
import time

import numpy as np
import pytest
import requests
from label_page import Person
from launching import Launched

from lm_human_preferences.datasets.labels import load_labels
from lm_human_preferences.labeling import connections
from lm_human_preferences.labeling.collection import Collection
from lm_human_preferences.labeling.forms import get_form
from lm_human_preferences.labeling.server import serving
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.launcher import command_line

BEST = get_form('best_of_4')


class Bytes:
    """An encoding of any text: each byte is a token."""

    def decode(self, tokens):
        return bytes(tokens).decode()


@pytest.fixture
def serve(tmp_path):
    """Return a function that serves questions with the given texts and returns (address, collection)."""
    with contextlib.ExitStack() as stack:

        def start(samples, query='q', form=BEST, **options):
            options.setdefault('planned', len(samples))
            collection = Collection(str(tmp_path / 'labels.json'), form, {}, **options)
            stack.callback(collection.close)
            collection.add(
                [dict(query=list(query.encode()), samples=[list(text.encode()) for text in texts]) for texts in samples]
            )
            address = stack.enter_context(serving(collection, Bytes(), ['Judge well.']))
            return address, collection

        yield start


def numbered(count):
    return [[f'{number}-{sample}' for sample in range(4)] for number in range(count)]


def test_nobody_gets_in_without_the_token(serve):
    address, collection = serve(numbered(2))
    base, token = address.split('/?token=')
    assert len(token) >= 32
    for path in ('/', '/?token=', f'/?token={token[:-1]}', f'/?token={token}x', '/?token=é', '/static/style.css'):
        assert requests.get(base + path).status_code == 403
    for path in ('/name', '/answer', '/skip', '/undo'):
        assert requests.post(base + path, {'name': 'x', 'question': 0, 'answer': 0}).status_code == 403
    first = requests.get(address, allow_redirects=False)
    assert (
        first.status_code == 303 and first.headers['Location'].endswith('/') and token not in first.headers['Location']
    )
    assert re.search(r'HttpOnly; .*SameSite=Lax', first.headers['Set-Cookie'])
    assert 'Your name' in requests.Session().get(address).text
    assert collection.num_answers == 0


def test_it_listens_on_this_machine_alone(serve):
    port = int(re.search(r'127\.0\.0\.1:(\d+)/', serve(numbered(1))[0]).group(1))
    try:
        other = [a[4][0] for a in socket.getaddrinfo(socket.gethostname(), port, socket.AF_INET)]
    except OSError:
        other = []
    for host in set(other) - {'127.0.0.1'}:
        if not host.startswith('127.'):
            with pytest.raises(OSError):
                socket.create_connection((host, port), timeout=5)


def test_other_hosts_names_and_other_sites_are_refused(serve):
    address, collection = serve(numbered(2))
    ann = Person(address, 'Ann')
    port = ann.base.rsplit(':', 1)[1]
    for host in ('evil.example', f'evil.example:{port}', '127.0.0.1.evil.example', f'127.0.0.1:{port}.evil.example'):
        assert ann.session.get(ann.base, headers={'Host': host}).status_code == 403
    assert Person(address.replace('127.0.0.1', 'localhost'), 'Bob').question is not None
    fields = {'question': 0, 'answer': 0}
    for origin in ('http://evil.example', 'null', f'http://localhost:{port}', ann.base + '0'):
        assert ann.session.post(f'{ann.base}/answer', fields, headers={'Origin': origin}).status_code == 403
    assert collection.num_answers == 0
    assert ann.session.post(f'{ann.base}/answer', fields, headers={'Origin': ann.base}).status_code == 200
    assert collection.num_answers == 1


def test_texts_are_text(serve):
    bad = '<script>alert(1)</script> & "quotes"\n<b>'
    address, _ = serve([[bad, '<img src=x>', '', '\n']], query=bad)
    ann = Person(address, '<i>Ann</i>')
    assert '<script>alert' not in ann.page and '<img' not in ann.page and '<i>Ann' not in ann.page
    assert '&lt;script&gt;alert(1)&lt;/script&gt; &amp; &#34;quotes&#34;\n&lt;b&gt;' in ann.texts()
    assert ann.texts().count('(empty)') == 2
    policy = ann.session.get(ann.base).headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy


def test_choosing_skipping_undoing(serve):
    address, collection = serve(numbered(3))
    ann = Person(address, 'Ann')
    assert ann.question == 0 and 'Judge well.' in ann.page and '0 of 3' in ann.page
    assert ann.answer(ann.texts().index('0-2')) == 200
    assert ann.question == 1 and '1 of 3' in ann.page and 'Ann: 1 · ' in ann.page
    ann.post('skip', question=1)
    assert ann.question == 2 and 'Skipped.' in ann.page
    ann.undo()
    assert ann.question == 1 and 'Taken back.' in ann.page
    ann.undo()
    assert ann.question == 0 and '0 of 3' in ann.page
    ann.undo()
    assert 'There is nothing to undo.' in ann.page
    for wanted in ('0-3', '1-1', '2-0'):
        ann.answer(ann.texts().index(wanted))
    assert 'All questions are answered' in ann.page and ann.question is None
    assert [label['best'] for label in collection.labels()] == [3, 1, 0]
    for fields in ({}, {'question': 'x', 'answer': 0}, {'question': 9, 'answer': 0}, {'question': 0}):
        assert ann.post('answer', **fields) == 400
    assert len(collection.labels()) == 3


def test_back_and_another_choice(serve):
    address, collection = serve(numbered(3))
    ann = Person(address, 'Ann')
    first = ann.texts()
    ann.answer(first.index('0-1'))
    ann.answer(0)
    assert ann.post('answer', question=0, answer=first.index('0-3')) == 200
    assert 'Changed: your last answer to that question counts.' in ann.page and ann.question == 2
    assert '2 of 3' in ann.page and collection.labels()[0]['best'] == 3
    ann.post('skip', question=0)
    assert 'Skipped: your answer to that question no longer counts.' in ann.page and '1 of 3' in ann.page


def test_undo_pressed_twice_on_one_page_takes_back_one_choice(serve):
    address, collection = serve(numbered(3))
    ann, bob = Person(address, 'Ann'), Person(address, 'Bob')
    ann.answer(0)
    ann.answer(0)
    page = ann.page
    ann.undo()
    assert 'Taken back.' in ann.page and collection.num_answers == 1
    ann.page = page
    ann.undo()
    assert 'That choice was taken back or changed before.' in ann.page and collection.num_answers == 1
    ann.post('skip', question=ann.question)
    bob.reload()
    bob.answer(0)
    bob.reload()
    ann.undo()
    assert 'Taken back. Somebody else has that question now.' in ann.page and collection.num_answers == 2


def test_names(serve):
    address, collection = serve(numbered(3))
    for name in ('', '   ', 'x' * 41, 'a\x00b'):
        assert 'Your name' in Person(address, name).page
    ann = Person(address, '  Zoë  Ångström ')
    ann.answer(0)
    assert collection.progress('Zoë Ångström').own == 1
    assert 'Your name' in ann.session.post(f'{ann.base}/name').text


def test_a_late_answer_is_reported(serve):
    address, collection = serve(numbered(1))
    ann, bob = Person(address, 'Ann'), Person(address, 'Bob')
    assert ann.question == 0 and bob.question is None and 'No questions for you right now' in bob.page
    ann.answer(0)
    bob.post('answer', question=0, answer=0)
    assert 'Somebody else answered' in bob.page and 'All questions are answered' in bob.page
    assert collection.num_answers == 1


def test_questions_that_are_still_to_come(serve):
    address, collection = serve(numbered(1), planned=2)
    ann = Person(address, 'Ann')
    ann.answer(0)
    assert 'the next questions are being prepared' in ann.page and 'http-equiv="refresh"' in ann.page
    collection.add([dict(query=[65], samples=[[66], [67], [68], [69]])])
    ann.reload()
    assert ann.question == 1


def test_many_people_at_once(serve):
    address, collection = serve(numbered(60), overlap=0.2, people=3)
    given = collections.Counter()

    def work(name):
        person = Person(address, name)
        while not collection.is_complete:
            if person.question is None:
                person.reload()
            else:
                given[name, person.question] += 1
                person.answer(person.texts().index(f'{person.question}-{person.question % 4}'))

    threads = [threading.Thread(target=work, args=(f'person {i}',)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert set(given.values()) == {1} and len(given) == collection.wanted == 84
    labels = collection.labels()
    assert len(labels) == 84 and all(int(bytes(e['sample0']).split(b'-')[0]) % 4 == e['best'] for e in labels)


def test_a_port_that_is_taken(serve, tmp_path):
    port = int(re.search(r':(\d+)/', serve(numbered(1))[0]).group(1))
    with pytest.raises(OSError, match=f'cannot serve on port {port} .*give another --port'), serving(
        None, Bytes(), [], port
    ):
        pass


def connect(address, *sent):
    """Open a connection to the page's server, and send bytes."""
    port = int(re.search(r':(\d+)/', address).group(1))
    connection = socket.create_connection(('127.0.0.1', port), timeout=20)
    for part in sent:
        connection.sendall(part)
    return connection


def is_cut(connection):
    """Wait until the server ends the connection. Return whether it did so without an answer."""
    try:
        return connection.recv(1 << 16) == b''
    except ConnectionResetError:
        return True


BEGINNINGS = [b'', b'G', b'GET / HTTP/1.1\r\n', b'GET / HTTP/1.1\r\nCookie: token=', b'\r\n', b'\x16\x03\x01']


@pytest.mark.parametrize('beginning', BEGINNINGS)
def test_idle_connections_keep_nobody_out(serve, beginning):
    address, collection = serve(numbered(3))
    before = threading.active_count()
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(connect(address, beginning)) for _ in range(200)]
        ann = Person(address, 'Ann')
        for _ in range(3):
            ann.answer(0)
        assert collection.is_complete
        assert threading.active_count() - before <= connections.MOST_CONNECTIONS + 2
        assert is_cut(idle[0])


def test_a_connection_that_takes_too_long_is_cut(serve, monkeypatch):
    monkeypatch.setattr(connections, 'SECONDS_TO_ASK', 0.5)
    address, collection = serve(numbered(3))
    started = time.time()
    with connect(address) as idle, connect(address, b'GET / HT') as dripping:
        assert is_cut(idle)
        with pytest.raises(OSError):
            while time.time() - started < 20:  # a byte at a time, so that there is never a long silence
                dripping.sendall(b'T')
                time.sleep(0.1)
    assert time.time() - started < 10
    Person(address, 'Ann').answer(0)
    assert collection.num_answers == 1


def test_a_request_without_the_token_is_refused_before_its_content_comes(serve):
    address, _ = serve(numbered(1))
    head = b'POST /answer HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 60000\r\n\r\n'
    with connect(address, head) as connection:
        assert connection.recv(1 << 16).split(b'\r\n')[0].split()[1] == b'403'


@pytest.fixture
def calls(monkeypatch):
    """Return a counter of the server's finished calls, by name: each connection is processed, admitted, shut down."""
    counter = collections.Counter()
    lock = threading.Lock()

    def count(name):
        method = getattr(connections.BoundedServer, name)

        def counted(*arguments):
            method(*arguments)
            with lock:
                counter[name] += 1

        monkeypatch.setattr(connections.BoundedServer, name, counted)

    for name in ('process_request', 'admit', 'shutdown_request'):
        count(name)
    return counter


def wait_until(condition):
    """Wait until `condition()` holds. AssertionError after 30 seconds."""
    until = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.01)


def test_connections_with_the_token_are_bounded_too(serve, monkeypatch, calls):
    monkeypatch.setattr(connections, 'MOST_CONNECTIONS', 4)
    monkeypatch.setattr(connections, 'SECONDS_TO_ANSWER', 4)
    address, collection = serve(numbered(3))
    ann = Person(address, 'Ann')
    cookies = '; '.join(f'{cookie.name}={cookie.value}' for cookie in ann.session.cookies)
    head = (
        f'POST /answer HTTP/1.1\r\nHost: 127.0.0.1\r\nCookie: {cookies}\r\n'
        'Content-Type: application/x-www-form-urlencoded\r\nContent-Length: 20\r\n\r\n'
    ).encode()
    # Ann has her answers a moment before the server forgets her connections: until then there is no room for four.
    wait_until(lambda: calls['shutdown_request'] == calls['process_request'])
    before = calls['admit']
    with contextlib.ExitStack() as stack:
        unfinished = [stack.enter_context(connect(address, head)) for _ in range(4)]
        wait_until(lambda: calls['admit'] == before + 4)
        started = time.time()
        with connect(address) as more:
            assert is_cut(more)
            assert select.select(unfinished, [], [], 0)[0] == []  # it is turned away at once, and the four go on
        for connection in unfinished:
            assert b'200 OK' not in connection.recv(1 << 16) and time.time() - started < 8
    assert ann.answer(0) == 200 and collection.num_answers == 1


DEFINITION = """
task: {query_length: 2, response_length: 3, query_dataset: test, policy: {initial_model: test}}
train_reward: {labels: {type: TYPE, source: test, num_train: 8}, batch_size: 8}
"""


@pytest.fixture
def label(tmp_path):
    """Return a function that starts `launch.py label` on the built-in model and returns (process, address)."""
    processes = []

    def start(*flags, label_type='best_of_4'):
        (tmp_path / 'tiny.yaml').write_text(DEFINITION.replace('TYPE', label_type))
        words = ['label', 'test', '--experiment', str(tmp_path / 'tiny.yaml'), '--out', str(tmp_path / 'labels.json')]
        process = Launched(*words, *flags, merged=True)
        processes.append(process)
        said = b''
        for line in process.stdout:
            said += line
            if b'http://' in line:
                return process, line.decode().strip()
        raise AssertionError(said.decode())

    yield start
    for process in processes:
        process.kill()
        process.communicate()


def answer(person, count):
    """Answer `count` questions, and wait for new ones if necessary. Return the chosen texts."""
    chosen = []
    while len(chosen) < count:
        if person.question is None:
            person.reload()
        else:
            chosen.append(person.texts()[len(chosen) % 4])
            assert person.answer(len(chosen[:-1]) % 4) == 200
    return chosen


def read(path):
    schema = {f'sample{i}': (np.int32, (3,)) for i in range(4)}
    entries = json.loads(path.read_text())
    return load_labels(str(path), dict(schema, query=(np.int32, (2,)), best=(np.int32, ())), len(entries), letters())


def chosen_texts(labels):
    samples = [[labels[f'sample{i}'][row] for i in range(4)] for row in range(len(labels['best']))]
    return [letters().decode(four[best]) for four, best in zip(samples, labels['best'])]


def test_kill_loses_no_choice(label, tmp_path):
    process, address = label('--num_questions', '12')
    chosen = answer(Person(address, 'Ann'), 5)
    process.kill()
    process.wait()
    process, address = label('--num_questions', '12')
    ann = Person(address, 'Ann')
    assert '5 of 12' in ann.page and 'Ann: 5' in ann.page
    assert chosen_texts(read(tmp_path / 'labels.json')) == chosen  # written again at the start
    chosen += answer(ann, 7)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0 and f'12 labels in {tmp_path}/labels.json' in said
    labels = read(tmp_path / 'labels.json')
    assert chosen_texts(labels) == chosen
    samples = [tuple(tuple(labels[f'sample{i}'][row]) for i in range(4)) for row in range(12)]
    assert len(set(samples)) == 12 and all(len(set(four)) == 4 for four in samples)
    journal = [json.loads(line) for line in (tmp_path / 'labels.journal.jsonl').read_text().splitlines()]
    answers = [entry for entry in journal if entry['kind'] == 'answer']
    assert {entry['who'] for entry in answers} == {'Ann'} and all(entry['seconds'] >= 0 for entry in answers)
    assert sorted(answers[0]) == ['kind', 'order', 'question', 'seconds', 'value', 'when', 'who']


@contextlib.contextmanager
def full_disk(process, *paths):
    """No file of the process can grow beyond the longest of these, as if the disk were full."""
    size = max(os.path.getsize(str(path)) for path in paths)
    _, most = resource.prlimit(process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (size, most))
    yield
    resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (most, most))


def said_until(process, text):
    """Read what a process prints until a line has `text`."""
    lines = []
    for line in process.stdout:
        lines.append(line.decode())
        if text in lines[-1]:
            return lines
    raise AssertionError(''.join(lines))


@pytest.mark.slow
def test_a_full_disk_ends_neither_the_page_nor_an_answer(label, tmp_path):
    process, address = label('--num_questions', '8')
    ann = Person(address, 'Ann')
    chosen = answer(ann, 4)
    with full_disk(process, tmp_path / 'labels.journal.jsonl'):
        number, place = ann.question, 2
        for action in ({'answer': place}, {}):
            page = ann.page
            assert ann.post('answer' if action else 'skip', question=number, **action) == 507
            assert 'Your last choice could not be saved (File too large)' in ann.page
            ann.page = page
        time.sleep(12)  # the label file is written every 10 s
        assert process.poll() is None
        ann.reload()
        assert ann.question == number and '4 of 8' in ann.page
    chosen += answer(ann, 4)
    process.send_signal(signal.SIGINT)
    assert f'8 labels in {tmp_path}/labels.json' in process.communicate(timeout=60)[0].decode()
    assert process.returncode == 0 and chosen_texts(read(tmp_path / 'labels.json')) == chosen


@pytest.mark.slow
def test_a_label_file_that_cannot_be_written_is_written_later(label, tmp_path):
    process, address = label('--num_questions', '3')
    ann = Person(address, 'Ann')
    chosen = answer(ann, 2)
    blocker = tmp_path / 'labels.json'
    deadline = time.time() + 30
    while not blocker.exists() and time.time() < deadline:
        time.sleep(0.05)
    blocker.unlink()
    blocker.mkdir()
    chosen += answer(ann, 1)
    assert 'labels cannot be written now: Is a directory.' in said_until(process, 'cannot be written')[-1]
    blocker.rmdir()
    said = said_until(process, 'All 3 answers')
    assert 'labels are written again\n' in said
    assert chosen_texts(read(blocker)) == chosen
    blocker.unlink()
    blocker.mkdir()
    ann.undo()
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[0].decode()
    assert process.returncode == 2 and 'Traceback' not in said
    assert 'labels.json: Is a directory; the journal beside it has all labels: make room' in said
    blocker.rmdir()
    process, _ = label('--num_questions', '3')
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=60)
    assert chosen_texts(read(blocker)) == chosen[:2]


def test_agreement_is_reported(label, tmp_path):
    process, address = label(
        '--num_questions=2', '--overlap', '1', '--num_people', '2', '--type', 'scalar_rating', '--scale', '7'
    )
    for name, places in (('Ann', (6, 0)), ('Bob', (6, 3))):
        person = Person(address, name)
        for place in places:
            while person.question is None:
                person.reload()
            person.answer(place)
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0].decode()
    assert 'agreement: 50.0% of 2 pairs of answers to 2 questions are the same (by chance 14%)' in said
    assert [entry['score'] for entry in json.loads((tmp_path / 'labels.json').read_text())] == [7, 1, 7, 4]


@pytest.mark.parametrize(
    'flags, message',
    [
        (['test', '--out', 'OUT/l.json'], 'test: not the folder of a run: '),
        (['demo', '--out', '/dev/null/l.json', '--experiment', 'demo'], '/dev/null: File exists'),
        (['test', '--experiment', 'demo'], 'out is not set'),
        (['test', '--out', 'OUT/l.json', '--experiment', 'demo', '--type', 'best_of_12'], 'type must be best_of_N'),
        (['test', '--out', 'OUT/l.json', '--overlap', '2'], 'overlap must be between 0 and 1, not 2.0'),
        (['test', 'more', '--out', 'OUT/l.json'], "unexpected argument 'more'"),
        (['test', '--out', 'OUT/l.json', '--outt', 'x'], 'no flag --outt: did you mean --out?'),
        (
            ['test', '--out', 'OUT/l.json', '--experiment', 'demo', '--instructions', 'OUT/no.txt'],
            'OUT/no.txt: No such',
        ),
    ],
)
def test_bad_flags(flags, message, tmp_path, capsys):
    words = [flag.replace('OUT', str(tmp_path)) for flag in flags]
    with pytest.raises(SystemExit) as ended:
        command_line.main(['label', *words])
    printed = capsys.readouterr()
    assert (ended.value.code, printed.out) == (2, '')
    assert message.replace('OUT', str(tmp_path)) in printed.err and printed.err.count('\n') == 1
    assert os.listdir(str(tmp_path)) == []
