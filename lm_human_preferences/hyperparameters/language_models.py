"""Hyperparameters of language models: the size of a GPT-2, and `train_lm`."""

from dataclasses import dataclass
from typing import Optional

from lm_human_preferences.hyperparameters.rules import (
    DROPOUT_RATE,
    NOT_EMPTY,
    NOT_NEGATIVE,
    POSITIVE,
    check,
    check_multiple,
)
from lm_human_preferences.hyperparameters.starting import check_lm, check_shared
from lm_human_preferences.hyperparameters.tasks import RunHParams
from lm_human_preferences.utils.hyperparams import HParams, hparam


@dataclass
class ModelHParams(HParams):
    """The size of a GPT-2, as in `hparams.json` of a model folder."""

    RETIRED = ('head_pdrop',)

    n_vocab: int = hparam(50257, 'Tokens of the vocabulary.')
    n_ctx: int = hparam(1024, 'Longest sequence, in tokens.')
    n_embd: int = hparam(768, 'Width of the hidden states.')
    n_head: int = hparam(12, 'Attention heads of a layer; n_embd is a multiple of it.')
    n_layer: int = hparam(12, 'Transformer layers.')
    embd_pdrop: float = hparam(0.1, 'Dropout rate after the embeddings.')
    attn_pdrop: float = hparam(0.1, 'Dropout rate of the attention weights.')
    resid_pdrop: float = hparam(0.1, 'Dropout rate before each residual addition.')

    def validate(self, prefix: str = '') -> None:
        super().validate(prefix)
        check(self, prefix, 'n_vocab n_ctx n_embd n_head n_layer', POSITIVE)
        check(self, prefix, 'n_vocab n_ctx n_embd', (lambda value: value <= 10**6, 'at most 1000000'))
        check(self, prefix, 'n_layer', (lambda value: value <= 1000, 'at most 1000'))  # more take minutes to build
        check(self, prefix, 'embd_pdrop attn_pdrop resid_pdrop', DROPOUT_RATE)
        check_multiple(f'{prefix}n_embd', self.n_embd, f'{prefix}n_head', self.n_head)


@dataclass
class TrainLmHParams(HParams):
    """Supervised training of a language model with the next-token loss."""

    run: RunHParams = hparam(RunHParams, 'How the run is seeded, logged and saved.')
    dataset: str = hparam(
        None, 'Data set of the texts: a name such as books, text:PATH, jsonl:PATH or parquet:PATH#COLUMN.'
    )
    initial_model: Optional[str] = hparam(None, 'Model to start from. None: a new model of the size under `model`.')
    model: ModelHParams = hparam(ModelHParams, 'Size of a new model.')
    sequence_length: int = hparam(128, 'Length of a training sequence, in tokens.')
    batch_size: int = hparam(32, 'Sequences of a step, over all ranks.')
    epochs: int = hparam(1, 'Passes over the texts.')
    lr: float = hparam(1e-4, 'Learning rate after the warmup. It falls linearly to 0.')
    warmup_steps: int = hparam(100, 'Steps in which the learning rate rises linearly from 0.')
    weight_decay: float = hparam(0.0, 'Decoupled weight decay, as in AdamW.')
    dropout: float = hparam(0.0, 'Dropout rate during training, in place of the rates of the model.')
    patience: int = hparam(0, 'Epochs without a better held-out loss after which training stops. 0: never.')

    def validate(self, prefix: str = '', num_ranks: Optional[int] = None) -> None:
        super().validate(prefix)
        check(self, prefix, 'dataset initial_model', NOT_EMPTY)
        check(self, prefix, 'sequence_length batch_size epochs', POSITIVE)
        check(self, prefix, 'lr warmup_steps weight_decay patience', NOT_NEGATIVE)
        check(self, prefix, 'dropout', DROPOUT_RATE)
        check_multiple(f'{prefix}batch_size', self.batch_size, 'the number of ranks', num_ranks or 1)
        if self.initial_model is None and self.sequence_length > self.model.n_ctx:
            length, n_ctx = self.sequence_length, self.model.n_ctx
            raise ValueError(f'{prefix}sequence_length ({length}) must be at most {prefix}model.n_ctx ({n_ctx})')
        if num_ranks is not None:
            check_shared(self, prefix)
            check_lm(self, prefix)
