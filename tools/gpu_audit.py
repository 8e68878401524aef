"""List the operations of our graphs that a GPU cannot do, or does in the memory of the host: what GPUs would wait for.

    python tools/gpu_audit.py

Run it with the Python of an environment that has a GPU build of TensorFlow: `tensorflow` 2, or `tensorflow-gpu` 1.13.1
with tools/cuda_stand_ins.py. No GPU is needed, because TensorFlow itself is asked for its kernels. The environment
variable CHECKOUT names another checkout to audit. The graphs are those of training and sampling in float32, and in
bfloat16 with TensorFlow 2.

The table has these kinds of operations:
  a  no kernel for GPUs exists for their types: they run on the CPU;
  b  their GPU kernel keeps a tensor with a batch dimension in the memory of the host, as all arithmetic on int32 does;
  c  a, b or d inside the loop over sampled tokens: each of them costs a wait for the GPU per token;
  d  the size of their result depends on the data: the host waits for it, once in a pass of a model.
Not counted are arguments that are shapes, axes or numbers of a loop, which are in the memory of the host anyway. Nor is
what TensorFlow computes once, before the graph runs: operations on constants and on known shapes.
"""

import collections
import os
import sys
from typing import Dict, Iterator, List, NamedTuple, Tuple

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
sys.path.insert(0, os.environ.get('CHECKOUT', ROOT))
os.environ['TF_ENABLE_ONEDNN_OPTS'] = '0'  # as on a GPU: weights are not arranged for oneDNN

from tensorflow.python.framework import kernels  # noqa: E402

from lm_human_preferences.graph.tf_versions import IS_TF1, tf  # noqa: E402
from lm_human_preferences.hyperparameters import (  # noqa: E402
    ModelHParams,
    TaskHParams,
    TrainLmHParams,
    TrainPolicyHParams,
    TrainRewardHParams,
)
from lm_human_preferences.language.encodings import test_encoding  # noqa: E402
from lm_human_preferences.method.lm_tasks import Task  # noqa: E402
from lm_human_preferences.method.lm_trainer import LmTrainer  # noqa: E402
from lm_human_preferences.method.policy import Policy  # noqa: E402
from lm_human_preferences.method.ppo_trainer import PPOTrainer  # noqa: E402
from lm_human_preferences.method.reward_trainer import RewardTrainer  # noqa: E402
from lm_human_preferences.mpi.ranks import Ranks  # noqa: E402

# A dimension is one of the batch if it is a multiple of this prime, and only then.
BATCH = 11
QUERY, RESPONSE = 13, 7
SEQUENCE = QUERY + 4 * RESPONSE  # the longest: a query with four samples
MODEL = ModelHParams(n_vocab=27, n_ctx=64, n_embd=32, n_head=4, n_layer=2)
SIZES = dict(query_length=QUERY, response_length=RESPONSE, query_dataset='test', truncate_token=5, truncate_after=2)


class Finding(NamedTuple):
    """One line of the table."""

    kind: str  # a, b or d
    in_loop: bool
    operation: str
    dtype: str
    shape: str
    entries: int  # of that shape


def _ppo(dtype: str) -> None:
    hparams = TrainPolicyHParams(task=TaskHParams(**SIZES))
    hparams.run.dtype = dtype
    hparams.ppo.batch_size = BATCH
    PPOTrainer(hparams, Task(hparams.task, test_encoding()), MODEL, MODEL, Ranks(alone=True))


def _reward(dtype: str) -> None:
    hparams = TrainRewardHParams(task=TaskHParams(**SIZES), batch_size=BATCH, rollout_batch_size=BATCH)
    hparams.run.dtype = dtype
    hparams.labels.type = 'best_of_4'
    RewardTrainer(hparams, Task(hparams.task, test_encoding()), MODEL, Ranks(alone=True))


def _sampling(dtype: str) -> None:
    policy = Policy(MODEL, Task(TaskHParams(**SIZES), test_encoding()), dtype=dtype)
    queries = tf.placeholder(tf.int32, [BATCH, QUERY])
    policy.respond(queries, tf.placeholder(tf.float32, [BATCH, RESPONSE]), top_k=5, top_p=0.9)


def _lm(dtype: str) -> None:
    hparams = TrainLmHParams(batch_size=BATCH, sequence_length=QUERY, dropout=0.1, weight_decay=0.01)
    hparams.run.dtype = dtype
    LmTrainer(hparams, MODEL, Ranks(alone=True))


GRAPHS = {'train_policy': _ppo, 'train_reward': _reward, 'train_lm': _lm, 'sample, top_k and top_p': _sampling}


def findings(graph: tf.Graph) -> Iterator[Tuple[Finding, str]]:
    """Give each finding in a graph, with the name of the operation."""
    known = _known_before(graph)
    for op in graph.get_operations():
        if op in known:
            continue
        kernel = _gpu_kernel(op)
        if kernel is None:
            tensors = [*op.outputs, *op.inputs]
            yield _finding('a', op, max(tensors, key=_entries) if tensors else None), op.name
            continue
        if op.type in _SIZE_BY_DATA:
            yield _finding('d', op, op.outputs[0]), op.name
        hosted = [tensor for name, tensor in _arguments(op) if name in kernel.host_memory_arg and _has_batch(tensor)]
        if hosted:
            yield _finding('b', op, max(hosted, key=_entries)), op.name


def _finding(kind, op, tensor):
    context = op._get_control_flow_context()
    in_loop = context is not None and context.IsWhileContext()
    if tensor is None:
        return Finding(kind, in_loop, op.type, '', '', 0)
    shape = '?' if tensor.shape.ndims is None else str(tensor.shape.as_list()).replace('None', '?')
    return Finding(kind, in_loop, op.type, tensor.dtype.base_dtype.name, shape, _entries(tensor))


def _known_before(graph: tf.Graph) -> set:
    """Return the operations that the graph optimizer computes: those on constants and known shapes, without state."""
    known = set()
    for op in graph.get_operations():  # in an order in which inputs come first, but for loops
        shapes_only = op.type in ('Shape', 'ShapeN', 'Size', 'Rank')
        static = shapes_only and all(tensor.shape.is_fully_defined() for tensor in op.inputs)
        constant = op.type == 'Const' or (op.inputs and all(tensor.op in known for tensor in op.inputs))
        if (static or constant) and not op.op_def.is_stateful and op.type not in _CONTROL:
            known.add(op)
    return known


_CONTROL = ('Enter', 'Exit', 'Merge', 'Switch', 'NextIteration', 'LoopCond')


def _gpu_kernel(op: tf.Operation):
    """Return the kernel with which a GPU would do an operation; None if there is none."""
    fitting = [kernel for kernel in _kernels(op.type) if _fits(kernel, op)]
    for device in ('GPU', 'DEFAULT'):
        for kernel in fitting:
            if kernel.device_type == device:
                return kernel
    return None


_cache: Dict[str, list] = {}


def _kernels(operation: str) -> list:
    if operation not in _cache:
        _cache[operation] = list(kernels.get_registered_kernels_for_op(operation).kernel)
    return _cache[operation]


def _fits(kernel, op: tf.Operation) -> bool:
    for constraint in kernel.constraint:
        value = op.node_def.attr[constraint.name]
        types = list(value.list.type) or [value.type]
        if not set(types) <= set(constraint.allowed_values.list.type):
            return False
    return not kernel.label


_SIZE_BY_DATA = ('Where', 'Unique', 'DynamicPartition')
# Arguments and results that say where and how, not what.
_ABOUT_SHAPES = {'axis', 'begin', 'dim', 'dims', 'end', 'handle', 'index', 'k', 'multiples', 'paddings', 'perm'}
_ABOUT_SHAPES |= {'r0', 'r1', 'reduction_indices', 's0', 's1', 'shape', 'size', 'strides'}


def _arguments(op: tf.Operation) -> Iterator[Tuple[str, tf.Tensor]]:
    """Give the name of the argument or result that each tensor of an operation is, without those about shapes."""
    for arguments, tensors in ((op.op_def.input_arg, list(op.inputs)), (op.op_def.output_arg, list(op.outputs))):
        for argument in arguments:
            attributes = op.node_def.attr
            if argument.type_list_attr:
                number = len(attributes[argument.type_list_attr].list.type)
            else:
                number = attributes[argument.number_attr].i if argument.number_attr else 1
            is_place = argument.name == 'indices' and op.type.startswith('TensorArray')
            if argument.name not in _ABOUT_SHAPES and not is_place:
                for tensor in tensors[:number]:
                    yield argument.name, tensor
            tensors = tensors[number:]


def _has_batch(tensor: tf.Tensor) -> bool:
    if tensor.shape.ndims is None:
        return True
    return any(size is None or (size and size % BATCH == 0) for size in tensor.shape.as_list())


def _entries(tensor: tf.Tensor) -> int:
    """Return the number of entries of a tensor. Unknown sizes count as the largest number of rows, batch · sequence."""
    entries = 1
    for size in tensor.shape.as_list() if tensor.shape.ndims is not None else []:
        entries *= BATCH * SEQUENCE if size is None else size
    return entries


def audit() -> List[str]:
    """Return the report, in Markdown."""
    lines = [
        f'TensorFlow {tf.__version__}; batch {BATCH}, query {QUERY}, response {RESPONSE}, '
        f'{MODEL.n_head} heads, {MODEL.n_layer} layers',
        '',
        '| graph | kind | operation | type | shape | number | for example |',
        '|---|---|---|---|---|---|---|',
    ]
    totals = collections.Counter()
    for dtype in ['float32'] + ['bfloat16'] * (not IS_TF1):
        for name, build in GRAPHS.items():
            with tf.Graph().as_default() as graph:
                build(dtype)
                found = collections.OrderedDict()
                for finding, example in findings(graph):
                    found.setdefault(finding, []).append(example)
            for finding, examples in sorted(found.items()):
                kind = finding.kind + ', c' * finding.in_loop
                example = f'`{examples[0]}`'
                cells = [f'{name}, {dtype}', kind, finding.operation, finding.dtype, finding.shape]
                lines.append(f'| {" | ".join(cells)} | {len(examples)} | {example} |')
                totals[finding.kind] += len(examples)
                totals['large'] += len(examples) * (finding.kind == 'b' and finding.entries > BATCH * SEQUENCE)
                totals['c'] += len(examples) * finding.in_loop
    lines += [
        '',
        f'a: {totals["a"]}; b: {totals["b"]}, of these larger than [batch, sequence]: {totals["large"]}; '
        f'c: {totals["c"]}; d: {totals["d"]}',
    ]
    return lines


def main() -> None:
    if not any(kernel.device_type == 'GPU' for kernel in _kernels('MatMul')):
        sys.exit('error: this TensorFlow has no kernels for GPUs: install a GPU build (tensorflow, tensorflow-gpu)')
    print('\n'.join(audit()))


if __name__ == '__main__':
    main()
