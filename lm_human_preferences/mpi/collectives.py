"""What ranks exchange within a step of training: means over the whole batch, and averaged gradients.

Through mpi4py, TensorFlow hands its buffers to MPI. All ranks must come to these exchanges in one order, or they would
wait for each other for ever, so each exchange of a graph waits for the one that was made before it. Horovod finds an
order of its own; where it is installed, gradients go its way.
"""

import functools
import os
from typing import Callable, List, Optional, Sequence

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.graph.variables import chunks
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.utils.errors import UserError

CHOICE_VARIABLE = 'LM_HUMAN_PREFERENCES_GRADIENTS'
_EXCHANGES = 'exchanges'  # the graph collection of those made so far


def mean_over_batch(ranks: Ranks) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function like `tf.reduce_mean` of a whole tensor, but over all ranks' tensors, which are of one shape."""
    if ranks.size == 1:
        return tf.reduce_mean
    return lambda share: _mean_over_ranks(tf.reduce_mean(share), ranks)


def gradient_average(ranks: Ranks) -> Callable[[Sequence[tf.Tensor]], List[tf.Tensor]]:
    """The function that averages gradients over these ranks."""
    return functools.partial(average_gradients, ranks=ranks)


def average_gradients(gradients: Sequence[tf.Tensor], ranks: Ranks) -> List[tf.Tensor]:
    """Dense float gradients averaged over ranks, in chunks: many small tensors as one, a large one by itself."""
    if ranks.size == 1:
        return list(gradients)
    horovod = find_horovod(ranks)
    if horovod is not None:
        return [horovod.allreduce(gradient) for gradient in gradients]  # it fuses what is ready
    averaged = []
    last_first = list(gradients)[::-1]  # the order in which backpropagation makes them
    for chunk in chunks([gradient.shape.num_elements() * gradient.dtype.size for gradient in last_first]):
        members = [last_first[i] for i in chunk]
        mean = _mean_over_ranks(tf.concat([tf.reshape(member, [-1]) for member in members], axis=0), ranks)
        parts = tf.split(mean, [member.shape.num_elements() for member in members])
        averaged += [tf.reshape(part, member.shape) for part, member in zip(parts, members)]
    return averaged[::-1]


def initialize(session: tf.Session, loaded: Sequence[tf.Variable], ranks: Ranks) -> None:
    """Give every variable of the session's graph that was not loaded its initial value, and all ranks the first's.

    So only the first rank needs to load any.
    """
    with session.graph.as_default():
        variables = tf.global_variables()
        if ranks.is_first:
            loaded_names = {variable.name for variable in loaded}
            session.run(tf.variables_initializer([v for v in variables if v.name not in loaded_names]))
    ranks.broadcast_variables(session, variables)


def find_horovod(ranks: Ranks):
    """Horovod's module for TensorFlow, started; None where gradients travel through mpi4py.

    LM_HUMAN_PREFERENCES_GRADIENTS may name one of the two; else it is Horovod if every rank has it.
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
            f'Horovod sees {horovod.size()} ranks where mpi4py sees {ranks.size}: they are built for different MPIs; '
            f'build Horovod anew (make horovod), or set {CHOICE_VARIABLE}=mpi4py'
        )
    if choice == 'horovod':
        raise UserError(
            f'{CHOICE_VARIABLE} is horovod, but a rank has no Horovod with TensorFlow and MPI: build it (make horovod)'
        )
    return None


def describe(ranks: Ranks) -> str:
    """How many ranks there are, and by what their gradients are averaged."""
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


def _mean_over_ranks(tensor: tf.Tensor, ranks: Ranks) -> tf.Tensor:
    """The mean over ranks of a float tensor of one shape on all of them."""
    exchanges = tf.get_collection_ref(_EXCHANGES)
    with tf.control_dependencies(exchanges[-1:]):
        mean = tf.py_func(ranks.mean_buffer, [tensor], tensor.dtype)
    mean.set_shape(tensor.shape)
    exchanges.append(mean)
    return mean
