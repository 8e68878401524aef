"""The training of a language model: its hyperparameters reach the graph."""

import tracemalloc

import numpy as np
import pytest

from lm_human_preferences.datasets.token_files import Part, Tokens
from lm_human_preferences.graph.tf_versions import IS_TF1, new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainLmHParams
from lm_human_preferences.method.lm_trainer import LmTrainer, TokenStream
from lm_human_preferences.mpi.ranks import Ranks

SIZE = ModelHParams(n_vocab=30, n_ctx=8, n_embd=16, n_head=2, n_layer=2)


def losses(dtype):
    """The losses of two steps of training from the same weights."""
    hparams = TrainLmHParams(dataset='test', sequence_length=6, batch_size=4)
    hparams.run.dtype = dtype
    with tf.Graph().as_default() as graph, new_session(graph) as session:
        tf.set_random_seed(1)
        trainer = LmTrainer(hparams, SIZE, Ranks(alone=True))
        session.run(tf.global_variables_initializer())
        tokens = np.random.RandomState(0).randint(0, 30, (4, 7))
        return [trainer.step(tokens, 1e-2)['loss'] for _ in range(2)]


def test_dtype_is_that_of_the_products():
    exact = losses('float32')
    if IS_TF1:
        with pytest.raises(ValueError, match='run.dtype=bfloat16 needs TensorFlow 2'):
            losses('bfloat16')
        return
    rounded = losses('bfloat16')
    assert exact != rounded
    np.testing.assert_allclose(exact, rounded, rtol=0.02)


def tokens_in_parts(texts, *cuts):
    """Tokens of texts in several parts, as token files give them."""
    parts = [texts[start:end] for start, end in zip((0, *cuts), (*cuts, len(texts)))]
    return Tokens(
        [Part(np.concatenate([[], *part]).astype(np.uint16), np.cumsum([0, *map(len, part)])[1:]) for part in parts]
    )


def whole_epoch(texts, random, length, batch):
    """All batches of an epoch as one array, made from all texts at once. Runs depend on this order."""
    tokens = np.concatenate([texts[i] for i in random.permutation(len(texts))])
    num_batches = (len(tokens) - 1) // length // batch
    starts = np.arange((len(tokens) - 1) // length) * length
    starts = random.permutation(starts)[: num_batches * batch]
    return tokens[starts[:, np.newaxis] + np.arange(length + 1)].reshape(num_batches, batch, -1)


@pytest.mark.parametrize('seed', range(6))
def test_the_batches_of_an_epoch(seed):
    """They are those of the whole epoch, also for texts of no token, and of many sequences."""
    draw = np.random.RandomState(seed)
    lengths = draw.choice([0, 1, 3, 17, 90], 150) if seed else [2500]
    texts = [draw.randint(0, 1000, n) for n in lengths]
    hparams = TrainLmHParams(dataset='mine', sequence_length=1 + 5 * seed, batch_size=8)
    stream = TokenStream(tokens_in_parts(texts, *sorted(draw.randint(0, len(texts), 3))), hparams)
    for epoch in range(2):
        expected = whole_epoch(texts, np.random.RandomState([7, epoch]), hparams.sequence_length, 8)
        found = stream.epoch(np.random.RandomState([7, epoch]))
        assert len(found) == stream.num_batches == len(expected) > 0
        for number in range(len(expected)):
            for rank, size in ((0, 1), (0, 2), (1, 2), (3, 4)):
                ranks = Ranks(alone=True)
                ranks.rank, ranks.size = rank, size
                batch = found.batch(number, ranks)
                assert batch.dtype == np.int32
                assert (batch == expected[number][rank::size]).all()


def test_an_epoch_needs_little_memory():
    """A few bytes for each text and sequence, and none for tokens."""
    texts = [np.zeros(1000, np.uint16)] * 2000
    stream = TokenStream(
        tokens_in_parts(texts, 1000), TrainLmHParams(dataset='mine', sequence_length=100, batch_size=8)
    )
    tracemalloc.start()
    epoch = stream.epoch(np.random.RandomState(0))
    for number in range(0, len(epoch), 100):
        epoch.batch(number, Ranks(alone=True))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(epoch) == 2499 and peak < 400_000  # the tokens are 4 MB
