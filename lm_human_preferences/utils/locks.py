"""Locks between the processes of one host."""

import contextlib
import fcntl
import os
from typing import Iterator


@contextlib.contextmanager
def locked(path: str, wait: bool = True) -> Iterator[None]:
    """Wait until no other process or thread of this host holds the lock of `path`, and hold it.

    Without `wait` it raises BlockingIOError where another one does.
    The lock is a hidden file beside `path`. The operating system releases it when its owner ends, however it ends.
    """
    lock = os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.lock')
    descriptor = _acquire(lock, wait)
    try:
        yield
    finally:
        with contextlib.suppress(OSError):
            os.unlink(lock)
        os.close(descriptor)


def _acquire(lock: str, wait: bool) -> int:
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Its last owner removed the file: whoever comes now makes and holds a new one.
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
