"""Read and set the values of a session's variables, many in one run of the session.

Each run of a session costs tens of milliseconds on a large graph. But a single run for all variables would need memory
for a copy of the whole model. So the variables are divided into chunks.
"""

from typing import Callable, Iterator, List, Sequence

import numpy as np

CHUNK_BYTES = 64 * 2**20  # large beside the cost of a run or a message, small beside a large model


def chunks(sizes: Sequence[int]) -> List[List[int]]:
    """Divide things of `sizes` bytes into groups of their indices: up to CHUNK_BYTES each, or one larger thing."""
    groups, room = [], 0
    for i, size in enumerate(sizes):
        if not groups or size > room:
            groups.append([])
            room = CHUNK_BYTES
        groups[-1].append(i)
        room -= size
    return groups


def variable_values(session, variables: Sequence) -> Iterator[np.ndarray]:
    """Yield the value of each variable."""
    for chunk in chunks(_sizes(variables)):
        yield from session.run([variables[i] for i in chunk])


def set_variables(session, variables: Sequence, value_of: Callable[[int], np.ndarray]) -> None:
    """Set each variable to `value_of(its index)`, which is called in order."""
    for chunk in chunks(_sizes(variables)):
        initializers = [variables[i].initializer for i in chunk]
        session.run(initializers, {op.inputs[1]: value_of(i) for op, i in zip(initializers, chunk)})


def _sizes(variables):
    return [v.shape.num_elements() * v.dtype.base_dtype.size for v in variables]
