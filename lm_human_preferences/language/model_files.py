"""Find the files of a model folder, and fetch them if the folder is remote.

A model folder holds `hparams.json`, perhaps `encoding`, `encoder.json` and `vocab.bpe`, and a checkpoint. The
checkpoint is in its folder `checkpoints` or, in OpenAI's folders, beside the other files. Files are fetched by name:
any web server can hold a model, even one that does not list its folders.
"""

import os
from typing import Optional, Sequence

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.encodings import ENCODER_FILE, MERGES_FILE
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.checkpoints import latest_checkpoint
from lm_human_preferences.runs.run_folder import CHECKPOINTS
from lm_human_preferences.utils.files import read_text


def model_folder(path: str, subfolders: Sequence[str]) -> str:
    """Return the path or URL of a model folder: the first of the `subfolders` of `path` that is one, else `path`.

    FileNotFoundError if none of them is a model folder. If `path` is remote, the error is that of its server.
    """
    path = storage.expanded(path)
    folders = [storage.join(path, name) for name in subfolders] + [path]
    failures = []
    for folder in folders:
        try:
            storage.local_file(storage.join(folder, 'hparams.json'))
            return folder
        except storage.NOT_THERE as error:
            failures.append(error)
    if storage.is_remote(path):
        raise type(failures[-1])(f'no model in {path}, nor in {" or ".join(subfolders)} there: {failures[-1]}')
    raise FileNotFoundError(f'no model at {path}: hparams.json is in none of {", ".join(folders)}')


def local_folder(folder: str) -> str:
    """Return a local folder with the sizes and the encoding of a model. Its checkpoint may not be fetched yet."""
    if not storage.is_remote(folder):
        return folder
    local = os.path.dirname(storage.local_file(storage.join(folder, 'hparams.json')))
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
    for suffix in ('.index', '.data-00000-of-00001'):
        storage.local_file(storage.join(remote, name + suffix))
    return os.path.join(os.path.dirname(path), name)


def _fetch_if_there(folder: str, name: str) -> Optional[str]:
    """Fetch a file of a remote folder. Return its local path; None if there is no such file."""
    try:
        return storage.local_file(storage.join(folder, name))
    except storage.NOT_THERE:
        return None
