"""Adam with gradients averaged over ranks."""

from typing import Dict, Sequence, Tuple

from lm_human_preferences.utils.exchange import average_gradients
from lm_human_preferences.utils.ranks import Ranks
from lm_human_preferences.utils.tf_versions import empty_array, tf


def minimize(
    loss: tf.Tensor, variables: Sequence[tf.Variable], learning_rate: tf.Tensor, ranks: Ranks, scope: str
) -> Tuple[tf.Operation, tf.Tensor]:
    """The operation that does one step of Adam down the gradient of `loss`, averaged over ranks; and its norm (scalar).

    Adam in TensorFlow's form, with epsilon 1e-5 outside the bias correction. A variable on which `loss` does not depend
    is left alone. `scope` names the optimizer's own variables.
    """
    return _step(*_dense_gradients(loss, variables), learning_rate, ranks, scope)


class GradientSum:
    """Gradients of a minibatch's parts, one after another, added up for one step of Adam.

    `set` starts the sum with the gradient of one part's `loss`, `add` adds another's.
    """

    def __init__(self, loss: tf.Tensor, variables: Sequence[tf.Variable]):
        gradients, self._trained = _dense_gradients(loss, variables)
        self._sums = [
            tf.get_variable(
                variable.op.name + '/gradient_sum',
                initializer=tf.zeros_initializer(),
                shape=variable.shape,
                trainable=False,
                collections=[tf.GraphKeys.LOCAL_VARIABLES],  # no part of a checkpoint
                use_resource=True,
            )
            for variable in self._trained
        ]
        self.set = tf.group(*[total.assign(part) for total, part in zip(self._sums, gradients)])
        self.add = tf.group(*[total.assign_add(part) for total, part in zip(self._sums, gradients)])

    def minimize(self, learning_rate: tf.Tensor, ranks: Ranks, scope: str) -> Tuple[tf.Operation, tf.Tensor]:
        """What `minimize` gives, of the sum."""
        return _step([total.read_value() for total in self._sums], self._trained, learning_rate, ranks, scope)


def _dense_gradients(loss, variables):
    """The gradients of `loss` and the variables they belong to, without those on which it does not depend."""
    gradients = tf.gradients(loss, list(variables))
    trained = [(gradient, variable) for gradient, variable in zip(gradients, variables) if gradient is not None]
    # Embeddings have sparse gradients; dense ones sum and travel like all others, and Adam's result is the same.
    dense = [tf.convert_to_tensor(gradient) for gradient, _ in trained]
    for gradient, (_, variable) in zip(dense, trained):
        gradient.set_shape(variable.shape)
    return dense, [variable for _, variable in trained]


class _Adam(tf.train.AdamOptimizer):
    """TensorFlow's Adam, the moments of which start as arrays of zeros.

    Adam's own zeros are constants, which the graph optimizer writes out and a session keeps for its whole life: as much
    memory as the moments take, never read again.
    """

    def _zeros_slot(self, var, slot_name, op_name):
        def zeros(shape, dtype, partition_info=None):
            return empty_array(shape, dtype)

        return self._get_or_make_slot_with_initializer(var, zeros, var.shape, var.dtype.base_dtype, slot_name, op_name)


def _step(gradients, variables, learning_rate, ranks, scope):
    averaged = average_gradients(gradients, ranks)
    with tf.variable_scope(scope):
        optimizer = _Adam(learning_rate, epsilon=1e-5)
        step = optimizer.apply_gradients(list(zip(averaged, variables)))
    return step, tf.global_norm(averaged)


def run_with_stats(session: tf.Session, op: tf.Operation, stats: Dict[str, tf.Tensor], feed) -> Dict[str, float]:
    """Run a training step and return its statistics as numbers."""
    _, values = session.run((op, stats), feed)
    return {name: float(value) for name, value in values.items()}
