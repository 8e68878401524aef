"""Read and write GPT-2 as a Hugging Face folder: config.json, safetensors and a tokenizer.

The transformer's variables have the same layout in both formats, so they are copied bit for bit. A `GPT2LMHeadModel`
has no scalar heads and no reward normalization. These are in a file of their own, `heads.safetensors`.
"""

import glob
import os
from typing import Any, Dict, List, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open
from safetensors.numpy import load_file
from safetensors.numpy import save as safetensors_bytes

from lm_human_preferences.hyperparameters import ModelHParams
from lm_human_preferences.language.encodings import (
    ENCODER_FILE,
    END_OF_TEXT,
    MERGES_FILE,
    Encoding,
    check_encoder,
    name_of_vocabulary,
)
from lm_human_preferences.language.encodings import test_encoding as letters
from lm_human_preferences.utils.files import write_json, written_whole
from lm_human_preferences.utils.json_files import read_json

CONFIG_FILE = 'config.json'
WEIGHTS_FILE = 'model.safetensors'
HEADS_FILE = 'heads.safetensors'
SCOPE = 'savescope'  # in the metadata of HEADS_FILE: the scope of the names in our checkpoint
_TOKENIZER_FILES = {ENCODER_FILE: 'vocab.json', MERGES_FILE: 'merges.txt'}  # our name -> their name
_VARIABLES = {'g': 'weight', 'w': 'weight', 'b': 'bias'}  # our name -> their name
# Settings that are fixed in our model, with the values that we accept. We write the first value.
_FIXED = {
    'model_type': ['gpt2'],
    'activation_function': ['gelu_new', 'gelu_pytorch_tanh'],
    'layer_norm_epsilon': [1e-5],
    'scale_attn_weights': [True],
    'scale_attn_by_inverse_layer_idx': [False],
    'add_cross_attention': [False],
    'tie_word_embeddings': [True],
}
_RATES = ['embd_pdrop', 'attn_pdrop', 'resid_pdrop']


class PortableModel(NamedTuple):
    """A model independent of its format."""

    hparams: ModelHParams
    encoding: Encoding
    arrays: Dict[str, np.ndarray]  # by the names of our checkpoints below the scope: `model/wte`, `reward_norm/gain`
    savescope: str  # scope of the names in our checkpoint; '' as in OpenAI's checkpoints


def body_names(n_layer: int) -> List[str]:
    """Return the names of a transformer's variables in our checkpoints, below `model/`."""
    names = ['wte', 'wpe']
    for layer in range(n_layer):
        names += [f'h{layer}/{norm}/{variable}' for norm in ('ln_1', 'ln_2') for variable in 'gb']
        names += [
            f'h{layer}/{linear}/{variable}'
            for linear in ('attn/c_attn', 'attn/c_proj', 'mlp/c_fc', 'mlp/c_proj')
            for variable in 'wb'
        ]
    return [*names, 'ln_f/g', 'ln_f/b']


def their_name(name: str) -> str:
    """Return the name of a variable in a `GPT2Model`: h0/attn/c_attn/w → h.0.attn.c_attn.weight."""
    if name in ('wte', 'wpe'):
        return f'{name}.weight'
    *path, variable = name.split('/')
    path = [f'h.{step[1:]}' if step[0] == 'h' and step[1:].isdigit() else step for step in path]
    return '.'.join([*path, _VARIABLES[variable]])


def save(folder: str, model: PortableModel) -> None:
    """Write a model as a Hugging Face folder. OSError if a file cannot be written."""
    os.makedirs(folder, exist_ok=True)
    weights = {}
    for name in body_names(model.hparams.n_layer):
        array = model.arrays[f'model/{name}']
        weights['transformer.' + their_name(name)] = _contiguous(array[0] if name.endswith('/w') else array)
    _write_tensors(os.path.join(folder, WEIGHTS_FILE), weights, {'format': 'pt'})
    heads = {
        name: _contiguous(array)
        for name, array in model.arrays.items()
        if name.startswith(('model/heads/', 'reward_norm/'))
    }
    if heads:
        _write_tensors(os.path.join(folder, HEADS_FILE), heads, {SCOPE: model.savescope})
    write_json(os.path.join(folder, CONFIG_FILE), _config(model))
    model.encoding.save(folder)
    for ours, theirs in _TOKENIZER_FILES.items():
        if os.path.exists(os.path.join(folder, ours)):
            os.replace(os.path.join(folder, ours), os.path.join(folder, theirs))
    write_json(
        os.path.join(folder, 'tokenizer_config.json'),
        {'tokenizer_class': 'GPT2Tokenizer', 'model_max_length': model.hparams.n_ctx},
    )


def load(folder: str) -> PortableModel:
    """Read a Hugging Face folder. ValueError naming file or folder if its model differs from OpenAI's GPT-2."""
    path = os.path.join(folder, CONFIG_FILE)
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f'{path} should hold a JSON object, not {type(config).__name__}')
    hparams = _hparams(config, path)
    weights = _weights(folder)
    arrays = {}
    for name in body_names(hparams.n_layer):
        theirs = their_name(name)
        array = weights.get(f'transformer.{theirs}', weights.get(theirs))
        if array is None:
            raise ValueError(f'{folder}: no tensor {theirs}')
        arrays[f'model/{name}'] = array[np.newaxis] if name.endswith('/w') else array
    head = weights.get('lm_head.weight')
    if head is not None and not np.array_equal(head, arrays['model/wte']):
        raise ValueError(f'{folder}: lm_head.weight differs from wte.weight: only tied output embeddings are read')
    savescope = ''
    path = os.path.join(folder, HEADS_FILE)
    if os.path.exists(path):
        arrays.update(load_file(path))
        with safe_open(path, 'numpy') as file:
            savescope = (file.metadata() or {}).get(SCOPE, '')
    encoding = _encoding(folder)
    if encoding.n_vocab != hparams.n_vocab:
        raise ValueError(
            f'{folder}: {CONFIG_FILE} has vocab_size {hparams.n_vocab}, but the tokenizer {encoding.n_vocab} tokens'
        )
    return PortableModel(hparams, encoding, arrays, savescope)


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, order='C')  # np.ascontiguousarray would turn a number into a vector


def _write_tensors(path: str, tensors: Dict[str, np.ndarray], metadata: Dict[str, str]) -> None:
    with written_whole(path, 'wb') as file:
        file.write(safetensors_bytes(tensors, metadata))


def _config(model: PortableModel) -> Dict[str, Any]:
    hparams, end = model.hparams, model.encoding.eot_token
    config = {name: values[0] for name, values in _FIXED.items()}
    config.update({name: getattr(hparams, name) for name in ('n_embd', 'n_head', 'n_layer', 'n_ctx', *_RATES)})
    config.update(architectures=['GPT2LMHeadModel'], vocab_size=hparams.n_vocab, n_positions=hparams.n_ctx)
    return dict(config, n_inner=None, bos_token_id=end, eos_token_id=end, torch_dtype='float32')


def _hparams(config: Dict[str, Any], path: str) -> ModelHParams:
    for name, allowed in _FIXED.items():
        if config.get(name, allowed[0]) not in allowed:
            raise ValueError(f'{path}: {name} is {config[name]!r}, and only {allowed[0]!r} is read')
    values = dict(n_vocab=config.get('vocab_size'), n_ctx=config.get('n_positions', config.get('n_ctx')))
    values.update({name: config.get(name) for name in ('n_embd', 'n_head', 'n_layer')})
    values.update({name: config[name] for name in _RATES if name in config})
    if config.get('n_inner') not in (None, 4 * (config.get('n_embd') or 0)):
        raise ValueError(f'{path}: n_inner is {config["n_inner"]}, and only 4 * n_embd is read')
    hparams = ModelHParams()
    try:
        hparams.override_from_dict(values)
        hparams.validate()
    except (TypeError, ValueError) as error:
        raise ValueError(f'{path}: {error}') from None
    return hparams


def _weights(folder: str) -> Dict[str, np.ndarray]:
    """Return all tensors of the folder in float32. A large model is in several files."""
    paths = sorted(glob.glob(os.path.join(glob.escape(folder), 'model*.safetensors')))
    if not paths:
        raise FileNotFoundError(f'{folder}: no {WEIGHTS_FILE}: save the model with safe_serialization=True')
    weights = {}
    for path in paths:
        try:
            loaded = load_file(path)
        except (SafetensorError, KeyError, TypeError, AttributeError) as error:  # numpy has no bfloat16
            raise ValueError(f'{path}: cannot be read ({error}): save the model in float32') from None
        for name, array in loaded.items():
            if array.dtype not in (np.float16, np.float32, np.float64):
                continue  # the attention masks of old folders
            weights[name] = array.astype(np.float32, copy=False)
    return weights


def _encoding(folder: str) -> Encoding:
    """Read the tokenizer: vocab.json and merges.txt, or tokenizer.json, the only file in newer folders."""
    name_file = os.path.join(folder, 'encoding')  # from `save`
    name = read_json(name_file) if os.path.exists(name_file) else None
    vocab, merges = (os.path.join(folder, file) for file in _TOKENIZER_FILES.values())
    whole = os.path.join(folder, 'tokenizer.json')
    if name == 'test':
        return letters()
    if os.path.exists(vocab) and os.path.exists(merges):
        encoding = Encoding.from_files('own', vocab, merges)
    elif os.path.exists(whole):
        encoding = _from_tokenizer_json(whole)
    else:
        raise FileNotFoundError(f'{folder}: no tokenizer: neither vocab.json and merges.txt nor tokenizer.json')
    encoding.name = name or name_of_vocabulary(encoding)
    return encoding


def _from_tokenizer_json(path: str) -> Encoding:
    content = read_json(path)
    try:
        bpe = content['model']
        encoder = dict(bpe['vocab'])
        encoder.update((token['content'], token['id']) for token in content.get('added_tokens', []))
        merges = [tuple(pair.split(' ')) if isinstance(pair, str) else tuple(pair) for pair in bpe['merges']]
    except (KeyError, TypeError, ValueError, AttributeError):
        raise ValueError(f'{path}: not a byte-level BPE tokenizer such as GPT-2 has') from None
    if END_OF_TEXT not in encoder and (content.get('pre_tokenizer') or {}).get('type') != 'ByteLevel':
        raise ValueError(f'{path}: not a byte-level BPE tokenizer such as GPT-2 has')
    check_encoder(path, encoder)
    return Encoding('own', encoder, merges)
