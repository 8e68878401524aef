"""Write GPT-2 as a Hugging Face folder: config.json, safetensors and a tokenizer. `language` reads such folders."""

import os
from typing import Any, Dict

import numpy as np
from safetensors.numpy import save as safetensors_bytes

from lm_human_preferences.language.encodings import VOCABULARY_FILES
from lm_human_preferences.language.huggingface_models import (
    CONFIG_FILE,
    FIXED,
    HEADS_FILE,
    RATES,
    SCOPE,
    PortableModel,
    their_name,
)
from lm_human_preferences.language.model import variable_shapes
from lm_human_preferences.language.tensor_files import WEIGHTS_FILE
from lm_human_preferences.utils.files import write_json, written_whole


def save(folder: str, model: PortableModel) -> None:
    """Write a model, which `check_model` has checked, as a Hugging Face folder. OSError if a file cannot be written."""
    os.makedirs(folder, exist_ok=True)
    weights = {}
    for name in variable_shapes(model.hparams):
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
    for ours, theirs in VOCABULARY_FILES.items():
        if os.path.exists(os.path.join(folder, ours)):
            os.replace(os.path.join(folder, ours), os.path.join(folder, theirs))
    write_json(
        os.path.join(folder, 'tokenizer_config.json'),
        {'tokenizer_class': 'GPT2Tokenizer', 'model_max_length': model.hparams.n_ctx},
    )


def _contiguous(array: np.ndarray) -> np.ndarray:
    return np.asarray(array, order='C')  # np.ascontiguousarray would turn a number into a vector


def _write_tensors(path: str, tensors: Dict[str, np.ndarray], metadata: Dict[str, str]) -> None:
    with written_whole(path, 'wb') as file:
        file.write(safetensors_bytes(tensors, metadata))


def _config(model: PortableModel) -> Dict[str, Any]:
    hparams, end = model.hparams, model.encoding.eot_token
    config = {name: values[0] for name, values in FIXED.items()}
    config.update({name: getattr(hparams, name) for name in ('n_embd', 'n_head', 'n_layer', 'n_ctx', *RATES)})
    config.update(architectures=['GPT2LMHeadModel'], vocab_size=hparams.n_vocab, n_positions=hparams.n_ctx)
    return dict(config, n_inner=None, bos_token_id=end, eos_token_id=end, torch_dtype='float32')
