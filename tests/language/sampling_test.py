"""Sampling and analysis agree with each other and with the full forward pass."""

import numpy as np
import pytest

from lm_human_preferences.graph.tf_versions import IS_TF1, new_session, tf, uses_onednn
from lm_human_preferences.hyperparameters import ModelHParams, TaskHParams
from lm_human_preferences.language.distributions import draw, token_logprobs
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.sampling import sample_sequence
from lm_human_preferences.method.lm_tasks import Task
from lm_human_preferences.method.policy import Policy

HPARAMS = ModelHParams(n_vocab=27, n_ctx=20, n_embd=12, n_head=3, n_layer=2)
PADDING = 27


@pytest.fixture
def session():
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        yield session


@pytest.fixture
def random():
    return np.random.RandomState(0)


def padded_queries(random, batch, length):
    """Random tokens, each row padded after a random number of them, at least one."""
    tokens = random.randint(0, 27, (batch, length))
    lengths = random.randint(1, length + 1, (batch, 1))
    return np.where(np.arange(length) < lengths, tokens, PADDING).astype(np.int32)


def sharpen(session, scale=4.0):
    """Larger random weights, so that distributions are far from uniform and heads from zero."""
    session.run(tf.global_variables_initializer())
    for variable in tf.trainable_variables():
        if 'ln_' not in variable.name:
            value = session.run(variable)
            variable.load(scale * value + 0.1 * np.random.RandomState(1).randn(*value.shape), session)


@pytest.mark.parametrize('affixes', [('', ''), ('ab', 'cde')])
@pytest.mark.parametrize('temperature', [1.0, 0.6])
def test_respond_and_analyze_agree(session, random, affixes, temperature):
    hparams = TaskHParams(query_length=6, response_length=7, query_prefix=affixes[0], query_suffix=affixes[1])
    hparams.policy.temperature = temperature
    policy = Policy(HPARAMS, Task(hparams, letters()))
    queries = tf.constant(padded_queries(random, 16, 6))
    responded = policy.respond(queries, tf.constant(random.random_sample((16, 7)), tf.float32))
    analyzed = policy.analyze_responses(queries, responded['responses'])
    sharpen(session)
    responded, analyzed = session.run((responded, dict(analyzed)))
    # The random numbers are constants of the graph, so both calls see the same responses.
    assert len(np.unique(responded['responses'])) > 10
    np.testing.assert_allclose(responded['logprobs'], analyzed['logprobs'], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(responded['values'], analyzed['values'], rtol=1e-4, atol=1e-5)
    assert np.abs(analyzed['values']).max() > 0.1


def test_temperature_0_takes_the_likeliest_token(session, random):
    model = Model(HPARAMS, heads=['value'])
    context = padded_queries(random, 8, 5)
    samples = [
        sample_sequence(model, tf.constant(context), tf.constant(random.random_sample((8, 9)), tf.float32), PADDING, 0)
        for _ in range(2)
    ]
    whole = tf.concat([context, samples[0].tokens], axis=1)
    likeliest = tf.argmax(model.logits(model(whole, PADDING).hidden[:, 4:-1]), axis=-1)
    sharpen(session)
    (tokens, logprobs), other, likeliest = session.run((samples[0][:2], samples[1].tokens, likeliest))
    np.testing.assert_array_equal(tokens, likeliest)
    np.testing.assert_array_equal(tokens, other)  # whatever the random numbers are
    assert tokens.dtype == np.int32 and len(np.unique(tokens)) > 3
    assert not logprobs.any()


# Matrices of 32 columns or more are used in panels if the product has at most 16 rows.
@pytest.mark.parametrize(['width', 'heads', 'batch'], [(12, 3, 8), (32, 4, 8), (32, 4, 17)])
def test_incremental_sampling_equals_the_full_forward_pass(session, random, width, heads, batch):
    model = Model(ModelHParams(n_vocab=27, n_ctx=20, n_embd=width, n_head=heads, n_layer=2), heads=['value'])
    context = padded_queries(random, batch, 5)
    uniforms = tf.constant(random.random_sample((batch, 9)), tf.float32)
    samples = sample_sequence(model, tf.constant(context), uniforms, PADDING)
    whole = tf.concat([context, samples.tokens], axis=1)
    hidden = model(whole, PADDING).hidden[:, 4:-1]
    sharpen(session)
    incremental, full, logprobs, expected = session.run(
        (samples.hidden, hidden, samples.logprobs, token_logprobs(model.logits(hidden), samples.tokens))
    )
    np.testing.assert_allclose(incremental, full, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(logprobs, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('dtype', ['float32'] if IS_TF1 else ['float32', 'bfloat16'])
def test_decoding_reads_matrices_in_panels_where_that_is_faster(session, random, dtype):
    model = Model(ModelHParams(n_vocab=70, n_ctx=20, n_embd=64, n_head=4, n_layer=1), dtype=dtype)
    few, many = model.for_decoding(16), model.for_decoding(17)
    hidden = tf.constant(random.randn(16, 64), tf.float32)
    logits = [form.logits(hidden) for form in (model, few, many)]
    sharpen(session)
    whole, *laid_out = session.run(logits)
    if dtype == 'float32':
        for form in laid_out:
            np.testing.assert_allclose(form, whole, rtol=1e-4, atol=1e-5)
    forms = [form.weights['h0/mlp/c_fc/w'].shape.as_list() for form in (few, many)]
    panels = [256 // 32, 64, 32] if dtype == 'float32' else [256 // 64, 64, 64]
    assert forms == [panels if uses_onednn() else [64, 256], [64, 256]]


@pytest.mark.skipif(IS_TF1, reason='TensorFlow 1.13 has no fast bfloat16 products')
@pytest.mark.parametrize('batch', [1, 16, 17, None])
def test_logits_for_decoding_in_bfloat16_lose_little_where_all_tokens_share_a_large_number(session, random, batch):
    model = Model(ModelHParams(n_vocab=500, n_ctx=20, n_embd=64, n_head=4, n_layer=1), dtype='bfloat16')
    hidden = random.randn(batch or 5, 64).astype(np.float32)
    embedding = 0.3 * random.randn(500, 64).astype(np.float32)
    hidden[:, 7] += 20
    embedding[:, 7] -= 5
    logits = model.for_decoding(batch).logits(tf.constant(hidden))
    session.run(tf.global_variables_initializer())
    model.variables['wte'].load(embedding, session)
    rounded, exact = session.run(logits), hidden @ embedding.T
    assert rounded.dtype == np.float32 and abs(rounded.mean()) < 0.5 and exact.mean() < -90
    difference = rounded - exact
    difference -= difference.mean(axis=1, keepdims=True)  # no probability depends on it
    assert 1e-4 < np.sqrt(np.mean(difference**2)) < 0.04  # 0.14 with the shared number


def test_reading_in_two_calls_equals_reading_in_one(session, random):
    model = Model(HPARAMS)
    tokens = random.randint(0, 27, (4, 10)).astype(np.int32)
    first = model(tf.constant(tokens[:, :6]))
    second = model(tf.constant(tokens[:, 6:]), past=first.past.with_room(4))
    sharpen(session)
    parts, whole = session.run((tf.concat([first.hidden, second.hidden], axis=1), model(tf.constant(tokens)).hidden))
    np.testing.assert_allclose(parts, whole, rtol=1e-4, atol=1e-5)


def test_two_continuations_of_the_same_contexts_do_not_share_memory(session, random):
    # TensorFlow computes equal operations once: both read the contexts once, but each fills a cache of its own.
    model = Model(HPARAMS)
    context = tf.constant(padded_queries(random, 8, 5))
    numbers = random.random_sample((2, 8, 9))
    fed = tf.placeholder(tf.float32, [8, 9])
    alone = sample_sequence(model, context, fed, PADDING)
    both = [sample_sequence(model, context, tf.constant(uniforms, tf.float32), PADDING) for uniforms in numbers]
    sharpen(session)
    for _ in range(3):
        for uniforms, together in zip(numbers, session.run(both)):
            expected = session.run(alone, {fed: uniforms})
            np.testing.assert_array_equal(together.tokens, expected.tokens)
            np.testing.assert_allclose(together.hidden, expected.hidden, rtol=1e-4, atol=1e-5)


ARITHMETIC = ('Add', 'AddV2', 'Sub', 'Mul', 'FloorDiv', 'Minimum', 'Sum', 'Max', 'Cumsum', 'Less', 'LessEqual', 'Equal')


def test_no_arithmetic_on_int32_for_each_token_of_a_batch():
    # On a GPU, that is done by the host, for which the GPU waits.
    with tf.Graph().as_default() as graph:
        uniforms = tf.placeholder(tf.float32, [7, 3])
        sample_sequence(Model(HPARAMS), tf.placeholder(tf.int32, [7, 5]), uniforms, PADDING, top_k=5, top_p=0.9)
        in_loop = [op for op in graph.get_operations() if op._get_control_flow_context()]
        arithmetic = [op for op in in_loop if op.type in ARITHMETIC]
        found = [op for op in arithmetic if any(x.dtype == tf.int32 and x.shape != [] for x in op.inputs)]
    assert len(arithmetic) > 50 and not found


def test_padding_in_the_middle_changes_nothing_for_real_tokens(session, random):
    model = Model(HPARAMS)
    tokens = random.randint(0, 27, (1, 8)).astype(np.int32)
    spread = np.full((1, 13), PADDING, np.int32)
    places = [1, 2, 4, 5, 7, 9, 10, 12]
    spread[0, places] = tokens[0]
    plain, padded = model(tf.constant(tokens)), model(tf.constant(spread), PADDING)
    sharpen(session)
    plain, padded = session.run((plain.hidden, padded.hidden))
    np.testing.assert_allclose(padded[:, places], plain, rtol=1e-4, atol=1e-5)
    # A padded position has the output of the last real token before it.
    np.testing.assert_array_equal(padded[0, 3], padded[0, 2])
    np.testing.assert_array_equal(padded[0, 11], padded[0, 10])


@pytest.mark.parametrize('limits', [dict(top_k=1), dict(top_k=3), dict(top_p=0.5), dict(top_k=5, top_p=0.7)])
def test_top_k_and_top_p_hold_for_every_token(session, random, limits):
    model = Model(HPARAMS)
    batch, length = 64, 6
    context = np.repeat(random.randint(0, 27, (1, 3)), batch, axis=0).astype(np.int32)
    uniforms = random.random_sample((batch, length)).astype(np.float32)
    samples = sample_sequence(model, tf.constant(context), tf.constant(uniforms), **limits)
    logits = model.logits(model(tf.concat([context, samples.tokens], axis=1)).hidden[:, 2:-1])
    sharpen(session, scale=2.0)
    tokens, probabilities = session.run((samples.tokens, tf.nn.softmax(logits)))
    for position in range(length):  # also for the first token
        chosen = tokens[:, position]
        for row in range(batch):
            ordered = np.argsort(-probabilities[row, position])
            kept = ordered[: limits.get('top_k', 27)]
            mass = probabilities[row, position][kept]
            mass = np.cumsum(mass / mass.sum())
            kept = kept[: 1 + np.searchsorted(mass, limits.get('top_p', 1.0) - 1e-5)]
            assert chosen[row] in kept
    assert len(set(tokens[:, 0])) == 1 if limits.get('top_k') == 1 else len(set(tokens[:, 0])) > 1


def test_tokens_are_drawn_as_often_as_they_are_probable(session):
    draws = 20000
    probabilities = np.array([0.5, 0.0, 0.3, 0.2], np.float32)
    uniforms = tf.constant(np.random.RandomState(0).random_sample(draws), tf.float32)
    logits = tf.tile(tf.log(tf.constant(probabilities[np.newaxis])), [draws, 1])
    counts = np.bincount(session.run(draw(tf.nn.softmax(logits), uniforms)), minlength=4)
    assert counts[1] == 0
    np.testing.assert_allclose(counts / draws, probabilities, atol=0.015)


def test_the_largest_and_smallest_uniform_numbers_give_possible_tokens(session, random):
    logits = np.full((64, 5000), -1e10, np.float32)
    possible = random.randint(0, 5000, (64, 30))
    np.put_along_axis(logits, possible, random.randn(64, 30), axis=1)
    for uniform in (0.0, 1.0):
        tokens = session.run(draw(tf.nn.softmax(logits), tf.constant(np.full(64, uniform), tf.float32)))
        assert all(token in row for token, row in zip(tokens, possible))


def test_a_longer_text_than_the_model_reads_is_refused():
    with tf.Graph().as_default(), pytest.raises(ValueError, match='at most 20 .*lower task.query_length'):
        Policy(HPARAMS, Task(TaskHParams(query_length=14, response_length=7), letters()))
