"""Adam, and the sum of the gradients of several parts of a minibatch.

`tf.train.AdamOptimizer` computes the same step. Ours averages gradients over ranks, gives their norm, and creates its
variables at once: it adds a step for 148 variables to the graph in 0.21 s instead of 0.88
(`python benchmarks/startup.py --libraries`). Its moments also need no constants of zeros, which a session keeps: a step
of 124M peaks at 3.8 GB instead of 4.6 (`python benchmarks/ppo_step.py`; docs/performance.md, "Memory").
"""

from typing import Callable, Dict, List, Sequence, Tuple

from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import apply_adam, tf

Average = Callable[[Sequence[tf.Tensor]], List[tf.Tensor]]  # gradients of this rank → their means over ranks

BETAS = (0.9, 0.999)
EPSILON = 1e-5


def minimize(
    loss: tf.Tensor, variables: Sequence[tf.Variable], learning_rate: tf.Tensor, scope: str, average: Average = list
) -> Tuple[tf.Operation, tf.Tensor]:
    """Return the operation that minimizes `loss` by one step of Adam, and the norm of the gradient (scalar).

    This is TensorFlow's form of Adam, with epsilon outside the bias correction. Variables that do not affect `loss`
    do not change. `scope` is a prefix for the names of the optimizer's variables. `average` averages gradients over
    ranks.
    """
    return _step(*_dense_gradients(loss, variables), learning_rate, scope, average)


class GradientSum:
    """The sum of the gradients of a minibatch's parts, for one step of Adam.

    Run the operation `set` on the first part, and `add` on each of the others.
    """

    def __init__(self, loss: tf.Tensor, variables: Sequence[tf.Variable]):
        gradients, self._trained = _dense_gradients(loss, variables)
        specs = {f'{v.op.name}/gradient_sum': VariableSpec(v.shape.as_list()) for v in self._trained}
        sums = create_variables(specs, collections=[tf.GraphKeys.LOCAL_VARIABLES])  # not saved in checkpoints
        self._sums = list(sums.values())
        self.set = tf.group(*[total.assign(part) for total, part in zip(self._sums, gradients)])
        self.add = tf.group(*[total.assign_add(part) for total, part in zip(self._sums, gradients)])

    def minimize(self, learning_rate: tf.Tensor, scope: str, average: Average = list) -> Tuple[tf.Operation, tf.Tensor]:
        """Return the operation of one step of Adam on the sum, and the norm of the sum, as the function `minimize`."""
        return _step([total.read_value() for total in self._sums], self._trained, learning_rate, scope, average)


def _dense_gradients(loss, variables):
    """Return the gradients of `loss`, and the variables they belong to: those that affect it."""
    gradients = tf.gradients(loss, list(variables))
    trained = [(gradient, variable) for gradient, variable in zip(gradients, variables) if gradient is not None]
    # Embeddings have sparse gradients. Dense ones can be averaged like all others, and Adam's result is the same.
    dense = [tf.convert_to_tensor(gradient) for gradient, _ in trained]
    for gradient, (_, variable) in zip(dense, trained):
        gradient.set_shape(variable.shape)
    return dense, [variable for _, variable in trained]


def _step(gradients, variables, learning_rate, scope, average):
    averaged = average(gradients)
    moments, powers = _optimizer_variables(variables, scope)
    now = [power.read_value() for power in powers]
    betas, epsilon = [tf.constant(beta) for beta in BETAS], tf.constant(EPSILON)
    updates = [
        apply_adam(variable, moment, now, learning_rate, betas, epsilon, gradient)
        for variable, moment, gradient in zip(variables, moments, averaged)
    ]
    with tf.control_dependencies(updates):
        step = tf.group(*(power.assign(value * beta) for power, value, beta in zip(powers, now, betas)))
    return step, tf.global_norm(averaged)


def _optimizer_variables(variables, scope):
    """Create the two moments of each variable and the powers of the betas, with the names of TensorFlow's Adam."""
    specs = {}
    for variable in variables:
        for name in ('Adam', 'Adam_1'):
            specs[f'{scope}/{variable.op.name}/{name}'] = VariableSpec(variable.shape.as_list())
    for name, beta in zip(('beta1_power', 'beta2_power'), BETAS):
        specs[f'{scope}/{name}'] = VariableSpec([], start=beta)
    *moments, power1, power2 = create_variables(specs, collections=[tf.GraphKeys.GLOBAL_VARIABLES]).values()
    return list(zip(moments[::2], moments[1::2])), (power1, power2)


def run_with_stats(session: tf.Session, op: tf.Operation, stats: Dict[str, tf.Tensor], feed) -> Dict[str, float]:
    """Run a training step and return the values of its statistics."""
    _, values = session.run((op, stats), feed)
    return {name: float(value) for name, value in values.items()}
