"""The processes (MPI ranks) of a run: who we are, and averages over all of us.

A single process needs no MPI at all. Started by `mpiexec`, the ranks exchange plain buffers through mpi4py.
"""

import os
from typing import Dict, List, Sequence

import numpy as np

from lm_human_preferences.utils.tf_versions import tf

# Set by the launchers of Open MPI, MPICH and its relatives, and SLURM's PMIx.
_SIZE_VARIABLES = ('OMPI_COMM_WORLD_SIZE', 'PMI_SIZE', 'PMIX_SIZE')


class Ranks:
    """All processes of this run; `rank` of `size` is this one."""

    def __init__(self):
        self._comm = None
        if any(int(os.environ.get(name, 1)) > 1 for name in _SIZE_VARIABLES):
            from mpi4py import MPI  # importing it starts MPI

            self._comm = MPI.COMM_WORLD
        self.rank = self._comm.Get_rank() if self._comm else 0
        self.size = self._comm.Get_size() if self._comm else 1

    @property
    def is_first(self) -> bool:
        """Whether this rank is the one that prints and writes files."""
        return self.rank == 0

    def share(self, total: int) -> int:
        """This rank's part of `total` items, which must divide evenly."""
        if total % self.size:
            raise ValueError(f'{total} does not divide by {self.size} ranks')
        return total // self.size

    def mean(self, array) -> np.ndarray:
        """The mean over ranks of an array of one shape on all of them, in float64."""
        mine = np.array(array, np.float64, order='C')
        if self.size == 1:
            return mine
        total = np.empty_like(mine)
        self._comm.Allreduce(mine, total)
        return total / self.size

    def mean_stats(self, stats: Dict[str, float]) -> Dict[str, float]:
        """The mean over ranks of named numbers; every rank has the same names."""
        names = sorted(stats)
        return dict(zip(names, self.mean([stats[name] for name in names]).tolist()))

    def broadcast(self, array: np.ndarray) -> np.ndarray:
        """The first rank's array, on all ranks; other ranks give one of the same shape and type."""
        array = np.array(array, order='C')  # np.ascontiguousarray would make a vector of a number
        if self.size > 1:
            self._comm.Bcast(array)
        return array

    def wait_for_all(self) -> None:
        """Go on when every rank has come here."""
        if self.size > 1:
            self._comm.Barrier()

    def broadcast_variables(self, session: tf.Session, variables: Sequence[tf.Variable]) -> None:
        """Set the variables on every rank to the first rank's values."""
        if self.size == 1:
            return
        for variable in variables:
            value = self.broadcast(session.run(variable))
            if not self.is_first:
                variable.load(value, session)

    def mean_tensors(self, tensors: Sequence[tf.Tensor]) -> List[tf.Tensor]:
        """The graph's tensors averaged over ranks, in one exchange of all of them together."""
        if self.size == 1:
            return list(tensors)
        flat = tf.concat([tf.reshape(tensor, [-1]) for tensor in tensors], axis=0)
        averaged = tf.py_func(self._mean_float32, [flat], tf.float32)
        averaged.set_shape(flat.shape)
        parts = tf.split(averaged, [tensor.shape.num_elements() for tensor in tensors])
        return [tf.reshape(part, tensor.shape) for part, tensor in zip(parts, tensors)]

    def _mean_float32(self, array):
        total = np.empty_like(array)
        self._comm.Allreduce(np.ascontiguousarray(array), total)
        return total / np.float32(self.size)

    def threads(self) -> int:
        """CPU threads for this rank: its share of the host's cores, or 0 (TensorFlow's choice) for a single rank."""
        if self.size == 1:
            return 0
        on_this_host = int(
            os.environ.get('OMPI_COMM_WORLD_LOCAL_SIZE') or os.environ.get('MPI_LOCALNRANKS') or self.size
        )
        return max(1, (os.cpu_count() or 1) // on_this_host)
