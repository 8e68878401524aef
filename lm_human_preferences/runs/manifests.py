"""The manifest of a checkpoint, `state-STEP.json`: the files of the checkpoint, and the rest of the run's state.

    step        the number of steps done, as in the name of the file
    files       the size of each of TensorFlow's files in bytes, and its CRC-32C
    checksum    SHA-256 of everything else in the manifest
    seed, positions, ranks, hparams …    the state of the run, see `checkpoints`; a model without a run has none

Manifests of earlier versions have no checksums: `files` then holds only sizes. They are checked in all other ways.
This module needs no TensorFlow.
"""

import concurrent.futures
import functools
import hashlib
import json
import math
import os
import re
import stat
from typing import Any, Callable, Dict, List, Sequence

from lm_human_preferences.utils.errors import short
from lm_human_preferences.utils.files import sync
from lm_human_preferences.utils.json_files import read_json

PREFIX = 'model.ckpt'
_LARGEST = 2**24  # bytes; a manifest of thousands of ranks is smaller
_CHUNK = 2**20  # bytes


class Damaged(Exception):
    """A checkpoint that cannot be used. The message names the file and says what is wrong with it."""


def manifest_name(step: int) -> str:
    """Return the name of the manifest of a step."""
    return f'state-{step}.json'


def new_manifest(step: int, state: Dict[str, Any], folder: str) -> Dict[str, Any]:
    """Return the manifest for TensorFlow's files in a folder, and write these files to disk.

    OSError if that fails. ValueError if `state` is not the state of a run.
    """
    names = sorted(os.listdir(folder))
    paths = [os.path.join(folder, name) for name in names]
    with concurrent.futures.ThreadPoolExecutor(1) as pool:  # the checksums take no time while the disk is busy
        synced = [pool.submit(sync, path) for path in paths]
        files = {name: {'size': os.path.getsize(path), 'crc32c': crc32c(path)} for name, path in zip(names, paths)}
        for done in synced:
            done.result()
    manifest = dict(state, step=step, files=files)
    manifest['checksum'] = _checksum(manifest)
    try:
        _check(manifest, step)
    except Damaged as fault:
        raise ValueError(f'this state cannot be saved: {fault}') from None
    return manifest


def read_manifest(place: str, step: int) -> Dict[str, Any]:
    """Return the manifest of a step in a folder of checkpoints. Damaged if it is missing or wrong in any way."""
    name = manifest_name(step)
    path = os.path.join(place, name)
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode) or status.st_size > _LARGEST:
            raise Damaged(f'{name} is not a manifest')
        manifest = read_json(path)
    except FileNotFoundError:
        raise Damaged(f'{name} is missing') from None
    except OSError as error:
        raise Damaged(f'{name}: {error.strerror}') from None
    except ValueError as error:
        raise Damaged(f'{name}{str(error)[len(path) :]}') from None
    try:
        if not isinstance(manifest, dict):
            raise Damaged(f'it should be a JSON object, not {type(manifest).__name__}')
        _check(manifest, step)
    except Damaged as fault:
        raise Damaged(f'{name}: {fault}') from None
    return manifest


def has_run_state(manifest: Dict[str, Any]) -> bool:
    """Return whether a run can resume from a manifest; otherwise it holds only a model."""
    return 'seed' in manifest


def check_files(place: str, manifest: Dict[str, Any], content: bool) -> None:
    """Raise Damaged if a file of a checkpoint is missing or has another size or, with `content`, another content."""
    for name, expected in sorted(manifest['files'].items()):
        path = os.path.join(place, name)
        size, checksum = (expected, None) if isinstance(expected, int) else (expected['size'], expected['crc32c'])
        try:
            status = os.stat(path)
            if status.st_size != size:
                raise Damaged(f'{name} has {status.st_size} bytes, not {size}')
            if content and checksum and _known_crc32c(path, size, status.st_mtime_ns, status.st_ino) != checksum:
                raise Damaged(f'{name} has another content than was saved')
        except FileNotFoundError:
            raise Damaged(f'{name} is missing') from None
        except OSError as error:
            raise Damaged(f'{name}: {error.strerror}') from None


def shards_are_complete(names: Sequence[str], prefix: str) -> bool:
    """Return whether `names` has the index and all data files of TensorFlow's checkpoint with a prefix.

    There may be others, of an earlier checkpoint with this prefix.
    """
    pattern = re.compile(re.escape(prefix) + r'\.data-([0-9]{5})-of-([0-9]{5})')
    totals = [match.group(2) for match in map(pattern.fullmatch, names) if match]
    return f'{prefix}.index' in names and any(totals.count(total) == int(total) for total in totals)


@functools.lru_cache(maxsize=64)
def _known_crc32c(path: str, size: int, time: int, inode: int) -> str:
    return crc32c(path)


def crc32c(path: str) -> str:
    """Return the CRC-32C of a file as eight hexadecimal digits (4 GB/s on one core, where SHA-256 has 0.5)."""
    import google_crc32c

    value = 0
    with open(path, 'rb', buffering=0) as file:
        for chunk in iter(lambda: file.read(_CHUNK), b''):
            value = google_crc32c.extend(value, chunk)
    return f'{value:08x}'


def _checksum(manifest: Dict[str, Any]) -> str:
    content = {key: value for key, value in manifest.items() if key != 'checksum'}
    try:
        text = json.dumps(content, sort_keys=True, separators=(',', ':'))
    except RecursionError:
        raise Damaged('this JSON is nested too deeply') from None
    return hashlib.sha256(text.encode()).hexdigest()


def _is_whole_number(value: Any, least: int = 0, limit: int = 2**63) -> bool:
    return type(value) is int and least <= value < limit


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < math.inf


def _is_seed(value: Any) -> bool:
    return _is_whole_number(value, limit=2**32)


def _is_count(value: Any) -> bool:
    return _is_whole_number(value, least=1)


def _are_whole_numbers(value: Any) -> bool:
    return isinstance(value, list) and all(map(_is_whole_number, value))


_NEEDED: Dict[str, Callable[[Any], bool]] = {
    'seed': _is_seed,
    'positions': _are_whole_numbers,
    'ranks': _is_count,
    'hparams': lambda value: isinstance(value, dict),
}
_OPTIONAL: Dict[str, Callable[[Any], bool]] = {
    'num_texts': lambda value: value is None or _is_whole_number(value),
    'seconds': lambda value: _is_number(value) and value >= 0,
    'finished': lambda value: isinstance(value, bool),
    'kl_coef': _is_number,
    'rollout_batch_size': _is_count,
    'best_loss': lambda value: value is None or _is_number(value),
    'epochs_since_best': _is_whole_number,
    'loss_sum': _is_number,
}


def _check(manifest: Dict[str, Any], step: int) -> None:
    """Raise Damaged if a manifest breaks a rule. A wrong checksum is named last: any other fault says more."""
    if not _is_whole_number(manifest.get('step')) or manifest['step'] != step:
        raise Damaged(f'step is {short(manifest.get("step"))}')
    _check_entries(manifest.get('files'), step)
    own = {key: value for key, value in manifest.items() if key not in ('step', 'files', 'checksum')}
    rules = {**_NEEDED, **_OPTIONAL}
    for key, value in sorted(own.items()):
        if key not in rules:
            raise Damaged(f'unknown field {short(key)}')
        if not rules[key](value):
            raise Damaged(f'{key} is {short(value)}')
    missing = [key for key in _NEEDED if own and key not in own]
    if missing:
        raise Damaged(f'{missing[0]} is missing')
    if own:
        _check_together(own)
    has_checksums = any(isinstance(entry, dict) for entry in manifest['files'].values())
    if ('checksum' in manifest or has_checksums) and manifest.get('checksum') != _checksum(manifest):
        raise Damaged('its checksum is wrong')


def _check_entries(files: Any, step: int) -> None:
    """Raise Damaged if `files` does not describe the complete files of one checkpoint."""
    if not isinstance(files, dict) or not files:
        raise Damaged(f'files is {short(files)}')
    names: List[str] = list(files)
    prefix = f'{PREFIX}-{step}'
    if not shards_are_complete(names, prefix) or any(not name.startswith(f'{prefix}.') for name in names):
        raise Damaged(f'files has other names: {short(sorted(names))}')
    for name, entry in files.items():
        checked = isinstance(entry, dict) and set(entry) == {'size', 'crc32c'}
        size = entry['size'] if checked else entry
        if not _is_whole_number(size) or checked and not isinstance(entry['crc32c'], str):
            raise Damaged(f'files: {name} is {short(entry)}')


def _check_together(own: Dict[str, Any]) -> None:
    if len(own['positions']) != own['ranks']:
        raise Damaged(f'{len(own["positions"])} positions for {own["ranks"]} rank(s)')
    run = own['hparams'].get('run')
    given = run.get('seed') if isinstance(run, dict) else None
    if given is not None and given != own['seed']:
        raise Damaged(f'seed is {own["seed"]}, but run.seed is {short(given)}')
