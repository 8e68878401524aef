"""The audit finds operations that a GPU leaves to the host. The kernels here are made up: this build may have none."""

import os
import sys

import pytest
from repository import ROOT
from tensorflow.core.framework import kernel_def_pb2

from lm_human_preferences.graph.tf_versions import tf

sys.path.insert(0, os.path.join(ROOT, 'tools'))


@pytest.fixture
def gpu_audit(monkeypatch):
    monkeypatch.setenv('TF_ENABLE_ONEDNN_OPTS', os.environ.get('TF_ENABLE_ONEDNN_OPTS', '1'))  # restored at the end
    import gpu_audit

    monkeypatch.setattr(gpu_audit, '_kernels', lambda operation: KERNELS.get(operation, ANY))
    return gpu_audit


def kernel(device='GPU', dtype=None, host=(), label=''):
    made = kernel_def_pb2.KernelDef(device_type=device, host_memory_arg=host, label=label)
    if dtype:
        constraint = made.constraint.add(name='T')
        constraint.allowed_values.list.type.append(dtype.as_datatype_enum)
    return made


ANY = [kernel()]
KERNELS = {
    'Mul': [kernel('CPU'), kernel(dtype=tf.float32), kernel(dtype=tf.int32, host=['x', 'y', 'z'])],
    'Cumsum': [kernel('CPU'), kernel(dtype=tf.float32, host=['axis']), kernel(dtype=tf.int32, label='special')],
    'Reshape': [kernel('DEFAULT', host=['shape'])],
    'ConcatV2': [kernel(host=['values', 'axis'])],
}


def test_what_is_found(gpu_audit):
    with tf.Graph().as_default() as graph:
        numbers, whole = tf.placeholder(tf.float32, [11, 3]), tf.placeholder(tf.int32, [11, 3])
        scalar = tf.placeholder(tf.int32, [])
        for found in (numbers, whole):
            tf.multiply(found, found, name=f'product_{found.dtype.name}')
            tf.cumsum(found, axis=1, name=f'total_{found.dtype.name}')
        tf.multiply(scalar, scalar, name='without_batch')
        tf.multiply(tf.ones([11], tf.int32), tf.range(11), name='constant')
        tf.reshape(numbers, tf.shape(numbers)[:1] * [3], name='shape_in_host_memory')
        tf.concat([numbers, numbers], axis=1, name='list_in_host_memory')
        tf.while_loop(lambda i: i < 3, lambda i: i + tf.reduce_max(tf.multiply(whole, i, name='in_loop')), [scalar])
        found = {name: finding for finding, name in gpu_audit.findings(graph)}
    assert {name: finding[:5] for name, finding in found.items()} == {
        'product_int32': ('b', False, 'Mul', 'int32', '[11, 3]'),
        'total_int32': ('a', False, 'Cumsum', 'int32', '[11, 3]'),
        'list_in_host_memory': ('b', False, 'ConcatV2', 'float32', '[11, 3]'),
        'while/in_loop': ('b', True, 'Mul', 'int32', '[11, 3]'),
    }
    assert {finding.entries for finding in found.values()} == {33}


@pytest.mark.parametrize('graph', ['train_policy', 'train_reward', 'sample, top_k and top_p'])
def test_int32_stays_out_of_the_sampling_loop(gpu_audit, graph):
    """TensorFlow keeps int32 in the memory of the host: a GPU would wait at each token. Elsewhere, there is little."""
    with tf.Graph().as_default() as built:
        gpu_audit.GRAPHS[graph]('float32')
        in_loop, large = [], []
        for op in built.get_operations():
            if op.type in ('Const', 'TopKV2'):  # the int32 of top_k are on the GPU
                continue
            whole = [t for t in op.outputs if t.dtype.base_dtype == tf.int32]
            context = op._get_control_flow_context()
            if context is not None and context.IsWhileContext():
                in_loop.append(op.name)
                assert not [t for t in whole if t.shape.ndims is None or 11 in t.shape.as_list()], op.name
            large += [op.name for t in whole if gpu_audit._entries(t) > gpu_audit.BATCH * gpu_audit.SEQUENCE]
    assert len(in_loop) > 100
    assert large == []


def test_the_graphs_of_all_commands_are_audited(gpu_audit):
    lines = gpu_audit.audit()
    graphs = {line.split('|')[1].split(',')[0].strip() for line in lines if line.startswith('|')}
    assert {'train_policy', 'train_reward'} <= graphs
    assert lines[-1].startswith('a: ')
