"""float32 products are computed in float32, unless a stage asks for TensorFloat-32."""

import pytest

from lm_human_preferences import train_policy, training_stage
from lm_human_preferences.graph.tf_versions import IS_TF1, tensor_float_32, tf
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.trained_models import find_model

ON_TF2 = pytest.mark.skipif(IS_TF1, reason='TensorFlow 1.13 is older than TensorFloat-32')


def is_on():
    return tf.config.experimental.tensor_float_32_execution_enabled()


def hparams(tf32):
    values = train_policy.HParams()
    task = {'query_length': 2, 'response_length': 3, 'query_dataset': 'test', 'policy.initial_model': 'test'}
    values.override_from_dict({f'task.{name}': value for name, value in task.items()})
    values.override_from_dict({'run.tf32': tf32, 'run.seed': 1, 'rewards.trained_model': 'test'})
    return values


@ON_TF2
def test_it_is_off_by_default():
    assert not train_policy.HParams().run.tf32
    assert not is_on()


@ON_TF2
def test_it_is_on_in_the_stage_that_asks_for_it():
    """A reward model that is trained again in the middle of a policy's stage has its own choice."""
    seen = []

    def build():
        seen.append(is_on())
        return tf.Variable(1.0)

    def session(tf32):
        stage = training_stage.Stage(hparams(tf32), 'policy', 'ppo')
        return stage.session(build, lambda _: [], find_model('test').hparams, letters())

    with session(True):
        with session(False):
            assert not is_on()
        assert is_on()
    assert seen == [True, False]
    assert not is_on()


@ON_TF2
def test_it_is_off_again_after_an_error():
    with pytest.raises(ZeroDivisionError), tensor_float_32(True):
        assert is_on()
        _ = 1 / 0
    assert not is_on()


@pytest.mark.skipif(not IS_TF1, reason='TensorFlow 2 has TensorFloat-32')
def test_it_is_refused_by_tensorflow_1():
    with tensor_float_32(False):
        pass
    with pytest.raises(ValueError, match=r'^run.tf32 needs TensorFlow 2: TensorFlow 1.13 is older than Tensor[^\n]*$'):
        train_policy.train(hparams(True))


@pytest.mark.skipif(not IS_TF1, reason='TensorFlow 2 has both')
@pytest.mark.parametrize('field, value', [('tf32', True), ('dtype', 'bfloat16')])
def test_what_tensorflow_1_lacks_is_refused_before_a_reward_model_is_trained(tmp_path, field, value):
    values = hparams(False)
    values.rewards.trained_model = None
    labels = {'labels.type': 'best_of_4', 'labels.num_train': 8, 'labels.source': 'test', 'batch_size': 8}
    task = {f'task.{name}': found for name, found in values.task.flattened(values.task.to_nested_dict()).items()}
    new = {f'rewards.train_new_model.{name}': found for name, found in {**task, **labels}.items()}
    values.override_from_dict({**new, 'run.save_dir': str(tmp_path / 'run'), f'run.{field}': value})
    with pytest.raises(ValueError, match='needs TensorFlow 2: '):
        train_policy.train(values)
    assert not (tmp_path / 'run').exists()
