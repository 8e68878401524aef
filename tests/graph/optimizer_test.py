"""Adam: its step in TensorFlow's form, and the initial values of its moments."""

import numpy as np

from lm_human_preferences.graph.optimizer import minimize
from lm_human_preferences.graph.tf_versions import new_session, tf


def test_a_step_of_adam_from_moments_that_are_arrays_of_zeros():
    slopes, lr = np.array([[3.0, -2e-5], [0.0, 1e3]], np.float32), 0.1
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        matrix = tf.get_variable('w', [2, 2], initializer=tf.zeros_initializer(), use_resource=True)
        scalar = tf.get_variable('b', [], initializer=tf.zeros_initializer(), use_resource=True)
        loss = tf.reduce_sum(matrix * slopes) - 4 * scalar
        step, norm = minimize(loss, [matrix, scalar], tf.constant(lr), scope='adam')
        moments = {v.op.name: v for v in tf.global_variables() if '/Adam' in v.op.name}
        assert sorted(moments) == ['adam/b/Adam', 'adam/b/Adam_1', 'adam/w/Adam', 'adam/w/Adam_1']
        # The session would keep constants, which take as much memory as the moments.
        assert {v.initial_value.op.type for v in moments.values()} == {'Empty'}
        session.run(tf.global_variables_initializer())
        for value in session.run(moments).values():
            np.testing.assert_array_equal(value, np.zeros(value.shape))
        np.testing.assert_allclose(session.run([step, norm])[1], np.sqrt((slopes**2).sum() + 16), rtol=1e-6)
        first, second, after, bias = session.run([moments['adam/w/Adam'], moments['adam/w/Adam_1'], matrix, scalar])
    np.testing.assert_allclose(first, 0.1 * slopes, rtol=1e-5)
    np.testing.assert_allclose(second, 0.001 * slopes**2, rtol=1e-4)
    rate = lr * np.sqrt(1 - 0.999) / (1 - 0.9)
    expected = -rate * 0.1 * slopes / (np.sqrt(0.001 * slopes**2) + 1e-5)  # epsilon outside the bias correction
    np.testing.assert_allclose(after, expected, rtol=1e-4)
    np.testing.assert_allclose(bias, rate * 0.4 / (np.sqrt(0.016) + 1e-5), rtol=1e-4)
