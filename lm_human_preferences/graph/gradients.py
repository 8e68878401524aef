"""Functions with a gradient of their own.

`tf.custom_gradient` does this, too, but looks through all variables of the graph at each call. On the graph of a 124M
run, our 187 calls took 0.19 s with it and take 0.10 s here (`python benchmarks/startup.py --libraries`); the whole
graph is built in 3.4 s instead of 4.1 (docs/performance.md, "What was tried").
"""

import functools
from typing import Callable, Dict

from lm_human_preferences.graph.tf_versions import tf

# TensorFlow keeps each registered gradient for as long as the process lives. So there is one, for all graphs, and a
# graph owns the gradients of its operations: they refer to its tensors, and are freed with it.
_REGISTERED = 'with_gradient'


@tf.RegisterGradient(_REGISTERED)
def _gradient_of(op, *slopes):
    return _gradients_of_graph(op.graph)[op.name](*slopes)


def _gradients_of_graph(graph: tf.Graph) -> Dict[str, Callable]:
    """Return the gradients of a graph's operations, by the names of these."""
    collection = graph.get_collection_ref(_REGISTERED)
    if not collection:
        collection.append({})
    return collection[0]


def with_gradient(function: Callable) -> Callable:
    """Give a function of tensors a gradient, as `tf.custom_gradient` does. The function must not read variables.

    `function` returns its result (a tensor or a tuple of tensors), and a second function. That one takes the gradients
    of the results, and returns the gradients of the arguments.
    """

    @functools.wraps(function)
    def wrapped(*inputs):
        result, gradient = function(*inputs)
        results = list(result) if isinstance(result, tuple) else [result]

        def of_op(*slopes):
            of_inputs = gradient(*slopes[: len(results)])
            return [None] * len(results) + (list(of_inputs) if isinstance(of_inputs, tuple) else [of_inputs])

        # Backpropagation stops at this identity, and takes our gradient instead.
        graph = tf.get_default_graph()
        with graph.gradient_override_map({'IdentityN': _REGISTERED}):
            outputs = tf.identity_n(results + list(inputs))
        _gradients_of_graph(graph)[outputs[0].op.name] = of_op
        outputs = outputs[: len(results)]
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]

    return wrapped
