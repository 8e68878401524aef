"""Python's collector of unreachable cycles, kept from searching what is only growing."""

import contextlib
import gc
from typing import Iterator


@contextlib.contextmanager
def collector_off() -> Iterator[None]:
    """Make objects without the collector looking through all of them, again and again, for cycles to free.

    Modules that load and graphs that are built leave hundreds of thousands of objects, none of which is garbage: the
    search takes a seventh of the time until a run's first step. Also a decorator.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
