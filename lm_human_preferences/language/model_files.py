"""Find the files of a model folder, and fetch them if the folder is remote.

A model folder holds `hparams.json`, perhaps `encoding`, `encoder.json` and `vocab.bpe`, and a checkpoint. The
checkpoint is in its folder `checkpoints` or, in OpenAI's folders, beside the other files. A Hugging Face folder holds
`config.json`, a tokenizer and safetensors. Files are fetched by name: any web server can hold a model, even one that
does not list its folders.
"""

import os
from typing import Optional, Sequence

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.encodings import ENCODER_FILE, HUB_COPY, MERGES_FILE, VOCABULARY_FILES
from lm_human_preferences.language.huggingface_models import CONFIG_FILE, HEADS_FILE
from lm_human_preferences.language.tensor_files import (
    INDEX_FILE,
    PYTORCH_FILES,
    WEIGHTS_FILE,
    indexed_files,
    no_weights,
)
from lm_human_preferences.language.tokenizers import ADDED_FILE, TOKENIZER_FILE
from lm_human_preferences.remote import hub, storage
from lm_human_preferences.remote.failures import RemoteError
from lm_human_preferences.runs.checkpoints import latest_checkpoint
from lm_human_preferences.runs.run_folder import CHECKPOINTS
from lm_human_preferences.utils.files import read_text

SIZES_FILE = 'hparams.json'
# The models of OpenAI, with the repositories of the hub that hold copies of them.
PUBLISHED_MODELS = {
    '124M': HUB_COPY,
    '355M': 'hf://openai-community/gpt2-medium',
    '774M': 'hf://openai-community/gpt2-large',
    '1558M': 'hf://openai-community/gpt2-xl',
}


def published_folder(name: str) -> str:
    """Return the URL of one of PUBLISHED_MODELS: in the bucket, or its copy on the hub if the bucket does not have it.

    RemoteError that names all places if none of them has it.
    """
    bucket = storage.join(storage.MODELS, 'models', name)
    try:
        storage.local_file(storage.join(bucket, SIZES_FILE))
        return bucket
    except RemoteError as error:
        copy = PUBLISHED_MODELS[name]
        storage.copy_on_hub(storage.join(copy, CONFIG_FILE), error, name)
        return copy


def model_folder(path: str, subfolders: Sequence[str]) -> str:
    """Return the path or URL of a model folder: the first of the `subfolders` of `path` that is one, else `path`.

    `path` may also be a Hugging Face folder. FileNotFoundError if none of them is a model folder. If `path` is remote,
    the error is that of its server.
    """
    path = storage.expanded(path)
    folders = [storage.join(path, name) for name in subfolders] + [path]
    failures = []
    for folder, file in [*((folder, SIZES_FILE) for folder in folders), (path, CONFIG_FILE)]:
        try:
            storage.local_file(storage.join(folder, file))
            return folder
        except storage.NOT_THERE as error:
            failures.append(error)
    if storage.is_remote(path):
        where = f'no model in {path}, nor in {" or ".join(subfolders)} there'
        raise type(failures[-2])(f'{where}: neither {SIZES_FILE} nor {CONFIG_FILE}: {failures[-2]}')
    raise FileNotFoundError(f'no model at {path}: {SIZES_FILE} is in none of {", ".join(folders)}')


def local_folder(folder: str) -> str:
    """Return a local folder with the sizes and the encoding of a model. Its checkpoint may not be fetched yet."""
    if not storage.is_remote(folder):
        return folder
    sizes = _fetch_if_there(folder, SIZES_FILE)
    if sizes is None:
        return _local_huggingface(folder)
    local = os.path.dirname(sizes)
    if storage.is_published(folder):  # all published models share one vocabulary
        return local
    name = None
    if _fetch_if_there(folder, 'encoding'):
        name = read_text(os.path.join(local, 'encoding')).strip().strip('"')
    for file in (ENCODER_FILE, MERGES_FILE):
        if name == 'own':
            storage.local_file(storage.join(folder, file))
        elif name is None:
            _fetch_if_there(folder, file)
    return local


def _local_huggingface(folder: str) -> str:
    """Return a local folder with config.json and the tokenizer of a remote Hugging Face folder."""
    local = os.path.dirname(storage.local_file(storage.join(folder, CONFIG_FILE)))
    _fetch_if_there(folder, 'encoding')
    if all(_fetch_if_there(folder, name) for name in VOCABULARY_FILES.values()):
        _fetch_if_there(folder, ADDED_FILE)
    else:
        _fetch_if_there(folder, TOKENIZER_FILE)
    return local


def fetch_weights(folder: str) -> None:
    """Fetch the weights of a Hugging Face folder if it is remote. FileNotFoundError if it has no safetensors."""
    if not storage.is_remote(folder):
        return
    if not _fetch_if_there(folder, WEIGHTS_FILE):
        index = _fetch_if_there(folder, INDEX_FILE)
        if index is None:
            raise no_weights(folder, _pickled_weights(folder))
        for name in indexed_files(index):
            storage.local_file(storage.join(folder, name))
    _fetch_if_there(folder, HEADS_FILE)


def _pickled_weights(folder: str) -> Optional[str]:
    """Return the name of PyTorch's own file in a folder on the hub, without fetching it. None if it is not known."""
    try:
        return hub.is_hub(folder) and os.path.basename(storage.matching(storage.join(folder, PYTORCH_FILES[0]))[0])
    except OSError:
        return None


def local_checkpoint(folder: str) -> str:
    """Return the local path prefix of the newest checkpoint in a model folder, after fetching it if it is remote."""
    if not storage.is_remote(folder):
        return latest_checkpoint(folder)
    candidates = [storage.join(folder, CHECKPOINTS), folder]
    # First the one that is in the cache already.
    candidates.sort(key=lambda candidate: storage.cached(storage.join(candidate, 'checkpoint')) is None)
    for remote in candidates:
        path = _fetch_if_there(remote, 'checkpoint')
        if path:
            break
    else:
        raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there')
    state = tf.train.get_checkpoint_state(os.path.dirname(path))
    if not state or not state.model_checkpoint_path:
        raise ValueError(f'{path}: names no checkpoint')
    name = os.path.basename(state.model_checkpoint_path)
    storage.local_file(storage.join(remote, f'{name}.index'))
    _fetch_data(remote, name)
    return os.path.join(os.path.dirname(path), name)


def _fetch_data(remote: str, prefix: str) -> None:
    """Fetch the one data file of a checkpoint, or both of one that a run in progress has saved."""
    try:
        storage.local_file(storage.join(remote, f'{prefix}.data-00000-of-00001'))
    except storage.NOT_THERE:
        if not _fetch_if_there(remote, f'{prefix}.data-00000-of-00002'):
            raise
        storage.local_file(storage.join(remote, f'{prefix}.data-00001-of-00002'))


def _fetch_if_there(folder: str, name: str) -> Optional[str]:
    """Fetch a file of a remote folder. Return its local path; None if there is no such file."""
    try:
        return storage.local_file(storage.join(folder, name))
    except storage.NOT_THERE:
        return None
