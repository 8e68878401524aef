"""Supervised language-model training: next-token loss on text, from scratch or from a checkpoint.

It is the paper's baseline, and it makes models to fine-tune. The model with the lowest held-out loss is kept.
"""

import dataclasses
import os
from dataclasses import dataclass
from typing import Any, Dict, Optional, Sequence, Tuple

import numpy as np

from lm_human_preferences.datasets.missing_texts import readable_texts
from lm_human_preferences.datasets.registry import get_lm_texts
from lm_human_preferences.datasets.token_files import tokens_of
from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.hyperparameters import TrainLmHParams as HParams
from lm_human_preferences.language.bpe import train_bpe
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.trained_models import TrainedModel, find_model
from lm_human_preferences.method.lm_trainer import Epoch, LmTrainer, TokenStream
from lm_human_preferences.runs.checkpoint_files import resume_at
from lm_human_preferences.runs.checkpoints import CheckpointWriter
from lm_human_preferences.runs.divergence import check_finite
from lm_human_preferences.runs.run_folder import LM, LM_TRAINING
from lm_human_preferences.training_stage import Stage, Trained

TRAINING_CHECKPOINTS_KEPT = 2


@dataclass
class LossSoFar:
    """What a resumed run must know of the losses so far."""

    best_loss: Optional[float] = None  # the lowest held-out loss, in nats per token
    epochs_since_best: int = 0
    loss_sum: float = 0.0  # over the steps of this epoch

    @classmethod
    def of(cls, state: Dict[str, Any]) -> 'LossSoFar':
        """Return what a checkpoint's `state` holds of it."""
        names = [field.name for field in dataclasses.fields(cls)]
        return cls(**{name: state[name] for name in names if name in state})

    def is_patience_out(self, hparams: HParams) -> bool:
        """Whether training stops because the held-out loss has not improved for `patience` epochs."""
        return 0 < hparams.patience <= self.epochs_since_best

    def end_epoch(self, held_out_loss: float) -> bool:
        """Start a new epoch; return whether this held-out loss is the lowest so far."""
        is_best = self.best_loss is None or held_out_loss < self.best_loss
        self.loss_sum = 0.0
        self.epochs_since_best += 1
        if is_best:
            self.best_loss, self.epochs_since_best = held_out_loss, 0
        return is_best


def train(hparams: HParams) -> Trained:
    """Train a language model as `hparams` say and save it under `run.save_dir`/model.

    Return the folder of the run, and the statistics of the last step.

    The model in training may not be the best one: `run.save_dir`/training holds it, with what a resumed run needs.
    """
    stage = Stage(hparams, LM_TRAINING, events='lm')
    texts = get_lm_texts(hparams.dataset, 'train')
    initial_model = find_model(hparams.initial_model) if hparams.initial_model and stage.is_new else None
    encoding, model_hparams = vocabulary_and_size(stage, initial_model, texts)
    stage.count_texts(hparams.dataset, len(texts))
    train_tokens, held_out_tokens = token_streams(stage, texts, encoding)
    num_steps = hparams.epochs * train_tokens.num_batches
    so_far = LossSoFar.of(stage.checkpoints.state)
    if stage.step >= num_steps or so_far.is_patience_out(hparams):
        stage.say(f'the language model in {hparams.run.save_dir} is finished: {stage.step} steps')
        return stage.outcome(stage.step)
    best_folder = os.path.join(stage.run_folder, LM) if stage.run_folder else None

    def build():
        rates = dict.fromkeys(('embd_pdrop', 'attn_pdrop', 'resid_pdrop'), hparams.dropout)
        trainer = LmTrainer(hparams, dataclasses.replace(model_hparams, **rates), stage.ranks)
        return trainer, CheckpointWriter(best_folder, list(trainer.model.variables.values()))

    def load(built):
        trainer, _ = built
        if best_folder:
            resume_at(best_folder, stage.step)
        return initial_model.load(tf.get_default_session(), trainer.model) if initial_model else []

    opened = stage.session(
        build, load, model_hparams, encoding, keep=TRAINING_CHECKPOINTS_KEPT, model_folder=best_folder
    )
    with opened as (trainer, best_model):
        held_out = held_out_tokens.epoch(np.random.RandomState(stage.seed))
        batches = None
        for step in stage.steps(num_steps, 'language model'):
            epoch, place = divmod(step, train_tokens.num_batches)
            if batches is None or place == 0:
                batches = train_tokens.epoch(np.random.RandomState([stage.seed, epoch]))
            dropout_seed = (stage.seed + 100003 * stage.ranks.rank, step)
            lr = learning_rate(hparams, step, num_steps)
            stats = trainer.step(batches.batch(place, stage.ranks), lr, dropout_seed)
            check_finite(stats, step + 1)
            so_far.loss_sum += stats['loss']
            report_step(stage, step, num_steps, stats, lr)
            if place == train_tokens.num_batches - 1:
                held_out_loss = measure(stage, trainer, held_out, step)
                report_epoch(stage, step, epoch, so_far.loss_sum / train_tokens.num_batches, held_out_loss)
                if so_far.end_epoch(held_out_loss):
                    best_model.save(tf.get_default_session(), step + 1)
            if step + 1 == num_steps or so_far.is_patience_out(hparams):
                stage.finish(step + 1, **dataclasses.asdict(so_far))
                break
            stage.after_step(step + 1, **dataclasses.asdict(so_far))
    return stage.outcome(step + 1)


def token_streams(stage: Stage, texts: Sequence[str], encoding: Encoding) -> Tuple[TokenStream, TokenStream]:
    """Tokenize the texts to train on, and those held out. ValueError if they are too few."""
    hparams = stage.hparams
    held_out_texts = get_lm_texts(hparams.dataset, 'valid')
    training = TokenStream(tokens_of(texts, encoding, hparams.dataset, 'train', stage.ranks), hparams)
    held_out = TokenStream(tokens_of(held_out_texts, encoding, hparams.dataset, 'valid', stage.ranks), hparams, 'valid')
    stage.say(
        f'{training.num_tokens} tokens to train on, {held_out.num_tokens} held out, vocabulary of {encoding.n_vocab}'
    )
    return training, held_out


def vocabulary_and_size(
    stage: Stage, initial_model: Optional[TrainedModel], texts: Sequence[str]
) -> Tuple[Encoding, ModelHParams]:
    """Return the vocabulary and the size of the model: the initial model's, those of a new one, or those of the run.

    A new vocabulary is learned from the texts. The first rank does this, or reads what the run has saved, for all.

    ValueError if the model is too small, or if `model` asks for another size than the initial model has.
    """
    hparams = stage.hparams

    def learned_or_saved():
        if stage.is_new:
            learned = Encoding('own', *train_bpe(readable_texts(texts, hparams.dataset), hparams.model.n_vocab))
            return learned.content(), dataclasses.replace(hparams.model, n_vocab=learned.n_vocab).to_nested_dict()
        saved = TrainedModel(os.path.join(stage.run_folder, LM))
        return saved.encoding().content(), saved.hparams.to_nested_dict()

    if initial_model:
        encoding, model_hparams = initial_model.encoding(), initial_model.hparams
        check_size(hparams, model_hparams)
    else:
        vocabulary, size = stage.ranks.from_first(learned_or_saved)
        encoding, model_hparams = Encoding(**vocabulary), ModelHParams(**size)
    if hparams.sequence_length > model_hparams.n_ctx:
        raise ValueError(
            f'sequence_length {hparams.sequence_length} exceeds what the model reads: {model_hparams.n_ctx}'
        )
    return encoding, model_hparams


def check_size(hparams: HParams, initial: ModelHParams) -> None:
    """Raise ValueError if a field under `model` is set, and not to the value of the initial model."""
    for name, field in ModelHParams.tree().items():
        wanted, is_there = getattr(hparams.model, name), getattr(initial, name)
        if wanted not in (field.default, is_there) and not name.endswith('_pdrop'):
            raise ValueError(
                f'model.{name} is {wanted}, but initial_model {hparams.initial_model} has {name} {is_there}: '
                'leave out model, which is the size of a new model, or leave out initial_model'
            )


def learning_rate(hparams: HParams, step: int, num_steps: int) -> float:
    """Linear warm-up over `warmup_steps`, then linear decay to 0."""
    warm = min(1.0, (step + 1) / max(1, hparams.warmup_steps))
    return hparams.lr * warm * (1 - step / num_steps)


def measure(stage: Stage, trainer: LmTrainer, held_out: Epoch, step: int) -> float:
    """Return the mean loss over all batches and ranks. UserError if it is not finite."""
    losses = [trainer.loss(held_out.batch(number, stage.ranks)) for number in range(len(held_out))]
    loss = float(stage.ranks.mean(np.mean(losses)))
    check_finite({'held_out_loss': loss}, step + 1)
    return loss


def report_step(stage: Stage, step: int, num_steps: int, stats: Dict[str, float], lr: float) -> None:
    """Write the statistics of a step, averaged over ranks; print the loss every `run.log_interval` steps."""
    stats = stage.ranks.mean_stats(stats)
    stage.summaries.write(dict(stats, lr=lr), step)
    line = stage.show(stats, ['loss'])
    if step % stage.hparams.run.log_interval == 0:
        stage.say(f'language model step {step + 1}/{num_steps}  {line}')


def report_epoch(stage: Stage, step: int, epoch: int, loss: float, held_out_loss: float) -> None:
    """Write the losses of an epoch."""
    stage.summaries.write({'held_out_loss': held_out_loss}, step)
    stage.say(f'epoch {epoch + 1}/{stage.hparams.epochs}  loss {loss:.4f}  held-out loss {held_out_loss:.4f}')
