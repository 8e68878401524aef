"""Create many variables at once.

`tf.get_variable` adds the operations of each variable to the graph one by one. Here they are written as one GraphDef
and imported together: 432 variables (three models of 124M) take 0.12 s instead of 1.04
(`python benchmarks/startup.py --libraries`).
"""

import zlib
from typing import Dict, NamedTuple, Sequence

import numpy as np

from lm_human_preferences.graph.tf_versions import VariableDef, tf

_FLOAT, _INT = tf.AttrValue(type=tf.float32.as_datatype_enum), tf.AttrValue(type=tf.int32.as_datatype_enum)


class VariableSpec(NamedTuple):
    """The shape and the initial values of a float32 variable."""

    shape: Sequence[int]
    start: float = 0.0  # the initial value of every entry
    stddev: float = 0.0  # above 0: the initial values are normal instead, with mean 0


def create_variables(
    specs: Dict[str, VariableSpec],
    collections: Sequence[str] = (tf.GraphKeys.GLOBAL_VARIABLES, tf.GraphKeys.TRAINABLE_VARIABLES),
) -> Dict[str, tf.Variable]:
    """Create resource variables and return them by name. The names are absolute: open scopes are ignored.

    The random initial values of a variable depend only on its name and on the graph's seed (`tf.set_random_seed`).
    ValueError if the graph already has a variable of that name.
    """
    nodes = tf.GraphDef()
    for name, spec in specs.items():
        _add_variable(nodes, name, spec)
    operations = tf.import_graph_def(nodes, name='', return_elements=list(specs))
    taken = [name for name, operation in zip(specs, operations) if operation.name != name]
    if taken:
        raise ValueError(f'the graph already has a variable {taken[0]}')
    variables = {}
    for name in specs:
        definition = VariableDef(
            variable_name=f'{name}:0',
            initial_value_name=f'{name}/Initializer:0',
            initializer_name=f'{name}/Assign',
            snapshot_name=f'{name}/Read/ReadVariableOp:0',
            is_resource=True,
            trainable=tf.GraphKeys.TRAINABLE_VARIABLES in collections,
        )
        variables[name] = tf.Variable(variable_def=definition, use_resource=True)
        for collection in collections:
            tf.add_to_collection(collection, variables[name])
    return variables


def _add_variable(nodes, name, spec):
    """Add to `nodes` a variable, its initial value, and the operations that initialize and read it."""
    shape = tf.AttrValue(shape=tf.TensorShape(spec.shape).as_proto())
    shared_name = tf.AttrValue(s=name.encode())
    _add(nodes, name, 'VarHandleOp', dtype=_FLOAT, shape=shape, shared_name=shared_name)
    initial, sizes = f'{name}/Initializer', f'{name}/Initializer/shape'
    if spec.start:
        _add(nodes, initial, 'Const', dtype=_FLOAT, value=_tensor(np.float32(spec.start), spec.shape))
    else:
        _add(nodes, sizes, 'Const', dtype=_INT, value=_tensor(np.array(spec.shape, np.int32)))
        if spec.stddev:
            seed = tf.get_default_graph().seed
            own = zlib.crc32(name.encode())
            seeds = {} if seed is None else dict(seed=tf.AttrValue(i=seed), seed2=tf.AttrValue(i=own))
            _add(nodes, f'{initial}/normal', 'RandomStandardNormal', sizes, T=_INT, dtype=_FLOAT, **seeds)
            _add(nodes, f'{initial}/stddev', 'Const', dtype=_FLOAT, value=_tensor(np.float32(spec.stddev)))
            _add(nodes, initial, 'Mul', f'{initial}/normal', f'{initial}/stddev', T=_FLOAT)
        else:
            # Not `tf.zeros`: the graph optimizer turns that into a constant, which the session keeps until it closes.
            # For the moments of Adam, these constants would take as much memory as the moments themselves.
            _add(nodes, initial, 'Empty', sizes, dtype=_FLOAT, init=tf.AttrValue(b=True))
    _add(nodes, f'{name}/Assign', 'AssignVariableOp', name, initial, dtype=_FLOAT)
    _add(nodes, f'{name}/Read/ReadVariableOp', 'ReadVariableOp', name, dtype=_FLOAT)


def _add(nodes, name, op, *inputs, **attributes):
    node = nodes.node.add(name=name, op=op, input=inputs)
    for key, value in attributes.items():
        node.attr[key].CopyFrom(value)


def _tensor(value, shape=None):
    return tf.AttrValue(tensor=tf.make_tensor_proto(value, shape=shape))
