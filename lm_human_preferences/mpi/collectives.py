"""MPI collectives inside the TensorFlow graph: means over the whole batch, and averaged gradients.

With mpi4py, TensorFlow passes its buffers to MPI. All ranks must run these collectives in the same order, or they
deadlock. So each collective of a graph waits for the one that was created before it. Horovod needs no such order;
where it is installed, it averages the gradients.
"""

import functools
import os
from typing import Callable, List, Optional, Sequence

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.graph.variables import chunks
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.utils.errors import UserError

CHOICE_VARIABLE = 'LM_HUMAN_PREFERENCES_GRADIENTS'
_COLLECTIVES = 'collectives'  # the graph collection of the collectives created so far


def mean_over_batch(ranks: Ranks) -> Callable[[tf.Tensor], tf.Tensor]:
    """Return a function that averages a whole tensor over all ranks, as `tf.reduce_mean` does on one rank.

    The tensor has the same shape on every rank.
    """
    if ranks.size == 1:
        return tf.reduce_mean
    return lambda share: _means_over_ranks([tf.reduce_mean(share)], ranks)[0]


def gradient_average(ranks: Ranks) -> Callable[[Sequence[tf.Tensor]], List[tf.Tensor]]:
    """Return the function that averages gradients over these ranks."""
    return functools.partial(average_gradients, ranks=ranks)


def average_gradients(gradients: Sequence[tf.Tensor], ranks: Ranks) -> List[tf.Tensor]:
    """Average dense float gradients over ranks, in chunks: many small tensors together, a large one alone."""
    if ranks.size == 1:
        return list(gradients)
    horovod = find_horovod(ranks)
    if horovod is not None:
        return [horovod.allreduce(gradient) for gradient in gradients]  # Horovod itself joins small tensors
    averaged = []
    last_first = list(gradients)[::-1]  # the order in which backpropagation computes them
    for chunk in chunks([gradient.shape.num_elements() * gradient.dtype.size for gradient in last_first]):
        averaged += _means_over_ranks([last_first[i] for i in chunk], ranks)
    return averaged[::-1]


def initialize_variables(session: tf.Session, loaded: Sequence[tf.Variable], ranks: Ranks) -> None:
    """Initialize variables that were not loaded, then broadcast all from rank 0.

    Only rank 0 needs to load variables.
    """
    with session.graph.as_default():
        variables = tf.global_variables()
        if ranks.is_first:
            loaded_names = {variable.name for variable in loaded}
            session.run([v.initializer for v in variables if v.name not in loaded_names])
    ranks.broadcast_variables(session, variables)


def find_horovod(ranks: Ranks):
    """Start Horovod and return its module for TensorFlow; return None if mpi4py averages the gradients.

    LM_HUMAN_PREFERENCES_GRADIENTS selects `horovod` or `mpi4py`. Without it, Horovod is used if every rank has it.
    UserError for another value, for `horovod` on a rank without it, and for a Horovod built for another MPI.
    """
    choice = os.environ.get(CHOICE_VARIABLE, '')
    if choice not in ('', 'horovod', 'mpi4py'):
        raise UserError(f'{CHOICE_VARIABLE} must be horovod or mpi4py, not {choice!r}')
    horovod = None if choice == 'mpi4py' else _import_horovod()
    if ranks.mean(horovod is not None) == 1:
        horovod.init()
        if horovod.size() == ranks.size:
            return horovod
        raise UserError(
            f'Horovod sees {horovod.size()} ranks but mpi4py sees {ranks.size}: they are built for different MPIs; '
            f'build Horovod again (make horovod), or set {CHOICE_VARIABLE}=mpi4py'
        )
    if choice == 'horovod':
        raise UserError(
            f'{CHOICE_VARIABLE} is horovod, but a rank has no Horovod with TensorFlow and MPI: build it (make horovod)'
        )
    return None


def describe(ranks: Ranks) -> str:
    """Say in one line how many ranks there are, and which package averages their gradients."""
    if find_horovod(ranks) is not None:
        import horovod as package
    else:
        import mpi4py as package
    name = {'horovod': 'Horovod'}.get(package.__name__, package.__name__)
    hosts = round(float(ranks.mean(ranks.local_rank == 0)) * ranks.size)
    where = f' on {hosts} hosts' if hosts > 1 else ''
    return f'{ranks.size} ranks{where}, gradients averaged by {name} {package.__version__}'


def _import_horovod() -> Optional[object]:
    try:
        import horovod.tensorflow as horovod
    except ImportError:
        return None
    return horovod if horovod.mpi_built() else None


def _means_over_ranks(tensors: Sequence[tf.Tensor], ranks: Ranks) -> List[tf.Tensor]:
    """Average float tensors of one type over ranks. They have the same shapes on every rank.

    On a CPU, MPI reads and writes the memory of TensorFlow's own arrays. There is no kernel for GPUs: from there,
    tensors pass through the memory of the host.
    """
    collectives = tf.get_collection_ref(_COLLECTIVES)
    with tf.control_dependencies(collectives[-1:]):
        means = tf.py_func(ranks.mean_buffers, list(tensors), [tensor.dtype for tensor in tensors])
    for mean, tensor in zip(means, tensors):
        mean.set_shape(tensor.shape)
    collectives.append(means[0])
    return means
