"""The values of a session's variables, read and set many at a time.

Each run of a session costs tens of milliseconds on a graph as large as ours before it does anything; one run for all
would copy a whole model.
"""

from typing import Callable, Iterator, List, Sequence

import numpy as np

CHUNK_BYTES = 64 * 2**20  # far above what a run or a message costs, far below a large model


def chunks(sizes: Sequence[int]) -> List[List[int]]:
    """Indices of things of `sizes` bytes in groups that go together: up to CHUNK_BYTES, or one larger thing."""
    groups, room = [], 0
    for i, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = CHUNK_BYTES
        groups[-1].append(i)
        room -= size
    return groups


def variable_values(session, variables: Sequence) -> Iterator[np.ndarray]:
    """The value of each variable."""
    for chunk in chunks(_sizes(variables)):
        yield from session.run([variables[i] for i in chunk])


def set_variables(session, variables: Sequence, value_of: Callable[[int], np.ndarray]) -> None:
    """Give each variable the value `value_of(its index)`; those are asked for in order."""
    for chunk in chunks(_sizes(variables)):
        initializers = [variables[i].initializer for i in chunk]
        session.run(initializers, {op.inputs[1]: value_of(i) for op, i in zip(initializers, chunk)})


def _sizes(variables):
    return [v.shape.num_elements() * v.dtype.base_dtype.size for v in variables]
