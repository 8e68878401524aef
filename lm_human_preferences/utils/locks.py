"""Locks between the processes of one host."""

import contextlib
import fcntl
import os
from typing import Iterator


@contextlib.contextmanager
def locked(path: str, wait: bool = True) -> Iterator[None]:
    """Hold the lock of `path` inside the block; first wait until no other process or thread of this host holds it.

    Without `wait`, raise BlockingIOError if another process or thread holds it.
    The lock is a hidden file beside `path`. The operating system releases it when its owner ends in any way.
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
            # If the last owner has removed this file meanwhile, others lock a new one: try again.
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                return descriptor
        except FileNotFoundError:
            pass
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
