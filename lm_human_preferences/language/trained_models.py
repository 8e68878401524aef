"""Find, load and save trained models. A model folder holds a checkpoint, the sizes in `hparams.json`, and the encoding.

A Hugging Face folder is a model folder, too. It is read as it is.

The name of a model is one of these:
- `test`: random weights, without files
- `demo`: the model that is embedded in this package
- `124M`, `355M`, `774M` or `1558M`: a published GPT-2
- a model folder or a run folder: a path, gs://…, https://… or hf://….
"""

import contextlib
import dataclasses
import os
import re
from typing import Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Union

import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.graph.variables import set_variables
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import MAIN_VOCABULARY, Encoding, load_encoding, test_encoding
from lm_human_preferences.language.huggingface_models import FolderReader, is_huggingface, read_sizes
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.model_files import (
    PUBLISHED_MODELS,
    fetch_weights,
    local_checkpoint,
    local_folder,
    model_folder,
    published_folder,
)
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json

EMBEDDED_MODELS = os.path.join(
    os.path.dirname(os.path.abspath(__file__)), 'embedded'
)  # one model folder for each embedded model
SIZES = ('n_vocab', 'n_ctx', 'n_embd', 'n_head', 'n_layer')  # required in every hparams.json


class TrainedModel:
    """A saved model."""

    def __init__(self, source: Optional[str], savescope: str = 'policy', checkpoint: Optional[str] = None):
        """
        Args:
          source: path or URL of the model folder. None: the built-in model `test`, whose weights are random.
          savescope: the scope of the variables in the checkpoint, such as `policy` or `reward_model`.
          checkpoint: the path prefix of a checkpoint in the folder. None: the latest.
        """
        self.source = source
        self.folder = None if source is None else local_folder(source)
        self.savescope = savescope
        self._checkpoint = checkpoint
        self._random = None
        self._encoding = None
        if source is None:
            self.hparams = ModelHParams(n_vocab=27, n_ctx=8, n_embd=7, n_head=1, n_layer=2)
        elif self.is_huggingface:
            sizes = read_sizes(self.folder)
            self.hparams, self._encoding = sizes.cut, sizes.encoding
        else:
            self.hparams = load_model_hparams(self.folder)

    def at(self, checkpoint: str) -> 'TrainedModel':
        """Return the same model from another checkpoint of its folder."""
        model = TrainedModel(self.source, self.savescope, checkpoint)
        model._encoding = self._encoding
        return model

    @property
    def title(self) -> str:
        """What messages call the model: its path or URL, or `test`."""
        return self.source or 'test'

    @property
    def is_huggingface(self) -> bool:
        """Whether the model is in a Hugging Face folder."""
        return self.folder is not None and is_huggingface(self.folder)

    def encoding(self) -> Encoding:
        """Return the model's encoding. ValueError if its vocabulary does not have `n_vocab` tokens.

        A folder without a vocabulary has GPT-2's, if it is a published model or `n_vocab` is the size of GPT-2's.
        """
        if self._encoding is None:
            self._encoding = self._read_encoding()
        return self._encoding

    def _read_encoding(self):
        if self.source is None:
            return test_encoding()
        is_gpt2s = storage.is_published(self.source) or self.hparams.n_vocab == MAIN_VOCABULARY
        encoding = load_encoding(self.folder, default='main' if is_gpt2s else None)
        if encoding.n_vocab != self.hparams.n_vocab:
            raise ValueError(
                f'{os.path.join(self.folder, "hparams.json")}: n_vocab is {self.hparams.n_vocab}, '
                f'but the vocabulary of the model has {encoding.n_vocab} tokens'
            )
        return encoding

    def load(
        self,
        session: tf.Session,
        model: Model,
        heads: Sequence[str] = (),
        extra: Optional[Dict[str, tf.Variable]] = None,
    ) -> List[tf.Variable]:
        """Set the variables of `model` to their values in the checkpoint.

        Args:
          heads: scalar heads that the checkpoint must have. The other heads of `model` keep their values.
          extra: further variables to set, by their names in the checkpoint below the scope.

        Returns:
          the variables that were set.

        Raises:
          ValueError: the checkpoint is damaged, or does not fit the sizes of the model.
        """
        if self.source is None:
            return self._load_random(session, model)
        reader = self._reader()
        path, shapes = reader.path, reader.shapes
        prefix = self._prefix(path, shapes)
        wanted = {
            prefix + 'model/' + name: variable
            for name, variable in model.variables.items()
            if not name.startswith('heads/') or name.split('/')[1] in heads
        }
        wanted.update((prefix + name, variable) for name, variable in (extra or {}).items())
        for name, variable in wanted.items():
            if name not in shapes:
                raise ValueError(f'{path}: the checkpoint has no variable {name}')
            if list(shapes[name]) != variable.shape.as_list():
                raise ValueError(
                    f'{path}: {name} has shape {list(shapes[name])}, '
                    f'but hparams.json asks for {variable.shape.as_list()}'
                )
        next_layer = f'{prefix}model/h{model.hparams.n_layer}/'
        if any(name.startswith(next_layer) for name in shapes):
            raise ValueError(f'{path}: the checkpoint has a layer {next_layer}, but n_layer is {model.hparams.n_layer}')
        names, variables = list(wanted), list(wanted.values())
        set_variables(session, variables, lambda i: reader.get(names[i]))
        return variables

    def scopes(self) -> List[str]:
        """Return the scope of each model in the checkpoint. It is '' in OpenAI's checkpoints."""
        names = self._reader().shapes
        return [prefix.rstrip('/') for prefix in _prefixes(names)]

    def arrays(self) -> Dict[str, np.ndarray]:
        """Return the values of the model's variables by name below the scope: `model/wte`, `model/heads/value/w`, …"""
        reader = self._reader()
        names = reader.shapes
        prefix = self._prefix(reader.path, names)
        ours = re.compile(r'(model/(wte|wpe|.+/[gbw])|reward_norm/(gain|bias))\Z')
        below = {name[len(prefix) :]: name for name in names if name.startswith(prefix)}
        return {name: reader.get(below[name]) for name in sorted(below) if ours.match(name)}

    def _reader(self) -> Union['CheckpointReader', FolderReader]:
        if self.is_huggingface:
            fetch_weights(self.source)
            return FolderReader(self.folder)
        return CheckpointReader(self._checkpoint or local_checkpoint(self.source))

    def _load_random(self, session, model):
        """Set random weights, the same for every model that loads this one: policy and reference start equal."""
        body = {name: variable for name, variable in model.variables.items() if not name.startswith('heads/')}
        if self._random is None:
            session.run([variable.initializer for variable in body.values()])
            self._random = session.run(body)
        names, variables = list(body), list(body.values())
        set_variables(session, variables, lambda i: self._random[names[i]])
        return variables

    def _prefix(self, path, shapes):
        """Return the prefix of the names in the checkpoint: `SAVESCOPE/`, or nothing in OpenAI's checkpoints."""
        found = _prefixes(shapes)
        for prefix in (self.savescope + '/', ''):
            if prefix in found:
                return prefix
        raise ValueError(
            f'{path}: no model under {self.savescope}/; the checkpoint has {", ".join(found) or "none at all"}'
        )


def _prefixes(names: Iterable[str]) -> List[str]:
    """Return what stands before `model/` in the names of a checkpoint, for each model in it."""
    return sorted(name[: -len('model/wte')] for name in names if name == 'model/wte' or name.endswith('/model/wte'))


class CheckpointReader:
    """Reads the variables of a checkpoint. A damaged checkpoint gives a ValueError of one line.

    Attributes:
      path: the prefix of the checkpoint's files.
      shapes: {name of a variable: its shape as a list}.
    """

    def __init__(self, path: str):
        self.path = path
        with self._short_errors():
            self._reader = tf.train.load_checkpoint(path)
            self.shapes = self._reader.get_variable_to_shape_map()

    def get(self, name: str) -> np.ndarray:
        """Return the value of a variable; half precision becomes float32.

        ValueError if it is not of a floating type, or not finite.
        """
        with self._short_errors():
            value = self._reader.get_tensor(name)
        if value.dtype.name in ('float16', 'bfloat16'):
            value = value.astype(np.float32)
        if not np.issubdtype(value.dtype, np.floating):
            raise ValueError(f'{self.path}: {name} is {value.dtype}: a variable of a model is float32')
        if not np.isfinite(value).all():
            raise ValueError(
                f'{self.path}: {name} has a value that is not finite: the model in this checkpoint is broken'
            )
        return value

    @contextlib.contextmanager
    def _short_errors(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, RuntimeError, LookupError, ValueError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(f'{self.path}: the checkpoint is damaged or incomplete: {reason}') from None


def find_model(name: str, savescope: str = 'policy') -> TrainedModel:
    """Return the language model called `name`. If `name` is a run folder, return the run's policy."""
    if name == 'test':
        return TrainedModel(None, savescope)
    if name in os.listdir(EMBEDDED_MODELS):
        return TrainedModel(os.path.join(EMBEDDED_MODELS, name), savescope)
    if name in PUBLISHED_MODELS:
        return TrainedModel(published_folder(name), savescope)
    return TrainedModel(model_folder(name, [savescope, 'model']), savescope)


def is_language_model(name: str) -> bool:
    """Return whether `name` is that of a language model, without reading it."""
    if name == 'test' or name in PUBLISHED_MODELS or name in os.listdir(EMBEDDED_MODELS):
        return True
    try:
        return bool(model_folder(name, ['policy', 'model']))
    except storage.NOT_THERE:
        return False


def find_reward_model(name: str) -> TrainedModel:
    """Return the reward model of the run folder or in the model folder `name`. `test` has random weights."""
    return TrainedModel(None if name == 'test' else model_folder(name, ['reward_model']), 'reward_model')


def check_vocabulary(encoding: Encoding, owner: str, models: Mapping[str, TrainedModel]) -> None:
    """Check that models read tokens of `encoding`, the vocabulary of `owner`, where models are used together.

    Args:
      owner: what has this vocabulary, for messages: 'the policy demo'.
      models: by what messages call them: 'the reward model runs/x'.

    UserError naming the first model with another vocabulary, in which the same tokens would be other texts.
    """
    for name, model in models.items():
        if not model.encoding().same_tokens(encoding):
            raise UserError(f'{name} reads another vocabulary than {owner}: use models of the same vocabulary')


def load_model_hparams(folder: str) -> ModelHParams:
    """Read a model's sizes from `hparams.json` in its folder."""
    return ModelHParams.from_json_file(os.path.join(folder, 'hparams.json'), required=SIZES)


def save_model_folder(folder: str, hparams: ModelHParams, encoding: Encoding) -> None:
    """Write the files of a model folder except for the checkpoint."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, 'hparams.json'), dataclasses.asdict(hparams))
    encoding.save(folder)
