"""The one reader of text files: any bytes are text, or one clear error."""

import os
import tempfile

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as some

from lm_human_preferences.utils import files

quick = settings(
    max_examples=200, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)
MARK = b'\xef\xbb\xbf'
any_bytes = some.binary(max_size=40) | some.lists(
    some.sampled_from([MARK, b'\r\n', b'\n', b'\r', b'a', 'é\u2028\x85'.encode(), b'\xff', b'\xef\xbb', b'\0']),
    max_size=12,
).map(b''.join)


@pytest.fixture(scope='module')
def path():
    with tempfile.TemporaryDirectory() as folder:
        yield os.path.join(folder, 'text')


def read_both(path, data):
    """The text of a file, and its lines; or None twice, after one line of error each."""
    with open(path, 'wb') as file:
        file.write(data)
    results = []
    for read in (files.read_text, lambda path: list(files.text_lines(path))):
        try:
            results.append(read(path))
        except ValueError as error:
            assert str(error).startswith(f'{path}: ') and 'not UTF-8 text: byte ' in str(error)
            assert len(str(error).splitlines()) == 1
            results.append(None)
    return results


@quick
@given(any_bytes)
@example(MARK)
@example(MARK + MARK + b'a')
@example(b'a\n' + MARK + b'b\r\n\r\nc')
@example(b'\xff\xfea\0')
def test_any_bytes_are_text_or_one_error(path, data):
    text, lines = read_both(path, data)
    try:
        expected = data.decode('utf-8')
    except UnicodeDecodeError:
        assert text is None and lines is None
        return
    assert text == expected[expected.startswith('\ufeff') :].replace('\r\n', '\n')
    assert [line.number for line in lines] == list(range(1, len(lines) + 1))
    assert [line.text for line in lines] == [
        part.decode('utf-8')[part.startswith(MARK) :].rstrip('\r') for part in data.split(b'\n')[: len(lines)]
    ]
    assert data.count(b'\n') <= len(lines) <= data.count(b'\n') + 1
    for line in lines:
        assert data[line.start : line.end].decode('utf-8').rstrip('\r\n') == line.text


@quick
@given(some.text(max_size=40))
def test_a_byte_order_mark_and_crlf_change_nothing(path, text):
    plain = text.lstrip('\ufeff').replace('\r', '').replace('\n\ufeff', '\n')
    whole, lines = read_both(path, plain.encode('utf-8'))
    marked, marked_lines = read_both(path, MARK + plain.replace('\n', '\r\n').encode('utf-8'))
    assert marked == whole == plain
    assert [line.text for line in marked_lines if line.text] == [line.text for line in lines if line.text]


@pytest.mark.parametrize(
    'make, reason',
    [(os.mkfifo, 'this is a FIFO: give a regular file'), (None, 'this is a device: give a regular file')],
)
def test_what_is_no_regular_file_is_refused_at_once(make, reason, tmp_path):
    path = str(tmp_path / 'fifo') if make else '/dev/zero'
    if make:
        make(path)
    for read in (files.read_text, lambda path: next(files.text_lines(path))):
        with pytest.raises(ValueError, match=f'{path}: {reason}'):
            read(path)


def test_large_files_are_refused(tmp_path, monkeypatch):
    """The files are holes: they take no room on the disk."""
    for name, size in (('text', files.LARGEST_TEXT + 1), ('line', files.LONGEST_LINE + 1)):
        with open(str(tmp_path / name), 'wb') as file:
            file.truncate(size)
    with pytest.raises(ValueError, match='text: too large: more than 1073741824 bytes'):
        files.read_text(str(tmp_path / 'text'))
    with pytest.raises(ValueError, match='line: line 1: the line is too long: at most 67108864 bytes are read'):
        next(files.text_lines(str(tmp_path / 'line')))
    (tmp_path / 'small').write_text('abc')
    assert files.read_text(str(tmp_path / 'small'), largest=3) == 'abc'
    with pytest.raises(ValueError, match='small: too large: more than 2 bytes'):
        files.read_text(str(tmp_path / 'small'), largest=2)
