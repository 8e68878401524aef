"""Locks between the processes of one host."""

import contextlib
import fcntl
import os
import socket
import subprocess
import time
from typing import Iterator, Optional

from lm_human_preferences.utils.progress import say

_SAID_AFTER_SECONDS = 3.0
_LONGEST_PAUSE = 0.1  # seconds between two tries


@contextlib.contextmanager
def locked(path: str, wait: bool = True, at_most: Optional[float] = None) -> Iterator[None]:
    """Hold the lock of `path` inside the block; first wait until no other process or thread of this host holds it.

    A wait of some seconds is said, with the process that holds the lock. Without `wait`, raise BlockingIOError if
    another process or thread holds it; with `at_most`, raise it after so many seconds.
    The lock is a hidden file beside `path`. The operating system releases it when its owner ends in any way.
    """
    lock = _lock_file(path)
    descriptor = _acquire(path, lock, at_most if wait else 0)
    try:
        yield
    finally:
        # If the folder was moved, another process may have a lock of this name by now.
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                os.unlink(lock)
        os.close(descriptor)


def holder(path: str) -> str:
    """Return the process that holds the lock of `path`, as ' (process 7)'; '' if it is unknown."""
    try:
        with open(_lock_file(path), encoding='utf-8', errors='replace') as file:
            number, _, host = file.read(300).strip().partition(' ')
    except OSError:
        return ''
    if not number.isdigit():
        return ''
    if host != socket.gethostname():
        return f' (process {number} on {host})'
    return f' (process {number}{", which is stopped" if _is_stopped(number) else ""})'


def _lock_file(path: str) -> str:
    return os.path.join(os.path.dirname(path), f'.{os.path.basename(path)}.lock')


def _is_stopped(number: str) -> bool:
    try:
        with open(f'/proc/{number}/stat', encoding='utf-8', errors='replace') as file:
            state = file.read().rpartition(')')[2].split()[0]
    except (OSError, IndexError):  # not Linux, or it has just ended
        state = _state_by_ps(number)
    return state[:1].upper() == 'T'


def _state_by_ps(number: str) -> str:
    try:
        done = subprocess.run(['ps', '-o', 'state=', '-p', number], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    except OSError:  # no such command
        return ''
    return done.stdout.decode('utf-8', 'replace').strip()


def _acquire(path: str, lock: str, at_most: Optional[float]) -> int:
    start, pause, said = time.monotonic(), 0.001, False
    while True:
        descriptor = os.open(lock, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # If the last owner has removed this file meanwhile, others lock a new one: try again.
            if os.path.samestat(os.fstat(descriptor), os.stat(lock)):
                _sign(descriptor)
                return descriptor
            busy = None
        except FileNotFoundError:
            busy = None
        except BlockingIOError as error:
            busy = error
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
        if busy is None:
            continue
        waited = time.monotonic() - start
        if at_most is not None and waited >= at_most:
            raise busy
        if waited > _SAID_AFTER_SECONDS and not said:
            say(f'waiting for another process{holder(path)}, which has locked {path}')
            said = True
        time.sleep(pause)
        pause = min(2 * pause, _LONGEST_PAUSE)


def _sign(descriptor: int) -> None:
    """Write this process into its lock file, for those who wait."""
    with contextlib.suppress(OSError):  # the lock also holds on a full disk
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f'{os.getpid()} {socket.gethostname()}\n'.encode())
