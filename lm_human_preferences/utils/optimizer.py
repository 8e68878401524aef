"""Adam with gradients averaged over ranks."""

from typing import Dict, Sequence, Tuple

from lm_human_preferences.utils.exchange import average_gradients
from lm_human_preferences.utils.ranks import Ranks
from lm_human_preferences.utils.tf_versions import tf


def minimize(
    loss: tf.Tensor, variables: Sequence[tf.Variable], learning_rate: tf.Tensor, ranks: Ranks, scope: str
) -> Tuple[tf.Operation, tf.Tensor]:
    """The operation that does one step of Adam down the gradient of `loss`, averaged over ranks; and its norm (scalar).

    Adam in TensorFlow's form, with epsilon 1e-5 outside the bias correction. A variable on which `loss` does not depend
    is left alone. `scope` names the optimizer's own variables.
    """
    gradients = tf.gradients(loss, list(variables))
    trained = [(gradient, variable) for gradient, variable in zip(gradients, variables) if gradient is not None]
    # Embeddings have sparse gradients; dense ones sum and travel like all others, and Adam's result is the same.
    dense = [tf.reshape(tf.convert_to_tensor(gradient), variable.shape) for gradient, variable in trained]
    averaged = average_gradients(dense, ranks)
    with tf.variable_scope(scope):
        optimizer = tf.train.AdamOptimizer(learning_rate, epsilon=1e-5)
        step = optimizer.apply_gradients([(mean, variable) for mean, (_, variable) in zip(averaged, trained)])
    return step, tf.global_norm(averaged)


def run_with_stats(session: tf.Session, op: tf.Operation, stats: Dict[str, tf.Tensor], feed) -> Dict[str, float]:
    """Run a training step and return its statistics as numbers."""
    _, values = session.run((op, stats), feed)
    return {name: float(value) for name, value in values.items()}
