"""Functions with a gradient of their own.

`tf.custom_gradient` does this, too, but looks through all variables of the graph at each call. On the graph of a 124M
run, our 187 calls took 0.19 s with it and take 0.10 s here (`python benchmarks/startup.py --libraries`); the whole
graph is built in 3.4 s instead of 4.1 (docs/performance.md, "What was tried").
"""

import functools
import itertools
from typing import Callable

from lm_human_preferences.graph.tf_versions import tf

_numbers = itertools.count()


def with_gradient(function: Callable) -> Callable:
    """Give a function of tensors a gradient, as `tf.custom_gradient` does. The function must not read variables.

    `function` returns its result (a tensor or a tuple of tensors), and a second function. That one takes the gradients
    of the results, and returns the gradients of the arguments.
    """

    @functools.wraps(function)
    def wrapped(*inputs):
        result, gradient = function(*inputs)
        results = list(result) if isinstance(result, tuple) else [result]
        name = f'with_gradient_{next(_numbers)}'

        @tf.RegisterGradient(name)
        def _(op, *slopes):
            of_inputs = gradient(*slopes[: len(results)])
            return [None] * len(results) + (list(of_inputs) if isinstance(of_inputs, tuple) else [of_inputs])

        # Backpropagation stops at this identity, and takes our gradient instead.
        with tf.get_default_graph().gradient_override_map({'IdentityN': name}):
            outputs = tf.identity_n(results + list(inputs))[: len(results)]
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]

    return wrapped
