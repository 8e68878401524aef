"""Padded batches give what each of their texts gives alone: outputs and gradients."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some

from lm_human_preferences.graph.tf_versions import IS_TF1, new_session, tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.model import Model, branching

HPARAMS = ModelHParams(n_vocab=27, n_ctx=12, n_embd=12, n_head=3, n_layer=2)
PADDING = 29
BATCH, STEM, BRANCHES, LENGTH = 3, 4, 2, 3
SEQUENCE = STEM + BRANCHES * LENGTH

# Each text: a token or padding at each position. Whole texts, padding on either side and gaps are all likely.
texts = some.one_of(
    some.integers(0, SEQUENCE).map(lambda real: [True] * real + [False] * (SEQUENCE - real)),
    some.integers(0, SEQUENCE).map(lambda padding: [False] * padding + [True] * (SEQUENCE - padding)),
    some.tuples(some.integers(1, STEM), some.lists(some.integers(0, LENGTH), min_size=BRANCHES, max_size=BRANCHES)).map(
        lambda lengths: sum(
            ([True] * n + [False] * (most - n) for n, most in zip([lengths[0], *lengths[1]], [STEM, LENGTH, LENGTH])),
            [],
        )
    ),
    some.lists(some.booleans(), min_size=SEQUENCE, max_size=SEQUENCE),
)
batches = some.lists(texts, min_size=BATCH, max_size=BATCH).map(np.array)


class Padded:
    """A model with random weights, applied to a padded batch and to one text alone, with gradients of all weights."""

    def __init__(self, dtype, branched, read):
        self.attend = branching(STEM, BRANCHES, LENGTH) if branched else np.tri(SEQUENCE, dtype=bool)
        self.read = list(range(SEQUENCE)) if read is None else read
        with tf.Graph().as_default() as graph:
            tf.set_random_seed(1)
            self.model = Model(HPARAMS, dtype=dtype)
            self.session = new_session(graph)
            self._batch = self._built(
                [BATCH, SEQUENCE], padding_token=PADDING, attend=self.attend if branched else None, read=read
            )
            self._alone = self._built([1, None])
            self.session.run(tf.global_variables_initializer())
            random = np.random.RandomState(1)
            for variable in self.model.variables.values():
                variable.load(self.session.run(variable) + 0.2 * random.randn(*variable.shape), self.session)

    def _built(self, shape, **arguments):
        """Placeholders of tokens and slopes; outputs, and the gradient of outputs · slopes."""
        tokens = tf.placeholder(tf.int32, shape)
        hidden = self.model(tokens, **arguments).hidden
        slopes = tf.placeholder(tf.float32, hidden.shape)
        gradients = tf.gradients(tf.reduce_sum(hidden * slopes), list(self.model.variables.values()))
        return tokens, slopes, hidden, [tf.convert_to_tensor(gradient) for gradient in gradients]

    def _run(self, built, tokens, slopes):
        return self.session.run(built[2:], dict(zip(built, (tokens, slopes))))

    def together(self, tokens, slopes):
        return self._run(self._batch, tokens, slopes)

    def alone(self, tokens, slopes):
        """The same as `together`, from each text (and branch) without its padding. No output where there is no text."""
        outputs, gradients = np.full(slopes.shape, np.nan), None
        for row, text in enumerate(tokens):
            real = text != PADDING
            visible = [np.flatnonzero(attended & real) for attended in self.attend]
            last = [max(places, default=None) for places in visible]
            left = [i for i, position in enumerate(self.read) if last[position] is not None]
            while left:
                places = max((visible[self.read[i]] for i in left), key=len).tolist()
                here = [i for i in left if last[self.read[i]] in places]
                left = [i for i in left if i not in here]
                where = [places.index(last[self.read[i]]) for i in here]
                own = np.zeros([1, len(places), HPARAMS.n_embd])
                np.add.at(own[0], where, slopes[row, here])
                hidden, of_weights = self._run(self._alone, text[places][np.newaxis], own)
                outputs[row, here] = hidden[0, where]
                gradients = of_weights if gradients is None else [a + b for a, b in zip(gradients, of_weights)]
        return outputs, gradients


TOLERANCE = dict(float32=2e-5, bfloat16=0.03)  # of the largest number of each array
LAST = [STEM + LENGTH - 1, SEQUENCE - 1]  # of each branch
KINDS = [('float32', branched, read) for branched in (False, True) for read in (None, LAST)]


@pytest.fixture(scope='module', params=KINDS if IS_TF1 else [*KINDS, ('bfloat16', True, LAST)])
def padded(request):
    return request.param[0], Padded(*request.param)


def assert_near(actual, expected, dtype):
    np.testing.assert_allclose(actual, expected, rtol=0, atol=TOLERANCE[dtype] * np.abs(expected).max() + 1e-9)


@settings(max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
@given(real=batches, seed=some.integers(0, 2**32 - 1))
def test_a_padded_batch_is_its_texts_one_at_a_time(padded, real, seed):
    dtype, models = padded
    random = np.random.RandomState(seed)
    tokens = np.where(real, random.randint(0, 27, [BATCH, SEQUENCE]), PADDING)
    slopes = random.randn(BATCH, len(models.read), HPARAMS.n_embd)
    read = np.any(real[:, np.newaxis] & models.attend[models.read], axis=-1)  # the others have no text to read
    slopes *= read[..., np.newaxis]
    outputs, gradients = models.together(tokens, slopes)
    assert np.isfinite(outputs).all()
    if not read.any():
        return
    expected, expected_gradients = models.alone(tokens, slopes)
    assert_near(outputs[read], expected[read], dtype)
    for actual, wanted in zip(gradients, expected_gradients):
        assert_near(actual, wanted, dtype)
