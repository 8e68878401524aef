"""Variables that are created many at once, and functions with a gradient of their own."""

import numpy as np
import pytest

from lm_human_preferences.graph.gradients import with_gradient
from lm_human_preferences.graph.new_variables import VariableSpec, create_variables
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.graph.variables import set_variables, variable_values

SPECS = {
    'a/ones': VariableSpec([3], start=1.0),
    'a/zeros': VariableSpec([2, 2]),
    'a/scalar': VariableSpec([]),
    'a/half': VariableSpec([], start=0.5),
    'b/normal': VariableSpec([100, 200], stddev=0.02),
    'b/other': VariableSpec([100, 200], stddev=0.02),
}


def initial_values(seed, names=tuple(SPECS)):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(seed)
        create_variables({name: SPECS[name] for name in names})
        session.run(tf.global_variables_initializer())
        return dict(zip(names, variable_values(session, tf.global_variables())))


def test_initial_values_follow_the_specs():
    values = initial_values(1)
    assert {name: value.shape for name, value in values.items()} == {n: tuple(s.shape) for n, s in SPECS.items()}
    assert values['a/ones'].tolist() == [1, 1, 1]
    assert values['a/zeros'].tolist() == [[0, 0], [0, 0]]
    assert (values['a/scalar'], values['a/half']) == (0, 0.5)
    assert abs(values['b/normal'].mean()) < 0.0005
    assert values['b/normal'].std() == pytest.approx(0.02, rel=0.03)


def test_random_values_depend_only_on_the_seed_and_the_name():
    first, again = initial_values(1), initial_values(1, names=['b/normal'])
    np.testing.assert_array_equal(first['b/normal'], again['b/normal'])
    assert (first['b/normal'] != initial_values(2)['b/normal']).mean() > 0.99
    assert (first['b/normal'] != first['b/other']).mean() > 0.99


def test_without_a_seed_random_values_differ():
    values = []
    for _ in range(2):
        with tf.Graph().as_default() as graph, new_session(graph) as session:
            create_variables({'b/normal': SPECS['b/normal']})
            session.run(tf.global_variables_initializer())
            values += variable_values(session, tf.global_variables())
    assert (values[0] != values[1]).mean() > 0.99


def test_they_behave_like_other_variables(tmp_path):
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        with tf.variable_scope('open'), tf.name_scope('also'):
            created = create_variables(SPECS)
        assert list(created) == list(SPECS) == [variable.op.name for variable in tf.trainable_variables()]
        ones, half = created['a/ones'], created['a/half']
        loss = tf.reduce_sum(ones * tf.constant([1.0, 2.0, 3.0])) * half
        session.run(tf.global_variables_initializer())
        slopes = session.run(tf.gradients(loss, [ones, half]))
        np.testing.assert_allclose(slopes[0], [0.5, 1, 1.5])
        np.testing.assert_allclose(slopes[1], 6)
        session.run([ones.assign_add([0.0, 1.0, 2.0]), half.assign(3)])
        saver = tf.train.Saver(list(created.values()))
        path = saver.save(session, str(tmp_path / 'model.ckpt'))
        set_variables(session, [ones, half], lambda i: [np.zeros(3), np.zeros([])][i])
        assert session.run(ones).tolist() == [0, 0, 0]
        saver.restore(session, path)
        assert session.run([ones, half])[0].tolist() == [1, 2, 3]
        assert session.run(half) == 3
    assert tf.train.load_checkpoint(path).get_variable_to_shape_map()['b/normal'] == [100, 200]


def test_a_name_can_be_used_once():
    with tf.Graph().as_default():
        create_variables({'a/scalar': SPECS['a/scalar']})
        with pytest.raises(ValueError, match='a/scalar'):
            create_variables({'a/scalar': SPECS['a/scalar']})


def test_variables_outside_the_collections_of_a_run():
    with tf.Graph().as_default():
        (total,) = create_variables({'sum': VariableSpec([2])}, collections=[tf.GraphKeys.LOCAL_VARIABLES]).values()
        assert tf.global_variables() == [] and tf.trainable_variables() == []
        assert tf.local_variables() == [total]
        assert not total.trainable


@with_gradient
def product_and_sum(x, y):
    """Its gradient is wrong on purpose, so that a test sees which gradient was used."""

    def gradient(dproduct, dsum):
        return 10 * dproduct * y, 100 * dsum

    return (x * y, x + y), gradient


@with_gradient
def twice(x):
    return 2 * x, lambda dy: 7 * dy


def test_gradients_come_from_the_function():
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        x, y = tf.constant([1.0, 2.0]), tf.constant([3.0, 5.0])
        product, total = product_and_sum(x, y)
        doubled = twice(twice(x))
        gradients = tf.gradients(tf.reduce_sum(product) + tf.reduce_sum(total), [x, y])
        (through_two,) = tf.gradients(doubled, x)
        values = session.run([product, total, doubled, through_two] + gradients)
    assert [value.tolist() for value in values] == [[3, 10], [4, 7], [4, 8], [49, 49], [30, 50], [100, 100]]
