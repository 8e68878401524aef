"""A batch computed in parts, or with bfloat16 products, gives what the whole batch gives in float32."""

import numpy as np
import pytest

from lm_human_preferences import experiments
from lm_human_preferences.graph.tf_versions import IS_TF1, new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams, TrainPolicyHParams, TrainRewardHParams
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import find_model
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy
from lm_human_preferences.method.ppo import Rollouts
from lm_human_preferences.method.ppo_trainer import PPOTrainer
from lm_human_preferences.method.reward_trainer import RewardTrainer
from lm_human_preferences.mpi.ranks import Ranks

MODEL = ModelHParams(n_vocab=27, n_ctx=20, n_embd=32, n_head=4, n_layer=1)
BATCH, QUERY, RESPONSE = 12, 5, 7


class Trained:
    """A PPO trainer of a batch of 12 with the same random weights every time, in a session of its own."""

    def __init__(self, dtype='float32', **ppo):
        hparams = TrainPolicyHParams(task=TaskHParams(query_length=QUERY, response_length=RESPONSE))
        hparams.override_from_dict({'ppo.' + name: value for name, value in dict(ppo, batch_size=BATCH).items()})
        hparams.run.dtype = dtype
        with tf.Graph().as_default() as graph:
            self.trainer = PPOTrainer(hparams, Task(hparams.task, letters()), MODEL, MODEL, Ranks())
            self.session = new_session(graph)
            self.session.run(tf.global_variables_initializer())
            random = np.random.RandomState(0)
            self.variables = tf.trainable_variables()
            for variable in self.variables:
                if not variable.name.startswith('ref_policy'):
                    variable.load(0.2 * random.randn(*variable.shape.as_list()), self.session)
            of_policy = {v.name: v for v in self.variables if v.name.startswith('policy')}
            for variable in self.variables:
                if variable.name.startswith('ref_policy'):
                    variable.load(self.session.run(of_policy[variable.name[len('ref_') :]]), self.session)

    def rollout(self):
        random = np.random.RandomState(1)
        queries = random.randint(0, 27, [BATCH, QUERY])
        with self.session.as_default():
            return self.trainer.rollout(queries, random.random_sample([BATCH, RESPONSE]))

    def update(self):
        random = np.random.RandomState(2)
        tokens = random.randint(0, 27, [BATCH, QUERY + RESPONSE])
        logprobs, values, rewards = random.randn(3, BATCH, RESPONSE)
        episodes = Rollouts(tokens[:, :QUERY], tokens[:, QUERY:], logprobs * 0.1 - 3.3, values, rewards)
        with self.session.as_default():
            stats = [self.trainer.update(episodes, 1e-3) for _ in range(2)]
        return stats, self.session.run({v.name: v for v in self.variables if v.name.startswith('policy')})


@pytest.fixture(scope='module')
def whole():
    """What the whole batch gives in float32: rollout; weights before; statistics and weights after two updates."""
    trained = Trained()
    before = trained.session.run({v.name: v for v in trained.variables})
    return (trained.rollout(), before) + trained.update()


def test_a_rollout_in_chunks_is_the_rollout_of_the_whole_batch(whole):
    expected, chunks = whole[0], Trained(rollout_batch_size=5).rollout()
    assert chunks['responses'].shape == (BATCH, RESPONSE)
    for name in expected:
        np.testing.assert_allclose(chunks[name], expected[name], rtol=1e-5, atol=1e-6, err_msg=name)


def test_an_update_in_microbatches_is_the_update_on_the_minibatch(whole):
    _, before, expected_stats, expected = whole
    stats, values = Trained(microbatch_size=4).update()
    for ours, whole_batch in zip(stats, expected_stats):
        assert ours == pytest.approx(whole_batch, rel=1e-5, abs=1e-6)
    for name, value in values.items():
        np.testing.assert_allclose(value, expected[name], rtol=1e-5, atol=1e-6, err_msg=name)
    assert max(np.abs(before[name] - expected[name]).max() for name in expected) > 1e-4


def test_reward_training_reads_no_more_of_a_label_than_it_has_to():
    # Two labels: 4 samples of 7 tokens after one query of 5, without what is padding, and the query only once.
    hparams = TrainRewardHParams(
        task=TaskHParams(query_length=QUERY, response_length=RESPONSE), batch_size=2, rollout_batch_size=1
    )
    hparams.labels.type = 'best_of_4'
    random = np.random.RandomState(0)
    query, samples = random.randint(0, 27, [2, QUERY]), random.randint(0, 27, [4, 2, RESPONSE])
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        task = Task(hparams.task, letters())
        trainer = RewardTrainer(hparams, task, MODEL, Ranks())
        session.run(tf.global_variables_initializer())
        # Keys and values of the last block.
        products = [op.outputs[0] for op in graph.get_operations() if op.type == 'MatMul' and op.name.startswith('rew')]
        computed = next(x for x in products if x.shape.as_list()[1] == 2 * MODEL.n_embd)  # in order of building
        for padding in ([0, 0], [3, 6]):
            query[0, QUERY - padding[0] :] = samples[3, 1, RESPONSE - padding[1] :] = task.padding_token
            feed = {trainer._labels['query']: query}
            feed.update({trainer._labels[f'sample{i}']: sample for i, sample in enumerate(samples)})
            assert session.run(computed, feed).shape[0] == 2 * (QUERY + 4 * RESPONSE) - sum(padding)


@pytest.mark.skipif(not IS_TF1, reason='for TensorFlow 1.13')
def test_bfloat16_is_refused_where_it_is_slow():
    with tf.Graph().as_default(), pytest.raises(ValueError, match='run.dtype=bfloat16 needs TensorFlow 2'):
        Model(MODEL, dtype='bfloat16')


@pytest.mark.skipif(IS_TF1, reason='TensorFlow 1.13 has no fast bfloat16 products')
def test_bfloat16_stays_near_float32(whole):
    half = Trained('bfloat16')
    rollout = half.rollout()
    # Sampling, token by token, and the reference, all at once, are the same model with other rounding.
    kl = (rollout['logprobs'] - rollout['ref_logprobs']).mean()
    assert 0 < np.abs(rollout['logprobs'] - rollout['ref_logprobs']).max() < 0.1
    assert abs(kl) < 0.01
    assert np.mean(rollout['responses'] == whole[0]['responses']) > 0.9
    (stats, values), (_, _, expected_stats, expected) = half.update(), whole
    assert stats[0]['loss/total'] == pytest.approx(expected_stats[0]['loss/total'], abs=0.02)
    assert all(value.dtype == np.float32 for value in values.values())
    # Two steps of Adam at 1e-3 move a weight by 2e-3 at most; nearly all of them the same way.
    same_way = [np.abs(values[name] - expected[name]) < 1e-3 for name in expected]
    assert np.mean(np.concatenate([near.ravel() for near in same_way])) > 0.9


@pytest.mark.skipif(IS_TF1, reason='TensorFlow 1.13 has no fast bfloat16 products')
def test_bfloat16_says_what_float32_says_of_real_text():
    # The demo's model and queries: nats per token between the two that the KL penalty would take for learning.
    (trial,) = experiments.load('demo').trials('train_policy', {})
    source = find_model('demo')
    task = Task(trial.hparams.task, source.encoding())
    queries = task.query_stream('valid', 0, Ranks()).next_batch(32)
    length = task.hparams.response_length
    random = np.random.RandomState(0)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        half, exact = (Policy(source.hparams, task, dtype, dtype) for dtype in ('bfloat16', 'float32'))
        session.run(tf.global_variables_initializer())
        for policy in (half, exact):
            source.load(session, policy.model)
        sampled = half.respond(tf.constant(queries), tf.constant(random.random_sample([32, length]), tf.float32))
        references = [policy.analyze_responses(tf.constant(queries), sampled['responses']) for policy in (half, exact)]
        tokens = tf.concat([task.context(queries), sampled['responses']], axis=1)
        logprobs = []
        for policy in (half, exact):  # of the distributions that tokens are sampled from
            hidden = policy.model(tokens, task.padding_token).hidden
            logits = policy.model.for_decoding(32).logits(hidden)
            logprobs.append(tf.nn.log_softmax(logits / policy.temperature))
        kl = tf.reduce_sum(tf.exp(logprobs[0]) * (logprobs[0] - logprobs[1]), axis=-1)
        sampled, references, kl = session.run((sampled, references, kl))
    assert 0 < kl.mean() < 0.001 and kl.max() < 0.01
    for reference in references:
        difference = sampled['logprobs'] - reference['logprobs']
        assert 0 < abs(difference.mean()) < 0.01 and difference.std() < 0.04  # by these PPO's ratios differ from 1


@pytest.mark.skipif(IS_TF1, reason='TensorFlow 1.13 has no fast bfloat16 products')
def test_bfloat16_computes_logits_in_float32_and_their_gradient_in_bfloat16():
    random = np.random.RandomState(0)
    hidden = random.randn(2, 3, MODEL.n_embd).astype(np.float32)
    slopes = random.randn(2, 3, MODEL.n_vocab).astype(np.float32)
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        model = Model(MODEL, dtype='bfloat16')
        states = tf.constant(hidden)
        logits = model.logits(states)
        gradients = tf.gradients(tf.reduce_sum(logits * slopes), [states, model.variables['wte']])
        session.run(tf.global_variables_initializer())
        embedding, logits, to_states, to_embedding = session.run([model.variables['wte'], logits, *gradients])
    np.testing.assert_allclose(logits, hidden @ embedding.T, rtol=1e-5, atol=1e-6)
    expected = [slopes @ embedding, np.tensordot(slopes, hidden, axes=[[0, 1], [0, 1]])]
    for gradient, exact in zip((to_states, to_embedding), expected):
        assert gradient.dtype == np.float32
        assert 1e-4 < np.linalg.norm(gradient - exact) / np.linalg.norm(exact) < 0.01
