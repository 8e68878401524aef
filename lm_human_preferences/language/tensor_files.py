"""Read the tensors of a Hugging Face folder, and compare them with the sizes of a model.

Nothing is passed over silently: a tensor that a model has no place for is an error here.
"""

import glob
import json
import os
import re
from typing import Dict, List, Optional, Sequence

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.json_files import read_json

WEIGHTS_FILE = 'model.safetensors'
INDEX_FILE = 'model.safetensors.index.json'  # of a model in several files
PYTORCH_FILES = ('pytorch_model.bin', 'pytorch_model.bin.index.json')  # pickled, perhaps in several files
_SHARD = re.compile(r'model-(\d+)-of-(\d+)\.safetensors\Z')
_LAYER = re.compile(r'(?:^|[./])h[.]?(\d+)[./]')  # h.3.ln_1.weight, model/h3/ln_1/g
_READABLE = ('BOOL', 'U8', 'I8', 'U16', 'I16', 'U32', 'I32', 'U64', 'I64', 'F16', 'F32', 'F64')  # numpy's types
_FLOATS = (np.float16, np.float32, np.float64)


def weights_files(folder: str) -> List[str]:
    """Return the paths of the files that hold a model's weights: one, or several that an index or their names list.

    FileNotFoundError naming the first file that is missing. ValueError for an index that is not in its format.
    """
    if os.path.exists(os.path.join(folder, WEIGHTS_FILE)):
        return [os.path.join(folder, WEIGHTS_FILE)]
    index = os.path.join(folder, INDEX_FILE)
    if os.path.exists(index):
        names, listed_in = indexed_files(index), INDEX_FILE
    else:
        found = sorted(os.path.basename(p) for p in glob.glob(os.path.join(glob.escape(folder), 'model-*.safetensors')))
        matches = [_SHARD.match(name) for name in found]
        if not found or not all(matches):
            there = [name for name in PYTORCH_FILES if os.path.exists(os.path.join(folder, name))]
            raise no_weights(folder, there[0] if there else None)
        width, total = len(matches[0].group(1)), matches[0].group(2)
        names = [f'model-{number:0{width}}-of-{total}.safetensors' for number in range(1, min(int(total), 10**4) + 1)]
        names, listed_in = sorted({*names, *found}), 'the name of the others'
    for name in names:
        if not os.path.exists(os.path.join(folder, name)):
            raise FileNotFoundError(f'{folder}: {name} is missing, one of {len(names)} files by {listed_in}: fetch it')
    return [os.path.join(folder, name) for name in names]


def no_weights(folder: str, pickled: Optional[str] = None) -> FileNotFoundError:
    """Return the error for a folder without safetensors.

    Args:
      pickled: the file of PyTorch's own format that is there instead, if there is one.
    """
    if pickled is None:
        return FileNotFoundError(f'{folder}: no {WEIGHTS_FILE}: save the model with safe_serialization=True')
    return FileNotFoundError(
        f'{folder}: no {WEIGHTS_FILE}: {pickled} is not read, as it could run code. Write the model anew with '
        f'transformers: AutoModelForCausalLM.from_pretrained(…).save_pretrained(FOLDER), and its tokenizer'
    )


def indexed_files(index: str) -> List[str]:
    """Return the names of the files that an index of shards lists. ValueError if it is not in its format."""
    content = read_json(index)
    names = content.get('weight_map') if isinstance(content, dict) else None
    if not isinstance(names, dict) or not names or not all(isinstance(name, str) for name in names.values()):
        raise ValueError(f'{index}: should hold an object weight_map, of tensors and their files')
    for name in names.values():
        if os.path.basename(name) != name or not name:
            raise ValueError(f'{index}: {short(name)} is no name of a file in the folder')
    return sorted(set(names.values()))


def read_tensors(path: str) -> Dict[str, np.ndarray]:
    """Return the tensors of a safetensors file. ValueError naming the file, and what is wrong with it."""
    _check_file(path)
    try:
        return load_file(path)
    except (SafetensorError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise ValueError(f'{path}: cannot be read: {error}') from None


def _check_file(path: str) -> None:
    """Raise ValueError if a file is cut off, a pointer of git-lfs, of another kind, or has types that numpy has not."""
    size = os.path.getsize(path)
    with open(path, 'rb') as file:
        start = file.read(9)
        if start == b'version h':
            raise ValueError(f'{path}: a git-lfs pointer, not the weights: run `git lfs pull` in that folder')
        length = int.from_bytes(start[:8], 'little')
        if start[8:] != b'{' or length > 10**8:
            raise ValueError(f'{path}: cannot be read: not a safetensors file')
        if 8 + length > size:
            raise ValueError(f'{path}: cut off after {size} bytes, in its header: fetch it again')
        file.seek(8)
        try:
            header = json.loads(file.read(length).decode('utf-8'))
            stored = {name: tensor for name, tensor in header.items() if name != '__metadata__'}
            whole = 8 + length + max([tensor['data_offsets'][1] for tensor in stored.values()] + [0])
            odd = [(name, tensor['dtype']) for name, tensor in stored.items() if tensor['dtype'] not in _READABLE]
        except (ValueError, TypeError, KeyError, IndexError, AttributeError, RecursionError):
            raise ValueError(f'{path}: cannot be read: its header is not that of a safetensors file') from None
    if size < whole:
        raise ValueError(f'{path}: cut off: it has {size} bytes of {whole}: fetch it again')
    for name, dtype in odd:
        raise ValueError(f'{path}: {short(name)} is {dtype}, which cannot be read: save the model in float32')


def check_tensors(
    place: str, tensors: Dict[str, np.ndarray], shapes: Dict[str, Sequence[int]], sizes: str = 'the model'
) -> Dict[str, np.ndarray]:
    """Return tensors in float32, in the order of `shapes`. There must be one for each of `shapes`, and no other.

    Args:
      place: the file or folder of the tensors, for messages.
      sizes: what asks for these shapes, for messages.

    ValueError naming place and tensor if one is missing, too many, of another shape or type, or not finite.
    """
    for name in shapes:
        if name not in tensors:
            raise ValueError(f'{place}: no tensor {name}')
    for name in tensors:
        if name not in shapes:
            raise ValueError(f'{place}: the tensor {short(name)} has no place in {sizes}')
    checked = {}
    for name, shape in shapes.items():
        tensor = tensors[name]
        if tensor.dtype not in _FLOATS:
            raise ValueError(f'{place}: {name} is {tensor.dtype}, and only float16, float32 and float64 are read')
        if list(tensor.shape) != list(shape):
            raise ValueError(f'{place}: {name} has shape {list(tensor.shape)}, but {sizes} asks for {list(shape)}')
        with np.errstate(over='ignore'):
            checked[name] = tensor.astype(np.float32, copy=False)
        if not np.isfinite(checked[name]).all():
            raise ValueError(f'{place}: {name} has a value that is not finite in float32: the model is broken')
    return checked


def check_num_layers(place: str, names: Sequence[str], n_layer: int, sizes: str) -> None:
    """Raise ValueError unless the tensors `names` are of `n_layer` layers. Call it before shapes are computed."""
    layers = [int(match.group(1)[:9]) for match in map(_LAYER.search, names) if match]
    if max(layers, default=-1) + 1 != n_layer:
        raise ValueError(f'{place}: the weights have {max(layers, default=-1) + 1} layers, but {sizes} is {n_layer}')
