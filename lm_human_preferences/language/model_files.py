"""The files of a model folder, fetched where it is not on this machine.

A model folder holds `hparams.json`, perhaps `encoding`, `encoder.json` and `vocab.bpe`, and a checkpoint, in its folder
`checkpoints` or (OpenAI's) beside them. No listing is asked for, so that a plain web server will do.
"""

import os
from typing import Sequence

from lm_human_preferences.graph.tf_versions import tf
from lm_human_preferences.language.encodings import ENCODER_FILE, MERGES_FILE
from lm_human_preferences.remote import storage
from lm_human_preferences.runs.checkpoints import latest_checkpoint


def model_folder(path: str, parts: Sequence[str]) -> str:
    """The path or URL of the model folder that is one of the `parts` of a run folder, or `path` itself."""
    path = storage.expanded(path)
    folders = [storage.join(path, part) for part in parts] + [path]
    failures = []
    for folder in folders:
        try:
            storage.local_file(storage.join(folder, 'hparams.json'))
            return folder
        except storage.NOT_THERE as error:
            failures.append(error)
    if storage.is_remote(path):
        raise type(failures[-1])(f'no model in {path}, nor in {" or ".join(parts)} there: {failures[-1]}')
    raise FileNotFoundError(f'no model at {path}: hparams.json is in none of {", ".join(folders)}')


def local_folder(folder: str) -> str:
    """The local folder with a model folder's sizes and encoding; the checkpoint may be still to come."""
    if not storage.is_remote(folder):
        return folder
    local = os.path.dirname(storage.local_file(storage.join(folder, 'hparams.json')))
    if storage.is_published(folder):  # they share one vocabulary
        return local
    name = None
    if _fetch_if_there(folder, 'encoding'):
        with open(os.path.join(local, 'encoding'), encoding='utf-8') as f:
            name = f.read().strip().strip('"')
    for file in (ENCODER_FILE, MERGES_FILE):
        if name == 'own':
            storage.local_file(storage.join(folder, file))
        elif name is None:
            _fetch_if_there(folder, file)
    return local


def local_checkpoint(folder: str) -> str:
    """The local path prefix of the newest checkpoint in a model folder."""
    if not storage.is_remote(folder):
        return latest_checkpoint(folder)
    places = [storage.join(folder, 'checkpoints'), folder]
    places.sort(key=lambda place: not os.path.exists(storage.cache_path(storage.join(place, 'checkpoint'))))
    for place in places:
        if _fetch_if_there(place, 'checkpoint'):
            break
    else:
        raise FileNotFoundError(f'{folder}: no TensorFlow checkpoint there')
    path = storage.cache_path(storage.join(place, 'checkpoint'))
    state = tf.train.get_checkpoint_state(os.path.dirname(path))
    if not state or not state.model_checkpoint_path:
        raise ValueError(f'{path}: names no checkpoint')
    name = os.path.basename(state.model_checkpoint_path)
    for suffix in ('.index', '.data-00000-of-00001'):
        storage.local_file(storage.join(place, name + suffix))
    return os.path.join(os.path.dirname(path), name)


def _fetch_if_there(folder: str, name: str) -> bool:
    try:
        storage.local_file(storage.join(folder, name))
        return True
    except storage.NOT_THERE:
        return False
