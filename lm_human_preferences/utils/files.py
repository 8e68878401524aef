"""Write files and folders completely or not at all: nobody ever reads half a file, even after a kill."""

import contextlib
import json
import os
import shutil
import tempfile
from typing import IO, Any, Iterator, Optional


@contextlib.contextmanager
def written_whole(path: str, mode: str = 'w') -> Iterator[IO]:
    """Open a file for writing that becomes `path` when the block ends without an error.

    It is written under a temporary name beside `path`, synced to disk and renamed. `mode` is 'w' (UTF-8 text) or 'wb'.
    OSError if the folder cannot be written or the disk is full. `path` is then unchanged.
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
            os.fsync(file.fileno())
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


def read_text(path: str, newline: Optional[str] = None) -> str:
    """Return the content of a text file in UTF-8.

    `newline` has the meaning it has in open(). OSError if the file cannot be read. ValueError with the position of
    the first bad byte if it is not UTF-8.
    """
    with open(path, encoding='utf-8', newline=newline) as file:
        try:
            return file.read()
        except UnicodeDecodeError as error:
            raise ValueError(f'{path}: not UTF-8 text: byte {error.start} of the file') from None


def write_json(path: str, content: Any, indent: int = 2) -> None:
    """Write `content` as JSON with sorted keys."""
    with written_whole(path) as file:
        json.dump(content, file, indent=indent, sort_keys=True)


def _umask() -> int:
    mask = os.umask(0o077)
    os.umask(mask)
    return mask


def sync(path: str) -> None:
    """Sync a file's content, or a folder's names, to disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # some network file systems cannot sync
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
