"""Supervised language-model training: next-token loss on text, from scratch or from a checkpoint.

It is the paper's baseline, and makes models to fine-tune. The model with the lowest held-out loss is kept.
"""

import dataclasses
import os
from typing import Sequence

import numpy as np

from lm_human_preferences.hyperparameters import TrainLmHParams as HParams
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.datasets import get_texts
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.distributions import token_logprobs
from lm_human_preferences.language.trained_models import find_model, initialize, save_model_folder
from lm_human_preferences.utils.checkpoints import CheckpointWriter
from lm_human_preferences.utils.optimizer import minimize
from lm_human_preferences.utils.progress import progress, say
from lm_human_preferences.utils.ranks import Ranks
from lm_human_preferences.utils.seeds import shared_seed
from lm_human_preferences.utils.summaries import SummaryWriter
from lm_human_preferences.utils.tf_versions import new_session, tf


class LmTrainer:
    """The graph of supervised training: one step on a batch of token sequences, and the loss alone."""

    def __init__(self, hparams: HParams, model_hparams, ranks: Ranks):
        self.batch = ranks.share(hparams.batch_size)
        self.model = Model(model_hparams, scope='model')
        self._tokens = tf.placeholder(tf.int32, [self.batch, hparams.sequence_length + 1], name='tokens')
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        self._train_loss = self._loss(dropout=True)
        self._held_out_loss = self._loss(dropout=False)
        variables = list(self.model.variables.values())
        step = minimize(self._train_loss, variables, self._lr, ranks, scope='lm_adam')
        with tf.control_dependencies([step]):
            # Decoupled from the gradient (Loshchilov & Hutter 2019); biases, gains and positions do not decay.
            decayed = [v for name, v in self.model.variables.items() if name.endswith('w') or name == 'wte']
            self._train_op = tf.group(
                step,
                *[v.assign_sub(self._lr * hparams.weight_decay * v) for v in decayed if hparams.weight_decay],
            )

    def _loss(self, dropout):
        states = self.model(self._tokens[:, :-1], dropout=dropout)
        return -tf.reduce_mean(token_logprobs(self.model.logits(states.hidden), self._tokens[:, 1:]))

    def step(self, session: tf.Session, tokens: np.ndarray, lr: float) -> float:
        """One step of Adam on tokens [batch, sequence_length + 1]; returns the loss in nats per token."""
        return session.run((self._train_loss, self._train_op), {self._tokens: tokens, self._lr: lr})[0]

    def loss(self, session: tf.Session, tokens: np.ndarray) -> float:
        """The mean loss on tokens [batch, sequence_length + 1], nats per token, without dropout."""
        return session.run(self._held_out_loss, {self._tokens: tokens})


class TokenStream:
    """Tokenized texts, cut anew for each epoch into batches of sequences that overlap by one token."""

    def __init__(self, texts: Sequence[str], encoding: Encoding, hparams: HParams):
        separator = [] if encoding.eot_token is None else [encoding.eot_token]
        # Texts that end a line go on in the next one; others are parted by the end of text.
        self._texts = [
            np.array(encoding.encode(text) + ([] if text.endswith('\n') else separator), np.int32) for text in texts
        ]
        self.num_tokens = sum(map(len, self._texts))
        self._length = hparams.sequence_length
        self._batch = hparams.batch_size
        self.num_batches = (self.num_tokens - 1) // self._length // self._batch
        if self.num_batches < 1:
            raise ValueError(
                f'the text of {hparams.dataset} has {self.num_tokens} tokens: too few for one batch of '
                f'{self._batch} sequences of {self._length}; lower batch_size or sequence_length'
            )

    def epoch(self, random: np.random.RandomState) -> np.ndarray:
        """All batches of a pass, [num_batches, batch_size, sequence_length + 1], of the texts in random order."""
        tokens = np.concatenate([self._texts[i] for i in random.permutation(len(self._texts))])
        starts = np.arange((self.num_tokens - 1) // self._length) * self._length
        starts = random.permutation(starts)[: self.num_batches * self._batch]
        sequences = tokens[starts[:, np.newaxis] + np.arange(self._length + 1)]
        return sequences.reshape(self.num_batches, self._batch, -1)


def training_texts(dataset: str, mode: str) -> Sequence[str]:
    """The texts of a data set for a language model: for the demo of all its files, not of the queries' alone."""
    if dataset == 'demo':
        from lm_human_preferences.demo import data

        return data.lm_texts(mode)
    return get_texts(dataset, mode)


def learning_rate(hparams: HParams, step: int, num_steps: int) -> float:
    """Linear warm-up over `warmup_steps`, then linear decay to 0."""
    warm = min(1.0, (step + 1) / max(1, hparams.warmup_steps))
    return hparams.lr * warm * (1 - step / num_steps)


def train(hparams: HParams) -> None:
    """Train a language model as `hparams` say and save it under `run.save_dir`/model."""
    ranks = Ranks()
    hparams.validate(num_ranks=ranks.size)
    seed = shared_seed(hparams.run.seed, ranks)
    save_dir = hparams.run.save_dir if ranks.is_first else None
    texts = training_texts(hparams.dataset, 'train')

    initial_model = find_model(hparams.initial_model) if hparams.initial_model else None
    if initial_model:
        encoding, model_hparams = initial_model.encoding(), initial_model.hparams
    else:
        encoding = Encoding('own', *train_bpe(texts, hparams.model.n_vocab))
        model_hparams = dataclasses.replace(hparams.model, n_vocab=encoding.n_vocab)
    if hparams.sequence_length > model_hparams.n_ctx:
        raise ValueError(
            f'sequence_length {hparams.sequence_length} exceeds what the model reads: {model_hparams.n_ctx}'
        )
    train_tokens = TokenStream(texts, encoding, hparams)
    held_out_tokens = TokenStream(training_texts(hparams.dataset, 'valid'), encoding, hparams)
    say(
        f'{train_tokens.num_tokens} tokens to train on, {held_out_tokens.num_tokens} held out, '
        f'vocabulary of {encoding.n_vocab}',
        ranks.is_first,
    )

    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        tf.set_random_seed(seed + 100003 * ranks.rank)
        dropping = dict.fromkeys(('embd_pdrop', 'attn_pdrop', 'resid_pdrop'), hparams.dropout)
        trainer = LmTrainer(hparams, dataclasses.replace(model_hparams, **dropping), ranks)
        folder = os.path.join(save_dir, 'model') if save_dir else None
        if folder:
            save_model_folder(folder, model_hparams, encoding)
        checkpoints = CheckpointWriter(folder, list(trainer.model.variables.values()))
        summaries = SummaryWriter(os.path.join(save_dir, 'tb', 'lm') if save_dir else None)
        loaded = initial_model.load(session, trainer.model) if initial_model and ranks.is_first else []
        initialize(session, loaded, ranks)
        graph.finalize()

        mine = slice(ranks.rank, None, ranks.size)
        held_out = held_out_tokens.epoch(np.random.RandomState(seed))
        random = np.random.RandomState(seed)
        num_steps = hparams.epochs * train_tokens.num_batches
        step, best, epochs_since_best = 0, np.inf, 0
        bar = progress(None, 'language model', ranks.is_first, total=num_steps)
        for epoch in range(1, hparams.epochs + 1):
            losses = []
            for batch in train_tokens.epoch(random):
                losses.append(trainer.step(session, batch[mine], learning_rate(hparams, step, num_steps)))
                if step % hparams.run.log_interval == 0:
                    summaries.write({'loss': float(ranks.mean(losses[-1]))}, step)
                step += 1
                bar.update()
            held_out_loss = float(ranks.mean(np.mean([trainer.loss(session, batch[mine]) for batch in held_out])))
            summaries.write({'held_out_loss': held_out_loss}, step)
            say(
                f'epoch {epoch}/{hparams.epochs}  loss {np.mean(losses):.4f}  held-out loss {held_out_loss:.4f}',
                ranks.is_first,
            )
            epochs_since_best += 1
            if held_out_loss < best:
                best, epochs_since_best = held_out_loss, 0
                checkpoints.save(session, step)
            if hparams.patience and epochs_since_best >= hparams.patience:
                break
        bar.close()
        summaries.close()
