"""Supervised language-model training: next-token loss on text, from scratch or from a checkpoint.

It is the paper's baseline, and makes models to fine-tune. The model with the lowest held-out loss is kept.
"""

import dataclasses
import os
from typing import Sequence

import numpy as np

from lm_human_preferences.datasets.registry import get_lm_texts
from lm_human_preferences.graph.optimizer import minimize, run_with_stats
from lm_human_preferences.graph.tf_versions import new_session, tf
from lm_human_preferences.hyperparameters import TrainLmHParams as HParams
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.distributions import token_logprobs
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.trained_models import find_model, save_model_folder
from lm_human_preferences.mpi.collectives import gradient_average, initialize_variables
from lm_human_preferences.mpi.ranks import Ranks
from lm_human_preferences.runs.checkpoint_files import forget_after
from lm_human_preferences.runs.checkpoints import Checkpoints, CheckpointWriter
from lm_human_preferences.runs.divergence import GRADIENT_NORM, check_finite
from lm_human_preferences.runs.resuming import save_hparams
from lm_human_preferences.runs.summaries import SummaryWriter, brief
from lm_human_preferences.utils.gc_pause import gc_paused
from lm_human_preferences.utils.progress import progress, say

TRAINING_CHECKPOINTS_KEPT = 2


class Dropout:
    """Dropout whose choices follow from a seed, [2] int64, so that a resumed run makes the same ones."""

    def __init__(self, seed: tf.Tensor):
        self._seed = seed
        self._uses = 0

    def __call__(self, x: tf.Tensor, rate: float) -> tf.Tensor:
        """Set entries of `x` to 0 with the probability `rate`, and scale the others up; apart at each place of use."""
        self._uses += 1
        uniforms = tf.random.stateless_uniform(tf.shape(x), self._seed * [1, 2**32] + [0, self._uses])
        return tf.where(uniforms >= rate, x / (1 - rate), tf.zeros_like(x))


class LmTrainer:
    """The graph of supervised training: one step on a batch of token sequences, and the loss alone."""

    @gc_paused()
    def __init__(self, hparams: HParams, model_hparams, ranks: Ranks):
        self.batch = ranks.share(hparams.batch_size)
        self.model = Model(model_hparams, scope='model')
        self._tokens = tf.placeholder(tf.int32, [self.batch, hparams.sequence_length + 1], name='tokens')
        self._lr = tf.placeholder(tf.float32, [], name='lr')
        self._dropout_seed = tf.placeholder(tf.int64, [2], name='dropout_seed')
        self._train_loss = self._loss(Dropout(self._dropout_seed))
        self._held_out_loss = self._loss(None)
        variables = list(self.model.variables.values())
        step, norm = minimize(self._train_loss, variables, self._lr, scope='lm_adam', average=gradient_average(ranks))
        self._stats = {'loss': self._train_loss, GRADIENT_NORM: norm}
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

    def step(self, session: tf.Session, tokens: np.ndarray, lr: float, dropout_seed: Sequence[int] = (0, 0)):
        """One step of Adam on tokens [batch, sequence_length + 1]; gives the `loss` in nats per token."""
        feed = {self._tokens: tokens, self._lr: lr, self._dropout_seed: dropout_seed}
        return run_with_stats(session, self._train_op, self._stats, feed)

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


def learning_rate(hparams: HParams, step: int, num_steps: int) -> float:
    """Linear warm-up over `warmup_steps`, then linear decay to 0."""
    warm = min(1.0, (step + 1) / max(1, hparams.warmup_steps))
    return hparams.lr * warm * (1 - step / num_steps)


def is_patience_out(hparams: HParams, epochs_since_best: int) -> bool:
    """Whether training stops because the held-out loss has not come down for `patience` epochs."""
    return 0 < hparams.patience <= epochs_since_best


def train(hparams: HParams) -> None:
    """Train a language model as `hparams` say and save it under `run.save_dir`/model.

    `run.save_dir`/training holds what it takes to go on: the model in training may not be the best one.
    """
    ranks = Ranks()
    hparams.validate(num_ranks=ranks.size)
    save_dir = hparams.run.save_dir if ranks.is_first else None
    checkpoints = Checkpoints(os.path.join(save_dir, 'training') if save_dir else None, hparams, ranks)
    seed = checkpoints.seed
    texts = get_lm_texts(hparams.dataset, 'train')

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
    held_out_tokens = TokenStream(get_lm_texts(hparams.dataset, 'valid'), encoding, hparams)
    say(
        f'{train_tokens.num_tokens} tokens to train on, {held_out_tokens.num_tokens} held out, '
        f'vocabulary of {encoding.n_vocab}',
        ranks.is_first,
    )
    num_steps = hparams.epochs * train_tokens.num_batches
    best = checkpoints.state.get('best_loss')
    epochs_since_best = checkpoints.state.get('epochs_since_best', 0)
    if checkpoints.step >= num_steps or is_patience_out(hparams, epochs_since_best):
        say(f'the language model in {hparams.run.save_dir} is finished: {checkpoints.step} steps', ranks.is_first)
        return

    with tf.Graph().as_default() as graph, new_session(graph, ranks.threads()) as session:
        tf.set_random_seed(seed)
        dropping = dict.fromkeys(('embd_pdrop', 'attn_pdrop', 'resid_pdrop'), hparams.dropout)
        trainer = LmTrainer(hparams, dataclasses.replace(model_hparams, **dropping), ranks)
        folder = os.path.join(save_dir, 'model') if save_dir else None
        if folder:
            save_model_folder(folder, model_hparams, encoding)
            save_hparams(save_dir, hparams)
            forget_after(folder, checkpoints.step)
        best_model = CheckpointWriter(folder, list(trainer.model.variables.values()))
        summaries = SummaryWriter(os.path.join(save_dir, 'tb', 'lm') if save_dir else None, checkpoints.step)
        loaded = checkpoints.restore(session, tf.global_variables(), keep=TRAINING_CHECKPOINTS_KEPT)
        if initial_model and ranks.is_first and checkpoints.step == 0:
            loaded += initial_model.load(session, trainer.model)
        initialize_variables(session, loaded, ranks)
        graph.finalize()

        mine = slice(ranks.rank, None, ranks.size)
        held_out = held_out_tokens.epoch(np.random.RandomState(seed))
        loss_sum = checkpoints.state.get('loss_sum', 0.0)  # of the epoch so far
        epoch = None
        bar = progress(range(checkpoints.step, num_steps), 'language model', ranks.is_first)
        for step in bar:
            if epoch != step // train_tokens.num_batches:
                epoch = step // train_tokens.num_batches
                batches = train_tokens.epoch(np.random.RandomState([seed, epoch]))
            batch = batches[step % train_tokens.num_batches][mine]
            dropout_seed = (seed + 100003 * ranks.rank, step)
            numbers = trainer.step(session, batch, learning_rate(hparams, step, num_steps), dropout_seed)
            check_finite(numbers, step + 1)
            loss_sum += numbers['loss']
            stats = {}
            if step % hparams.run.log_interval == 0:
                stats['loss'] = float(ranks.mean(numbers['loss']))
                figures = brief(stats, ['loss'])
                bar.set_postfix_str(figures)
                say(f'language model step {step + 1}/{num_steps}  {figures}', ranks.is_first)
            if (step + 1) % train_tokens.num_batches == 0:
                losses = [trainer.loss(session, batch[mine]) for batch in held_out]
                held_out_loss = stats['held_out_loss'] = float(ranks.mean(np.mean(losses)))
                check_finite({'held_out_loss': held_out_loss}, step + 1)
                mean_loss = loss_sum / train_tokens.num_batches
                say(
                    f'epoch {epoch + 1}/{hparams.epochs}  loss {mean_loss:.4f}  held-out loss {held_out_loss:.4f}',
                    ranks.is_first,
                )
                loss_sum = 0.0
                epochs_since_best += 1
                if best is None or held_out_loss < best:
                    best, epochs_since_best = held_out_loss, 0
                    best_model.save(session, step + 1)
            if stats:
                summaries.write(stats, step)
            own = dict(best_loss=best, epochs_since_best=epochs_since_best, loss_sum=loss_sum)
            if step + 1 == num_steps or is_patience_out(hparams, epochs_since_best):
                checkpoints.finish(session, step + 1, **own)
                break
            checkpoints.after_step(session, step + 1, **own)
        bar.close()
        summaries.close()
