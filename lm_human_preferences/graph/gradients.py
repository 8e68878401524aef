"""Functions with gradients of their own."""

import functools
import itertools
from typing import Callable

from lm_human_preferences.graph.tf_versions import tf

_numbers = itertools.count()


def with_gradient(function: Callable) -> Callable:
    """What `tf.custom_gradient` does for a function of tensors alone, in half the time.

    `function` returns its result (a tensor or a tuple of them) and the function from their gradients to those of its
    arguments. TensorFlow's own looks through all variables of the graph at each call, lest one be read unseen.
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

        # The identity hides from backpropagation how the results came about.
        with tf.get_default_graph().gradient_override_map({'IdentityN': name}):
            outputs = tf.identity_n(results + list(inputs))[: len(results)]
        return tuple(outputs) if isinstance(result, tuple) else outputs[0]

    return wrapped
