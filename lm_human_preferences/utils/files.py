"""Files: read the UTF-8 text that people wrote, and write files and folders completely or not at all.

All text files that people write are read here, by the same rules: the text is UTF-8, a byte order mark is no part of
it, and a line may end with CRLF. Only regular files are read. A FIFO would wait without a word, and a device may never
end.

Nobody ever reads half of a file that is written here, even after a kill.
"""

import contextlib
import errno
import fcntl
import functools
import json
import os
import shutil
import stat
import tempfile
import threading
from typing import IO, Any, Iterator, NamedTuple

LARGEST_TEXT = 1 << 30  # bytes of a file that is read as a whole
LONGEST_LINE = 1 << 26  # bytes
BYTE_ORDER_MARK = '\ufeff'

_asking_umask = threading.Lock()


@contextlib.contextmanager
def written_whole(path: str, mode: str = 'w', private: bool = False) -> Iterator[IO]:
    """Open a file for writing that becomes `path` when the block ends without an error.

    It is written under a temporary name beside `path`, synced to disk and renamed. `mode` is 'w' (UTF-8 text) or 'wb'.
    A `private` file can be read only by its owner. OSError if the folder cannot be written or the disk is full. `path`
    is then unchanged.
    """
    path = os.path.abspath(path)
    with _error_of(path):
        handle, partial = tempfile.mkstemp(
            prefix=f'.{os.path.basename(path)}.', suffix='.partial', dir=os.path.dirname(path)
        )
    try:
        with open(handle, mode, encoding=None if 'b' in mode else 'utf-8') as file:
            yield file
            file.flush()
            sync_content(file.fileno())
        if not private:
            os.chmod(partial, 0o666 & ~_umask())  # the permissions that open() would have given
        with _error_of(path):
            os.replace(partial, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(partial)
        raise
    sync(os.path.dirname(path))


@contextlib.contextmanager
def folder_written_whole(path: str) -> Iterator[str]:
    """Give a new folder to write into, which becomes `path` when the block ends without an error.

    It has a temporary name beside `path`. An error removes it. `path` must not exist, or be an empty folder. Folders
    above it are created. OSError if the folder cannot be written.
    """
    path = os.path.abspath(path)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with _error_of(path):
        partial = tempfile.mkdtemp(prefix=f'.{os.path.basename(path)}.', suffix='.partial', dir=os.path.dirname(path))
    try:
        os.chmod(partial, 0o777 & ~_umask())  # the permissions that os.mkdir would have given
        yield partial
        with _error_of(path):
            os.rename(partial, path)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    sync(os.path.dirname(path))


@contextlib.contextmanager
def _error_of(path: str) -> Iterator[None]:
    """In an error of the operating system, name `path` instead of the temporary file."""
    try:
        yield
    except OSError as error:
        raise type(error)(error.errno, error.strerror, path) from error


def decoded(data: bytes, errors: str = 'strict') -> str:
    """Return the text of UTF-8 bytes, without a byte order mark, and with each CRLF as a newline.

    UnicodeDecodeError if it is not UTF-8, unless `errors`, which has the meaning it has in bytes.decode, is another.
    """
    text = data.decode('utf-8', errors)
    return text[text.startswith(BYTE_ORDER_MARK) :].replace('\r\n', '\n')


def check_regular(path: str) -> None:
    """Raise OSError if there is no file at `path`, and ValueError if it is a FIFO, a device or a socket."""
    mode = os.stat(path).st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), path)
    if not stat.S_ISREG(mode):
        kind = {stat.S_IFIFO: 'a FIFO', stat.S_IFSOCK: 'a socket'}.get(stat.S_IFMT(mode), 'a device')
        raise ValueError(f'{path}: this is {kind}: give a regular file')


def open_regular(path: str) -> IO[bytes]:
    """Open a regular file to read its bytes. The errors are those of `check_regular`."""
    check_regular(path)
    return open(path, 'rb')


def read_text(path: str, largest: int = LARGEST_TEXT, errors: str = 'strict') -> str:
    """Return the content of a text file, as `decoded` gives it.

    OSError if the file cannot be read. ValueError if it is no regular file, if it has more than `largest` bytes, or,
    with the position of the first bad byte, if it is not UTF-8.
    """
    with open_regular(path) as file:
        _check_size(os.fstat(file.fileno()).st_size, path, largest)
        return read_stream(file, path, largest, errors)


def read_stream(stream: IO[bytes], name: str, largest: int = LARGEST_TEXT, errors: str = 'strict') -> str:
    """Return the rest of an open file or stream as `read_text` does; `name` is what messages call it."""
    data = stream.read(largest + 1)
    _check_size(len(data), name, largest)
    try:
        return decoded(data, errors)
    except UnicodeDecodeError as error:
        raise ValueError(f'{name}: not UTF-8 text: byte {error.start} of the file') from None


def _check_size(size: int, name: str, largest: int) -> None:
    if size > largest:
        raise ValueError(f'{name}: too large: more than {largest} bytes')


class Line(NamedTuple):
    """A line of a text file."""

    number: int  # from 1
    start: int  # the offset of its first byte in the file
    end: int  # the offset of the byte after its line end
    text: str  # without its line end


def text_lines(path: str) -> Iterator[Line]:
    """Yield the lines of a text file, one at a time. A line ends with a newline, or with CRLF.

    A byte order mark is passed over at the start of each line, as files may have been joined. The errors are those of
    `read_text`, with the number of the line.
    """
    end = 0
    with open_regular(path) as file:
        for number, line in enumerate(iter(functools.partial(file.readline, LONGEST_LINE + 1), b''), start=1):
            start, end = end, end + len(line)
            if len(line) > LONGEST_LINE:
                raise ValueError(f'{path}: line {number}: the line is too long: at most {LONGEST_LINE} bytes are read')
            try:
                text = line.decode('utf-8')
            except UnicodeDecodeError as error:
                raise ValueError(f'{path}: line {number}: not UTF-8 text: byte {error.start} of the line') from None
            if text.startswith(BYTE_ORDER_MARK):
                start, text = start + 3, text[1:]
            yield Line(number, start, end, text.rstrip('\r\n'))


def write_json(path: str, content: Any, indent: int = 2, private: bool = False) -> None:
    """Write `content` as JSON with sorted keys; a `private` file can be read only by its owner."""
    with written_whole(path, private=private) as file:
        json.dump(content, file, indent=indent, sort_keys=True)


def _umask() -> int:
    with _asking_umask:  # the system tells it only when it is set; a second thread would be told 0o077
        mask = os.umask(0o077)
        os.umask(mask)
    return mask


def sync(path: str) -> None:
    """Sync a file's content, or a folder's names, to disk, where the file system can. OSError if that fails."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        sync_content(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS):  # some network file systems cannot sync
            raise
    finally:
        os.close(descriptor)


def sync_content(descriptor: int) -> None:
    """Sync what was written to an open file to disk. OSError if that fails.

    On macOS, fsync leaves it in the drive's own cache, which F_FULLFSYNC empties, where the file system knows it.
    """
    if hasattr(fcntl, 'F_FULLFSYNC'):
        with contextlib.suppress(OSError):
            fcntl.fcntl(descriptor, fcntl.F_FULLFSYNC)
            return
    os.fsync(descriptor)
