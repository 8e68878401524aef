"""The graph of supervised language-model training, and the token sequences it is trained on.

All methods of the trainer run in the default session.
"""

from typing import Dict, Sequence

import numpy as np

from lm_human_preferences.datasets.token_files import Tokens
from lm_human_preferences.graph.optimizer import minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams, TrainLmHParams
from lm_human_preferences.language.distributions import token_logprobs
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

    def __init__(self, tokens: Tokens, hparams: TrainLmHParams, split: str = 'train'):
        """ValueError if the tokens of the split are too few for one batch."""
        self._tokens = tokens
        self.num_tokens = tokens.num_tokens
        self._length = hparams.sequence_length
        self._batch = hparams.batch_size
        self.num_batches = (self.num_tokens - 1) // self._length // self._batch
        if self.num_batches < 1:
            raise ValueError(
                f'{hparams.dataset}: its split {split} has {self.num_tokens} tokens: too few for one batch of '
                f'{self._batch} sequences of {self._length}; give more text, or lower batch_size or sequence_length'
            )

    def epoch(self, random: np.random.RandomState) -> 'Epoch':
        """Return all batches of one pass over the texts, in random order."""
        # Shuffling an array takes the same random numbers whatever its type, and these are the smallest ones.
        order = random.permutation(np.arange(self._tokens.num_texts, dtype=np.int32))
        sequences = random.permutation(np.arange((self.num_tokens - 1) // self._length, dtype=np.int32))
        batches = sequences[: self.num_batches * self._batch].reshape(self.num_batches, self._batch)
        return Epoch(self._tokens, order, batches, self._length)


class Epoch:
    """The batches of one pass over texts. Each is gathered when it is asked for.

    All texts are put one after the other in an order, and cut into sequences.
    """

    def __init__(self, tokens: Tokens, order: np.ndarray, batches: np.ndarray, length: int):
        """
        Args:
          order: [num_texts], the texts.
          batches: [num_batches, batch], the numbers of the sequences in each batch.
          length: the tokens of a sequence, without the one that it shares with the next.
        """
        self._tokens = tokens
        self._order = order
        self._ends = np.cumsum(tokens.lengths()[order], dtype=np.int64)  # of the texts in their order
        self._batches = batches
        self._length = length

    def __len__(self) -> int:
        return len(self._batches)

    def batch(self, number: int, ranks: Ranks) -> np.ndarray:
        """Return this rank's share of a batch, int32 [batch / ranks, length + 1]."""
        return np.stack([self._sequence(int(i)) for i in self._batches[number, ranks.rank :: ranks.size]])

    def _sequence(self, number: int) -> np.ndarray:
        start, filled = number * self._length, 0
        place = int(np.searchsorted(self._ends, start, side='right'))  # of the text that has the first token
        skipped = start - (int(self._ends[place - 1]) if place else 0)
        sequence = np.empty(self._length + 1, np.int32)
        while filled < len(sequence):
            tokens = self._tokens.text(int(self._order[place]))[skipped : skipped + len(sequence) - filled]
            sequence[filled : filled + len(tokens)] = tokens
            place, skipped, filled = place + 1, 0, filled + len(tokens)
        return sequence
