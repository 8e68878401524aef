"""The graph of supervised language-model training, and the token sequences it is trained on.

All methods of the trainer run in the default session.
"""

from typing import Dict, Iterable, Sequence

import numpy as np

from lm_human_preferences.graph.optimizer import minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainLmHParams
from lm_human_preferences.language.distributions import token_logprobs
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.mpi.collectives import gradient_average
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs.divergence import GRADIENT_NORM
from lm_human_preferences.utils.gc_pause import gc_paused


class Dropout:
    """Dropout whose choices follow from a seed, [2] int64, so that a resumed run makes the same ones."""

    def __init__(self, seed: tf.Tensor):
        self._seed = seed
        self._uses = 0

    def __call__(self, x: tf.Tensor, rate: float) -> tf.Tensor:
        """Set entries of `x` to 0 with probability `rate` and scale the others up. Each use draws its own numbers."""
        self._uses += 1
        uniforms = tf.random.stateless_uniform(tf.shape(x), self._seed * [1, 2**32] + [0, self._uses])
        return tf.where(uniforms >= rate, x / (1 - rate), tf.zeros_like(x))


class LmTrainer:
    """A language model with one step of training on a batch of token sequences, and the loss alone."""

    @gc_paused()
    def __init__(self, hparams: TrainLmHParams, model_hparams: ModelHParams, ranks: Ranks):
        self.batch = ranks.share(hparams.batch_size)
        self.model = Model(model_hparams, scope='model', dtype=hparams.run.dtype)
        self._tokens = tf.placeholder(tf.int32, [self.batch, hparams.sequence_length + 1], name='tokens')
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        self._dropout_seed = tf.placeholder(tf.int64, [2], name='dropout_seed')
        self._train_loss = self._loss(Dropout(self._dropout_seed))
        self._held_out_loss = self._loss(None)
        variables = list(self.model.variables.values())
        step, norm = minimize(self._train_loss, variables, self._lr, 'lm_adam', gradient_average(ranks))
        self._stats = {'loss': self._train_loss, GRADIENT_NORM: norm}
        with tf.control_dependencies([step]):
            # Weight decay apart from the gradient (Loshchilov & Hutter 2019). Biases, gains and positions do not decay.
            decayed = [v for name, v in self.model.variables.items() if name.endswith('w') or name == 'wte']
            self._train_op = tf.group(
                step,
                *[v.assign_sub(self._lr * hparams.weight_decay * v) for v in decayed if hparams.weight_decay],
            )

    def _loss(self, dropout):
        states = self.model(self._tokens[:, :-1], dropout=dropout)
        return -tf.reduce_mean(token_logprobs(self.model.logits(states.hidden), self._tokens[:, 1:]))

    def step(self, tokens: np.ndarray, lr: float, dropout_seed: Sequence[int] = (0, 0)) -> Dict[str, float]:
        """Take one step of Adam on tokens [batch, sequence_length + 1]; return the `loss` in nats per token."""
        feed = {self._tokens: tokens, self._lr: lr, self._dropout_seed: dropout_seed}
        return run_with_stats(tf.get_default_session(), self._train_op, self._stats, feed)

    def loss(self, tokens: np.ndarray) -> float:
        """Return the mean loss on tokens [batch, sequence_length + 1] in nats per token, without dropout."""
        return tf.get_default_session().run(self._held_out_loss, {self._tokens: tokens})


class TokenStream:
    """Tokenized texts, cut anew for each epoch into batches of sequences that overlap by one token."""

    def __init__(self, texts: Iterable[str], encoding: Encoding, hparams: TrainLmHParams, split: str = 'train'):
        """Tokenize the `texts` of a split. ValueError if they are too few for one batch."""
        separator = [] if encoding.eot_token is None else [encoding.eot_token]
        # A text that ends with a newline continues in the next text; other texts end with the end-of-text token.
        self._texts = [
            np.array(encoding.encode(text) + ([] if text.endswith('\n') else separator), np.int32) for text in texts
        ]
        self.num_tokens = sum(map(len, self._texts))
        self._length = hparams.sequence_length
        self._batch = hparams.batch_size
        self.num_batches = (self.num_tokens - 1) // self._length // self._batch
        if self.num_batches < 1:
            raise ValueError(
                f'{hparams.dataset}: its split {split} has {self.num_tokens} tokens: too few for one batch of '
                f'{self._batch} sequences of {self._length}; give more text, or lower batch_size or sequence_length'
            )

    def epoch(self, random: np.random.RandomState) -> np.ndarray:
        """Return all batches of one pass over the texts, in random order.

        Their shape is [num_batches, batch_size, sequence_length + 1].
        """
        tokens = np.concatenate([self._texts[i] for i in random.permutation(len(self._texts))])
        starts = np.arange((self.num_tokens - 1) // self._length) * self._length
        starts = random.permutation(starts)[: self.num_batches * self._batch]
        sequences = tokens[starts[:, np.newaxis] + np.arange(self._length + 1)]
        return sequences.reshape(self.num_batches, self._batch, -1)
