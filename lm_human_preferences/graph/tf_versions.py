"""One code base for TensorFlow 1.13.2 (as in 2019) and current TensorFlow 2.

This module holds what differs between the two. All other code uses `tensorflow.compat.v1`: graphs, sessions and
placeholders. Importing this module switches TensorFlow 2 to that behaviour.
"""

import contextlib
import errno
import os
import warnings
from typing import Iterator, Optional, Sequence, Tuple, Union

from lm_human_preferences.graph.gpus import visible_device_list
from lm_human_preferences.graph.memory import use_one_heap
from lm_human_preferences.utils.gc_pause import gc_paused

use_one_heap()
os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '3')  # we get its errors as exceptions
# TensorFlow 2 does not use oneDNN on a CPU without AVX-512. With it, a training step takes 4/5 of the time there, too.
os.environ.setdefault('TF_ENABLE_ONEDNN_OPTS', '1')


@contextlib.contextmanager
def _without_remarks() -> Iterator[None]:
    """Hide what TensorFlow 2.21 prints to standard error while it loads, before it knows the log level."""
    kept, nowhere = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)


with warnings.catch_warnings(), _without_remarks(), gc_paused():
    warnings.simplefilter('ignore')  # TensorFlow 1.13 uses names of numpy types that are deprecated
    import tensorflow.compat.v1 as tf

IS_TF1 = tf.__version__.startswith('1.')

tf.logging.set_verbosity(tf.logging.ERROR)
if not IS_TF1:
    tf.disable_v2_behavior()
    tf.config.experimental.enable_tensor_float_32_execution(False)  # float32 means float32, see `tensor_float_32`


from tensorflow.core.framework.variable_pb2 import VariableDef  # noqa: E402, F401  there is no public name

if IS_TF1:
    from tensorflow.python.ops import gen_io_ops, inplace_ops
    from tensorflow.python.training import training_ops
else:
    from tensorflow.python.util import _pywrap_util_port


def uses_onednn() -> bool:
    """Return whether oneDNN computes matrix products: in TensorFlow 2 on a CPU, unless TF_ENABLE_ONEDNN_OPTS is 0."""
    return not IS_TF1 and _pywrap_util_port.IsMklEnabled() and not tf.config.list_physical_devices('GPU')


def empty_array(shape: Sequence[Union[int, tf.Tensor]], dtype: tf.DType) -> tf.Tensor:
    """Create an array of zeros for `write_in_place`. No other tensor shares its memory."""
    empty = inplace_ops.empty if IS_TF1 else tf.raw_ops.Empty
    array = empty(shape=tf.convert_to_tensor(shape, tf.int32), dtype=dtype, init=True)
    array.set_shape([size if isinstance(size, int) else None for size in shape])
    return array


def write_in_place(array: tf.Tensor, rows: tf.Tensor, values: tf.Tensor) -> tf.Tensor:
    """Replace `rows` [m] of `array` [n, …] by `values` [m, …] without a copy, and return the array.

    Use only the returned tensor afterwards: the given one shares its memory.
    """
    update = inplace_ops.alias_inplace_update if IS_TF1 else tf.raw_ops.InplaceUpdate
    return update(x=array, i=rows, v=values)


def apply_adam(
    variable: tf.Variable,
    moments: Tuple[tf.Variable, tf.Variable],
    powers: Tuple[tf.Tensor, tf.Tensor],
    learning_rate: tf.Tensor,
    betas: Tuple[tf.Tensor, tf.Tensor],
    epsilon: tf.Tensor,
    gradient: tf.Tensor,
) -> tf.Operation:
    """Do one step of Adam on a variable and its moments. `powers` are the betas to the power of this step's number."""
    apply = training_ops.resource_apply_adam if IS_TF1 else tf.raw_ops.ResourceApplyAdam
    return apply(
        var=variable.handle,
        m=moments[0].handle,
        v=moments[1].handle,
        beta1_power=powers[0],
        beta2_power=powers[1],
        lr=learning_rate,
        beta1=betas[0],
        beta2=betas[1],
        epsilon=epsilon,
        grad=gradient,
    )


def session_config(threads: int = 0) -> tf.ConfigProto:
    """Return the settings of a session: on the GPU of this process (`gpus.choose_gpu`), with memory only as needed.

    With `threads` 0, TensorFlow chooses a number.
    """
    config = tf.ConfigProto(intra_op_parallelism_threads=threads, inter_op_parallelism_threads=threads)
    config.gpu_options.allow_growth = True
    config.gpu_options.visible_device_list = visible_device_list()
    # Run the graph optimizer once, without its search for memory to save. More only makes the start slower.
    rewriting = config.graph_options.rewrite_options
    rewriting.meta_optimizer_iterations = rewriting.ONE
    rewriting.memory_optimization = rewriting.NO_MEM_OPT
    return config


def write_checkpoint(prefix: tf.Tensor, variables: Sequence[tf.Variable]) -> tf.Operation:
    """Write a checkpoint of variables. `prefix` (string, scalar) is what the names of its files begin with."""
    graph = tf.get_default_graph()
    names = [variable.op.name for variable in variables]
    arguments = dict(prefix=prefix, tensor_names=names, shape_and_slices=[''] * len(names))
    save = gen_io_ops.save_v2 if IS_TF1 else tf.raw_ops.SaveV2
    return save(tensors=[graph.as_graph_element(variable) for variable in variables], **arguments)


def merge_checkpoints(prefixes: tf.Tensor, merged: tf.Tensor) -> tf.Operation:
    """Make checkpoints (string [n], their prefixes) one checkpoint, by one index. Their data files are only renamed."""
    merge = gen_io_ops.merge_v2_checkpoints if IS_TF1 else tf.raw_ops.MergeV2Checkpoints
    return merge(checkpoint_prefixes=prefixes, destination_prefix=merged, delete_old_dirs=False)


def new_session(graph: tf.Graph, threads: int = 0) -> tf.Session:
    """Open a session on `graph` with the settings of `session_config`."""
    return tf.Session(graph=graph, config=session_config(threads))


def gpu_memory() -> Optional[int]:
    """Return the bytes of GPU memory that the default session may use; None without a session or a GPU."""
    session = tf.get_default_session()
    devices = session.list_devices() if session else []
    return next((device.memory_limit_bytes for device in devices if device.device_type == 'GPU'), None)


def check_available(dtype: str = 'float32', tf32: bool = False) -> None:
    """Raise ValueError for a type of matrix products that this TensorFlow lacks, or has only slowly."""
    if IS_TF1 and dtype == 'bfloat16':
        raise ValueError('run.dtype=bfloat16 needs TensorFlow 2: TensorFlow 1.13 has no fast bfloat16 products')
    if IS_TF1 and tf32:
        raise ValueError('run.tf32 needs TensorFlow 2: TensorFlow 1.13 is older than TensorFloat-32')


@contextlib.contextmanager
def tensor_float_32(on: bool) -> Iterator[None]:
    """Inside, compute float32 products with the 10 bits of precision of TensorFloat-32, if `on`; else with all 23.

    Only GPUs from Ampere on have TensorFloat-32. ValueError where TensorFlow is older than it.
    """
    check_available(tf32=on)
    if IS_TF1:
        yield
        return
    before = tf.config.experimental.tensor_float_32_execution_enabled()
    tf.config.experimental.enable_tensor_float_32_execution(on)
    try:
        yield
    finally:
        tf.config.experimental.enable_tensor_float_32_execution(before)


def what_failed(error: tf.errors.OpError) -> str:
    """Return the reason of a TensorFlow error in one line: the operating system's reason, if there is one.

    In TensorFlow 2 the message begins with the place in the graph. That does not help a user, and is left out.
    """
    for code in (errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EACCES, errno.EROFS):
        if os.strerror(code) in error.message:
            return os.strerror(code)
    lines = [line for line in error.message.splitlines() if line and not line.startswith('Graph execution error')]
    nodes = [number for number, line in enumerate(lines[:-1]) if line.startswith('Node: ')]
    return lines[nodes[-1] + 1] if nodes else lines[0]
