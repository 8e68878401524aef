"""The processes (MPI ranks) of a run, and their collectives outside of the TensorFlow graph.

A single process needs no MPI. Ranks that `mpiexec` started use mpi4py, on plain buffers.
"""

import contextlib
import json
import os
import shutil
import tempfile
import time
from typing import Any, Callable, Dict, Iterator, List, Sequence

import numpy as np

from lm_human_preferences.graph.variables import set_variables, variable_values
from lm_human_preferences.utils.errors import UserError, user_message

# Set by the launchers of Open MPI, MPICH and its relatives, PMIx, and SLURM's srun.
_SIZE_VARIABLES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'PMIX_SIZE', 'SLURM_STEP_NUM_TASKS')

THREADS_VARIABLE = 'LM_HUMAN_PREFERENCES_THREADS'

_SMALL_BYTES = 64 * 2**10  # smaller arrays wait for others, to travel in one message
_BLOCK_BYTES = 2**20  # of each rank in a message: large beside the cost of a message, small beside the cache
_SLEEP_SECONDS = 0.02
_ALIGNMENT = 64  # TensorFlow takes the memory of an array with this alignment, and copies others


class Ranks:
    """The processes of this run: this one is `rank` of `size`, and `local_rank` of `local_size` on its host."""

    def __init__(self, alone: bool = False):
        """With `alone`, this process is the only rank: it waits for no other, even in a run of several."""
        self._comm = None
        self.rank, self.size, self.local_rank, self.local_size = 0, 1, 0, 1
        if not alone and any(int(os.environ.get(name, 1)) > 1 for name in _SIZE_VARIABLES):
            from mpi4py import MPI  # importing it starts MPI

            self._comm = MPI.COMM_WORLD
            self.rank, self.size = self._comm.Get_rank(), self._comm.Get_size()
            on_this_host = self._comm.Split_type(MPI.COMM_TYPE_SHARED)
            self.local_rank, self.local_size = on_this_host.Get_rank(), on_this_host.Get_size()
            on_this_host.Free()

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0. It alone prints, reads checkpoints and writes files."""
        return self.rank == 0

    def share(self, total: int) -> int:
        """Return this rank's share of `total` items. ValueError if they do not divide evenly."""
        if total % self.size:
            raise ValueError(f'{total} must be a multiple of the number of ranks ({self.size})')
        return total // self.size

    def mean(self, array) -> np.ndarray:
        """Return the mean of an array over ranks, in float64. It has the same shape on every rank."""
        return self.mean_buffers(np.array(array, np.float64))[0]

    def mean_buffers(self, *arrays: np.ndarray) -> List[np.ndarray]:
        """Return the means over ranks of float arrays of one type, as new arrays; with one rank, the arrays themselves.

        Their shapes and types are the same on every rank.
        """
        if self.size == 1:
            return list(arrays)
        means = [_aligned(array) for array in arrays]
        small = [i for i, array in enumerate(arrays) if array.nbytes < _SMALL_BYTES]
        for array, mean in zip(arrays, means):
            if array.nbytes >= _SMALL_BYTES:
                self._mean_into(mean.reshape(-1), array.reshape(-1))
        if small:  # they travel together
            joined = np.concatenate([arrays[i].reshape(-1) for i in small])
            mean = np.empty_like(joined)
            self._mean_into(mean, joined)
            parts = np.split(mean, np.cumsum([arrays[i].size for i in small[:-1]]))
            for i, part in zip(small, parts):
                means[i].reshape(-1)[:] = part
        return means

    def _mean_into(self, mean: np.ndarray, array: np.ndarray) -> None:
        """Set `mean` to the mean of `array` over ranks, both vectors.

        They travel in blocks: one that has just arrived is still in the processor's cache when it is divided.
        """
        entries = _BLOCK_BYTES * self.size // array.itemsize
        for start in range(0, array.size, entries):
            block = mean[start : start + entries]
            self._comm.Allreduce(array[start : start + entries], block)
            block /= self.size

    def mean_stats(self, stats: Dict[str, float]) -> Dict[str, float]:
        """Return the means of named numbers over ranks. Every rank has the same names."""
        names = sorted(stats)
        return dict(zip(names, self.mean([stats[name] for name in names]).tolist()))

    def broadcast(self, array: np.ndarray) -> np.ndarray:
        """Return the first rank's array on all ranks. Other ranks pass an array of the same shape and type."""
        array = np.array(array, order='C')
        if self.size > 1:
            self._comm.Bcast(array)
        return array

    def broadcast_text(self, text: str) -> str:
        """Return the first rank's text on all ranks."""
        data = np.frombuffer(text.encode('utf-8', 'surrogateescape'), np.uint8)
        size = int(self.broadcast(np.array(len(data))))
        data = self.broadcast(data if self.is_first else np.empty(size, np.uint8))
        return data.tobytes().decode('utf-8', 'surrogateescape')

    def from_first(self, find: Callable[[], Any]) -> Any:
        """Return on all ranks what `find` returns on the first one, which alone calls it: content of JSON.

        If it raises there what the user can fix, all ranks raise: the others UserError with the same line.
        """
        if self.size == 1:
            return find()
        if not self.is_first:
            told = json.loads(self.broadcast_text(''))
            if 'error' in told:
                raise UserError(told['error'])
            return told['content']
        try:
            content = find()
        except Exception as error:
            message = user_message(error)
            if message is not None:  # a bug ends this rank, and with it the others
                self.broadcast_text(json.dumps({'error': message}))
            raise
        self.broadcast_text(json.dumps({'content': content}))
        return content

    def arrays_of_first(self, read: Callable[[], Dict[str, np.ndarray]]) -> Dict[str, np.ndarray]:
        """Return on all ranks the named arrays that `read` returns on the first one, with errors as `from_first`."""
        arrays = {}

        def kinds():
            arrays.update(read())
            return [(name, array.shape, array.dtype.str) for name, array in arrays.items()]

        return {
            name: self.broadcast(arrays[name] if self.is_first else np.empty(shape, dtype))
            for name, shape, dtype in self.from_first(kinds)
        }

    def join(self, array: np.ndarray) -> np.ndarray:
        """Return the sum of arrays over ranks: each rank has set its own entries, and left the others zero.

        The array has the same shape and type on every rank.
        """
        if self.size == 1:
            return array
        mine = np.asarray(array, np.uint8 if array.dtype == bool else None, order='C')
        joined = np.empty_like(mine)
        self._comm.Allreduce(mine, joined)
        return joined.astype(array.dtype)

    def wait_for_all(self, asleep: bool = False) -> None:
        """Wait until every rank has called this. A long wait should be `asleep`: MPI's own wait keeps a core busy."""
        if self.size == 1:
            return
        everyone = self._comm.Ibarrier()
        while asleep and not everyone.Test():
            time.sleep(_SLEEP_SECONDS)
        everyone.Wait()

    def broadcast_variables(self, session, variables: Sequence) -> None:
        """Set the session's variables to the first rank's values. On other ranks they need not be initialized."""
        if self.size == 1:
            return
        if self.is_first:
            for value in variable_values(session, variables):
                self.broadcast(value)
            return
        kinds = [(v.shape.as_list(), v.dtype.base_dtype.as_numpy_dtype) for v in variables]
        set_variables(session, variables, lambda i: self.broadcast(np.empty(*kinds[i])))

    def threads(self) -> int:
        """Return the CPU threads for this rank: its share of the host's cores, or 0 (TensorFlow's choice) if alone.

        LM_HUMAN_PREFERENCES_THREADS sets another number. With 1 thread, equal runs have bit-identical results.
        """
        if os.environ.get(THREADS_VARIABLE):
            return int(os.environ[THREADS_VARIABLE])
        if self.size == 1:
            return 0
        return max(1, usable_cores() // self.local_size)


def usable_cores() -> int:
    """Return how many cores of this host the process may use: all of them where the system keeps no such list."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # macOS
        return os.cpu_count() or 1


def _aligned(like: np.ndarray) -> np.ndarray:
    """Return a new array of the shape and type of another one, without set values, as TensorFlow aligns its own."""
    memory = np.empty(like.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    return memory[start : start + like.nbytes].view(like.dtype).reshape(like.shape)


@contextlib.contextmanager
def shared_temporary_folder(ranks: Ranks) -> Iterator[str]:
    """Create a private folder on the first rank, remove it at the end, and give its path to all ranks."""
    folder = tempfile.mkdtemp() if ranks.is_first else ''
    try:
        yield ranks.broadcast_text(folder)
        ranks.wait_for_all()
    finally:
        if folder:
            shutil.rmtree(folder)
