"""The processes (MPI ranks) of a run: who we are, and what we tell each other outside of TensorFlow.

A single process needs no MPI at all. Started by `mpiexec`, the ranks exchange plain buffers through mpi4py.
"""

import contextlib
import os
import shutil
import tempfile
from typing import Dict, Iterator, Sequence

import numpy as np

from lm_human_preferences.graph.variables import set_variables, variable_values

# Set by the launchers of Open MPI, MPICH and its relatives, and SLURM's PMIx.
_SIZE_VARIABLES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'PMIX_SIZE')

THREADS_VARIABLE = 'LM_HUMAN_PREFERENCES_THREADS'


class Ranks:
    """All processes of this run; `rank` of `size` is this one, and `local_rank` of `local_size` on its host."""

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
        """Whether this rank is the one that prints, reads checkpoints and writes files."""
        return self.rank == 0

    def share(self, total: int) -> int:
        """This rank's part of `total` items, which must divide evenly."""
        if total % self.size:
            raise ValueError(f'{total} does not divide by {self.size} ranks')
        return total // self.size

    def mean(self, array) -> np.ndarray:
        """The mean over ranks of an array of one shape on all of them, in float64."""
        return self.mean_buffer(np.array(array, np.float64))

    def mean_buffer(self, array: np.ndarray) -> np.ndarray:
        """The mean over ranks of a float array of one shape and type on all of them."""
        if self.size == 1:
            return array
        array = np.asarray(array, order='C')  # np.ascontiguousarray would make a vector of a number
        mean = np.empty_like(array)
        self._comm.Allreduce(array, mean)
        mean /= self.size
        return mean

    def mean_stats(self, stats: Dict[str, float]) -> Dict[str, float]:
        """The mean over ranks of named numbers; every rank has the same names."""
        names = sorted(stats)
        return dict(zip(names, self.mean([stats[name] for name in names]).tolist()))

    def broadcast(self, array: np.ndarray) -> np.ndarray:
        """The first rank's array, on all ranks; other ranks give one of the same shape and type."""
        array = np.array(array, order='C')
        if self.size > 1:
            self._comm.Bcast(array)
        return array

    def wait_for_all(self) -> None:
        """Go on when every rank has come here."""
        if self.size > 1:
            self._comm.Barrier()

    def broadcast_variables(self, session, variables: Sequence) -> None:
        """Give the session's variables the first rank's values; on other ranks they need none before."""
        if self.size == 1:
            return
        if self.is_first:
            for value in variable_values(session, variables):
                self.broadcast(value)
            return
        kinds = [(v.shape.as_list(), v.dtype.base_dtype.as_numpy_dtype) for v in variables]
        set_variables(session, variables, lambda i: self.broadcast(np.empty(*kinds[i])))

    def threads(self) -> int:
        """CPU threads for this rank: its share of the host's cores, or 0 (TensorFlow's choice) for a single rank.

        LM_HUMAN_PREFERENCES_THREADS sets another number; with 1, equal runs have equal results to the last bit.
        """
        if os.environ.get(THREADS_VARIABLE):
            return int(os.environ[THREADS_VARIABLE])
        if self.size == 1:
            return 0
        return max(1, len(os.sched_getaffinity(0)) // self.local_size)


@contextlib.contextmanager
def shared_temporary_folder(ranks: Ranks) -> Iterator[str]:
    """A private folder that the first rank makes and removes; all ranks get its path."""
    folder = tempfile.mkdtemp() if ranks.is_first else ''
    try:
        path = np.zeros(4096, np.uint8)
        path[: len(os.fsencode(folder))] = np.frombuffer(os.fsencode(folder), np.uint8)
        yield os.fsdecode(ranks.broadcast(path).tobytes().rstrip(b'\0'))
        ranks.wait_for_all()
    finally:
        if folder:
            shutil.rmtree(folder)
