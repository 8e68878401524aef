"""The memory of tensors: one heap, which goes back to the operating system when a model is no longer used."""

import contextlib
import ctypes
import gc
import os
from typing import Iterator

_USER_SETTINGS = ('MALLOC_', 'GLIBC_TUNABLES')  # how the names of variables begin
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8  # as in malloc.h of glibc
_LARGE = 2**30  # bytes


def use_one_heap() -> None:
    """Keep all tensors in one heap of the C library. Call this before TensorFlow is loaded.

    TensorFlow 2 with oneDNN has a pool of its own for large tensors. It never shrinks: after a reward model that needed
    6.7 GB, a policy would train in 6.7 GB, where it needs 4. In the heap of C, by default, each thread would have an
    arena, and arrays above 32 MB would be mapped anew each time: 6 % of an epoch and 0.2 GB. See docs/performance.md,
    "Memory".

    Settings of the user stay as they are. Without glibc nothing changes.
    """
    mallopt = getattr(ctypes.CDLL(None), 'mallopt', None)
    if mallopt is None:
        return
    os.environ.setdefault('TF_ONEDNN_USE_SYSTEM_ALLOCATOR', '1')
    if not any(name.startswith(_USER_SETTINGS) for name in os.environ):
        for parameter, value in ((_ARENA_MAX, 1), (_MMAP_THRESHOLD, _LARGE), (_TRIM_THRESHOLD, _LARGE)):
            mallopt(parameter, value)


def trim_heap() -> None:
    """Give the free memory of the heap back to the operating system."""
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


@contextlib.contextmanager
def memory_given_back() -> Iterator[None]:
    """Free what a function leaves when it returns: a decorator, so that the function's variables are gone by then."""
    yield
    gc.collect()  # a graph refers to itself
    trim_heap()
