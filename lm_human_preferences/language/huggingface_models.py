"""Read GPT-2 from a Hugging Face folder: config.json, safetensors and a tokenizer.

The transformer's variables have the same layout in both formats, so they are copied bit for bit. A `GPT2LMHeadModel`
has no scalar heads and no reward normalization. Ours are in a file of their own, `heads.safetensors`.
"""

import dataclasses
import functools
import os
import re
from typing import Any, Dict, Iterable, List, NamedTuple, Sequence, Tuple

import numpy as np
from safetensors import safe_open

from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import Encoding
from lm_human_preferences.language.model import variable_shapes
from lm_human_preferences.language.tensor_files import check_num_layers, check_tensors, read_tensors, weights_files
from lm_human_preferences.language.tokenizers import read_tokenizer
from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.hyperparams import UnsetError
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.progress import note

CONFIG_FILE = 'config.json'
HEADS_FILE = 'heads.safetensors'
SCOPE = 'savescope'  # in the metadata of HEADS_FILE: the scope of the names in our checkpoint
MOST_PADDING = 1024  # rows without a token; more, and the tokenizer is probably that of another model
_PREFIX = 'transformer.'
_MASK = re.compile(r'h\.\d+\.attn\.(bias|masked_bias)\Z')  # the attention masks of old folders, not learned
# Heads of classes such as GPT2ForSequenceClassification (`score`) and of the library TRL (`v_head`).
_OTHER_HEADS = ('score', 'v_head', 'classifier', 'qa_outputs', 'multiple_choice_head')
_VARIABLES = {'g': 'weight', 'w': 'weight', 'b': 'bias'}  # our name -> their name
# Settings that are fixed in our model, with the values that we accept. The first value is the one we write.
FIXED = {
    'model_type': ['gpt2'],
    'activation_function': ['gelu_new', 'gelu_pytorch_tanh'],
    'layer_norm_epsilon': [1e-5],
    'scale_attn_weights': [True],
    'scale_attn_by_inverse_layer_idx': [False],
    'reorder_and_upcast_attn': [False],
    'add_cross_attention': [False],
    'tie_word_embeddings': [True],
}
_THEIR_NAMES = {'n_vocab': 'vocab_size', 'n_ctx': 'n_positions'}
_THEIR_SIZES = re.compile(r'\b(n_vocab|n_ctx)\b')
RATES = ['embd_pdrop', 'attn_pdrop', 'resid_pdrop']


class PortableModel(NamedTuple):
    """A model independent of its format."""

    hparams: ModelHParams
    encoding: Encoding
    arrays: Dict[str, np.ndarray]  # by the names of our checkpoints below the scope: `model/wte`, `reward_norm/gain`
    savescope: str  # scope of the names in our checkpoint; '' as in OpenAI's checkpoints
    notes: Sequence[str] = ()  # what was left out when the model was read, a line each


class Sizes(NamedTuple):
    """What the files of a folder beside its weights say."""

    hparams: ModelHParams  # as in config.json
    encoding: Encoding
    notes: Sequence[str]  # what is left out, a line each

    @property
    def cut(self) -> ModelHParams:
        """The sizes of the model without the rows that are left out."""
        return dataclasses.replace(self.hparams, n_vocab=self.encoding.n_vocab)


def their_name(name: str) -> str:
    """Return the name of a variable in a `GPT2Model`: h0/attn/c_attn/w → h.0.attn.c_attn.weight."""
    if name in ('wte', 'wpe'):
        return f'{name}.weight'
    *path, variable = name.split('/')
    path = [f'h.{step[1:]}' if step[0] == 'h' and step[1:].isdigit() else step for step in path]
    return '.'.join([*path, _VARIABLES[variable]])


def is_huggingface(folder: str) -> bool:
    """Return whether a local folder is a Hugging Face folder, and not a model folder of ours."""
    has_config = os.path.exists(os.path.join(folder, CONFIG_FILE))
    return has_config and not os.path.exists(os.path.join(folder, 'hparams.json'))


def read_sizes(folder: str) -> Sizes:
    """Read config.json and the tokenizer. ValueError naming file or folder if they are not those of OpenAI's GPT-2."""
    path = os.path.join(folder, CONFIG_FILE)
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f'{path} should hold a JSON object, not {type(config).__name__}')
    hparams = _hparams(config, path)
    encoding, left_out = read_tokenizer(folder)
    beyond = hparams.n_vocab - encoding.n_vocab
    if beyond < 0 or beyond > len(left_out) + MOST_PADDING:
        raise ValueError(
            f'{folder}: {CONFIG_FILE} has vocab_size {hparams.n_vocab}, but the tokenizer {encoding.n_vocab} tokens'
        )
    notes = []
    if beyond:
        rows = f'the last {beyond} rows of the embeddings' if beyond > 1 else 'the last row of the embeddings'
        added = f' ({", ".join(map(short, left_out[:10]))})' if left_out else ''
        notes.append(f'{folder}: {rows} left out: beyond the vocabulary of {encoding.n_vocab}{added}, so never sampled')
    return Sizes(hparams, encoding, notes)


def load(folder: str) -> PortableModel:
    """Read a Hugging Face folder. ValueError naming file or folder if its model differs from OpenAI's GPT-2.

    Embeddings may have more rows than the vocabulary: for added tokens, or padded to a round number. Such a row is no
    token of a text. It is cut, so that it is never sampled. The `notes` of the model name the tensors and tokens that
    are left out.
    """
    sizes = read_sizes(folder)
    notes = []
    arrays = _body(folder, sizes.hparams, notes)
    heads, savescope = _heads(os.path.join(folder, HEADS_FILE), sizes.hparams)
    arrays.update(heads)
    arrays['model/wte'] = arrays['model/wte'][: sizes.encoding.n_vocab]
    return PortableModel(sizes.cut, sizes.encoding, arrays, savescope, [*notes, *sizes.notes])


class FolderReader:
    """Reads the variables of a Hugging Face folder by the names that they would have in our checkpoint.

    Attributes:
      path: the folder.
      shapes: {name of a variable: its shape as a list}.
    """

    def __init__(self, folder: str):
        model = load(folder)
        for line in model.notes:
            _note_once(line)
        prefix = f'{model.savescope}/' if model.savescope else ''
        self.path = folder
        self._arrays = {prefix + name: array for name, array in model.arrays.items()}
        self.shapes = {name: list(array.shape) for name, array in self._arrays.items()}

    def get(self, name: str) -> np.ndarray:
        """Return the value of a variable."""
        return self._arrays[name]


@functools.lru_cache(maxsize=None)  # a model is read for the policy, for its reference and for a reward model
def _note_once(line: str) -> None:
    note(f'note: {line}')


def check_model(place: str, model: PortableModel) -> None:
    """Raise ValueError naming `place` unless a model has all arrays of its sizes and no other, and all are finite."""
    check_num_layers(place, list(model.arrays), model.hparams.n_layer, 'n_layer')
    shapes = {f'model/{name}': shape for name, shape in variable_shapes(model.hparams).items()}
    shapes.update(_head_shapes(model.arrays, model.hparams))
    check_tensors(place, model.arrays, shapes, 'a model of the sizes in its hparams.json')


def _hparams(config: Dict[str, Any], path: str) -> ModelHParams:
    for name, allowed in FIXED.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(f'{path}: {name} is {short(config[name])}, and only {allowed[0]!r} is read')
    values = dict(n_vocab=config.get('vocab_size'), n_ctx=config.get('n_positions', config.get('n_ctx')))
    values.update({name: config.get(name) for name in ('n_embd', 'n_head', 'n_layer')})
    values.update({name: config[name] for name in RATES if name in config})
    hparams = ModelHParams()
    try:
        hparams.override_from_dict(values)
        hparams.validate()
    except (TypeError, ValueError) as error:
        message = error.in_file() if isinstance(error, UnsetError) else str(error)
        raise ValueError(f'{path}: {_THEIR_SIZES.sub(lambda name: _THEIR_NAMES[name.group()], message)}') from None
    if config.get('n_inner') not in (None, 4 * hparams.n_embd):
        raise ValueError(f'{path}: n_inner is {short(config["n_inner"])}, and only 4 * n_embd is read')
    return hparams


def _body(folder: str, hparams: ModelHParams, notes: List[str]) -> Dict[str, np.ndarray]:
    """Return the transformer's arrays by our names. A note names the heads of other classes than GPT2LMHeadModel."""
    tensors, place_of = {}, {}
    for path in weights_files(folder):
        for name, array in read_tensors(path).items():
            name = name[len(_PREFIX) :] if name.startswith(_PREFIX) else name
            if name in tensors:
                raise ValueError(f'{path}: {name} is given twice, also in {place_of[name]}')
            if not _MASK.match(name):
                tensors[name], place_of[name] = array, path
    place = path if len(set(place_of.values())) == 1 else folder
    left_out = [name for name in tensors if name.split('.')[0] in _OTHER_HEADS]
    if left_out:
        notes.append(
            f'{place}: {", ".join(left_out)} left out: only the language model and our {HEADS_FILE} are converted'
        )
    names = [name for name in tensors if name != 'lm_head.weight' and name not in left_out]
    check_num_layers(place, names, hparams.n_layer, f'n_layer in {CONFIG_FILE}')
    ours = {their_name(name): name for name in variable_shapes(hparams)}
    shapes = {
        theirs: shape[1:] if ours[theirs].endswith('/w') else shape
        for theirs, shape in zip(ours, variable_shapes(hparams).values())
    }
    checked = check_tensors(place, {name: tensors[name] for name in names}, shapes, f'the GPT-2 of {CONFIG_FILE}')
    head = tensors.get('lm_head.weight')
    if head is not None and not np.array_equal(head, tensors['wte.weight']):
        raise ValueError(f'{place}: lm_head.weight differs from wte.weight: only tied output embeddings are read')
    return {
        f'model/{ours[theirs]}': array[np.newaxis] if ours[theirs].endswith('/w') else array
        for theirs, array in checked.items()
    }


def _heads(path: str, hparams: ModelHParams) -> Tuple[Dict[str, np.ndarray], str]:
    """Return the scalar heads and the reward normalization in the file `path`, and their scope; ({}, '') without it."""
    if not os.path.exists(path):
        return {}, ''
    tensors = read_tensors(path)
    with safe_open(path, 'numpy') as file:
        savescope = (file.metadata() or {}).get(SCOPE, '')
    if not re.match(r'([A-Za-z0-9.][\w./-]*)?\Z', savescope, re.ASCII):
        raise ValueError(f'{path}: its {SCOPE} {short(savescope)} cannot be a scope')
    return check_tensors(path, tensors, _head_shapes(tensors, hparams), 'a file of heads'), savescope


def _head_shapes(names: Iterable[str], hparams: ModelHParams) -> Dict[str, List[int]]:
    """Return the shapes of the heads and of the reward normalization among `names`, each of which has two arrays."""
    matches = [re.match(r'model/heads/([\w.-]+)/[^/]*\Z', name, re.ASCII) for name in names]
    shapes = {}
    for head in sorted({match.group(1) for match in matches if match}):
        shapes.update({f'model/heads/{head}/w': [hparams.n_embd], f'model/heads/{head}/b': []})
    if any(name.startswith('reward_norm/') for name in names):
        shapes.update({'reward_norm/bias': [], 'reward_norm/gain': []})
    return shapes
