"""Pause garbage collection while many long-lived objects are created."""

import contextlib
import gc
from typing import Iterator


@contextlib.contextmanager
def gc_paused() -> Iterator[None]:
    """Pause Python's garbage collector inside the block; also a decorator.

    Loading modules and building a graph create hundreds of thousands of objects, and none of them is garbage. Without
    the pause, the collector searches all of them again and again. That takes 11 % of a demo run's start
    (docs/performance.md, "What was tried").
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
