"""Model folders: a checkpoint with its `hparams.json` and encoding, and how to find and load one.

A name is `test` (random weights, without files), `demo` (the embedded model), the name of a published GPT-2
(`124M` …), or a folder: a model's own, or that of a run which holds one. A folder is a path, gs://… or https://….
"""

import contextlib
import dataclasses
import os
import re
from typing import Dict, Iterable, Iterator, List, Optional, Sequence

import numpy as np

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.graph.variables import set_variables
from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import Encoding, load_encoding, test_encoding
from lm_human_preferences.language.model import Model
from lm_human_preferences.language.model_files import local_checkpoint, local_folder, model_folder
from lm_human_preferences.remote import storage
from lm_human_preferences.utils.files import write_json

EMBEDDED_MODELS = os.path.join(os.path.dirname(os.path.abspath(__file__)), 'embedded')  # a model folder each
PUBLISHED_MODELS = ('124M', '355M', '774M', '1558M')
SIZES = ('n_vocab', 'n_ctx', 'n_embd', 'n_head', 'n_layer')  # what every hparams.json must say


class TrainedModel:
    """A saved model; its `source` (path or URL) None stands for the built-in `test` model, whose weights are random."""

    def __init__(self, source: Optional[str], savescope: str = 'policy', checkpoint: Optional[str] = None):
        """`checkpoint`: the path prefix of one in the folder; None: the latest."""
        self.source = source
        self.folder = None if source is None else local_folder(source)
        self.savescope = savescope
        self._checkpoint = checkpoint
        self._random = None
        if source is None:
            self.hparams = ModelHParams(n_vocab=27, n_ctx=8, n_embd=7, n_head=1, n_layer=2)
        else:
            self.hparams = load_model_hparams(self.folder)

    def at(self, checkpoint: str) -> 'TrainedModel':
        """The same model as it is in another checkpoint of its folder."""
        return TrainedModel(self.source, self.savescope, checkpoint)

    def encoding(self) -> Encoding:
        """The model's vocabulary."""
        if self.source is None:
            return test_encoding()
        encoding = load_encoding(self.folder, default='main' if storage.is_published(self.source) else None)
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
        """Set the variables of `model` to the checkpoint's.

        Args:
          heads: scalar heads that must be in the checkpoint; other heads of `model` are left alone.
          extra: further variables by their names in the checkpoint below the scope.

        Returns:
          the variables that were set.
        """
        if self.source is None:
            return self._load_random(session, model)
        reader = CheckpointReader(self._path())
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
        beyond = f'{prefix}model/h{model.hparams.n_layer}/'
        if any(name.startswith(beyond) for name in shapes):
            raise ValueError(f'{path}: the checkpoint has a layer {beyond}, but n_layer is {model.hparams.n_layer}')
        names, variables = list(wanted), list(wanted.values())
        set_variables(session, variables, lambda i: reader.get(names[i]))
        return variables

    def scopes(self) -> List[str]:
        """What stands before `model/` in the checkpoint, for each model in it; '' in OpenAI's."""
        names = CheckpointReader(self._path()).shapes
        return [prefix.rstrip('/') for prefix in _prefixes(names)]

    def arrays(self) -> Dict[str, np.ndarray]:
        """The model's variables by their names below the scope: `model/wte`, `model/heads/value/w`, …"""
        reader = CheckpointReader(self._path())
        names = reader.shapes
        prefix = self._prefix(reader.path, names)
        ours = re.compile(r'(model/(wte|wpe|(h\d+/.*|ln_f|heads/[^/]+)/[gbw])|reward_norm/(gain|bias))\Z')
        below = {name[len(prefix) :]: name for name in names if name.startswith(prefix)}
        return {name: reader.get(below[name]) for name in sorted(below) if ours.match(name)}

    def _path(self) -> str:
        return self._checkpoint or local_checkpoint(self.source)

    def _load_random(self, session, model):
        """Random weights, the same for every model that loads them: policy and reference start alike."""
        body = {name: variable for name, variable in model.variables.items() if not name.startswith('heads/')}
        if self._random is None:
            session.run([variable.initializer for variable in body.values()])
            self._random = session.run(body)
        names, variables = list(body), list(body.values())
        set_variables(session, variables, lambda i: self._random[names[i]])
        return variables

    def _prefix(self, path, shapes):
        """What stands before `model/` in the checkpoint: a scope of ours, or nothing in OpenAI's."""
        found = _prefixes(shapes)
        for prefix in (self.savescope + '/', ''):
            if prefix in found:
                return prefix
        raise ValueError(
            f'{path}: no model under {self.savescope}/; the checkpoint has {", ".join(found) or "none at all"}'
        )


def _prefixes(names: Iterable[str]) -> List[str]:
    """What stands before `model/` in the checkpoint, for each model in it."""
    return sorted(name[: -len('model/wte')] for name in names if name == 'model/wte' or name.endswith('/model/wte'))


class CheckpointReader:
    """The variables of a checkpoint; ValueError in one line for a damaged one, whatever TensorFlow says then."""

    def __init__(self, path: str):
        """`path`: prefix of the files. `shapes` maps the variables' names to shapes (lists)."""
        self.path = path
        with self._damage_told():
            self._reader = tf.train.load_checkpoint(path)
            self.shapes = self._reader.get_variable_to_shape_map()

    def get(self, name: str) -> np.ndarray:
        """A variable's value."""
        with self._damage_told():
            return self._reader.get_tensor(name)

    @contextlib.contextmanager
    def _damage_told(self) -> Iterator[None]:
        try:
            yield
        except (tf.errors.OpError, RuntimeError, LookupError, ValueError) as error:
            reason = ' '.join(str(error).split())[:200]
            raise ValueError(f'{self.path}: the checkpoint is damaged or incomplete: {reason}') from None


def find_model(name: str, savescope: str = 'policy') -> TrainedModel:
    """The language model called `name`, or that of the policy in the run folder `name`."""
    if name == 'test':
        return TrainedModel(None, savescope)
    if name in os.listdir(EMBEDDED_MODELS):
        return TrainedModel(os.path.join(EMBEDDED_MODELS, name), savescope)
    if name in PUBLISHED_MODELS:
        return TrainedModel(storage.join(storage.MODELS, 'models', name), savescope)
    return TrainedModel(model_folder(name, [savescope, 'model']), savescope)


def find_reward_model(name: str) -> TrainedModel:
    """The reward model of the run folder `name`, or in the folder itself; `test`: one with random weights."""
    return TrainedModel(None if name == 'test' else model_folder(name, ['reward_model']), 'reward_model')


def load_model_hparams(folder: str) -> ModelHParams:
    """The model's sizes from `hparams.json` in its folder."""
    return ModelHParams.from_json_file(os.path.join(folder, 'hparams.json'), required=SIZES)


def save_model_folder(folder: str, hparams: ModelHParams, encoding: Encoding) -> None:
    """Write all of a model folder but the checkpoint."""
    os.makedirs(folder, exist_ok=True)
    write_json(os.path.join(folder, 'hparams.json'), dataclasses.asdict(hparams))
    encoding.save(folder)
