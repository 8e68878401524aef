"""Files from anywhere: local paths, gs://BUCKET/PATH and http(s)://HOST/PATH.

What is fetched lies in the cache folder (utils/cache.py), once per host: gs/BUCKET/PATH, https/HOST/PATH. It is
written under a hidden name, compared with the size and checksum the server gives, and renamed; a lock keeps concurrent
runs and ranks from fetching the same object twice, and a download that was cut off goes on where it stopped.

The data published in 2019 lay in the buckets gs://lm-human-preferences and gs://gpt-2. It has moved to NEW_HOME
(or, if set, the URL in LM_HUMAN_PREFERENCES_PUBLISHED: a mirror), which is asked first, then the old place. It lies in
the cache under the paths of its bucket and never changes, so a copy there is used as it is, also one put there by hand.
Of anything else we ask the server whether our copy is still the latest, and use that copy if there is no answer.
"""

import base64
import contextlib
import errno
import functools
import hashlib
import os
import random
import shutil
import time
from typing import List
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from lm_human_preferences.remote import transports
from lm_human_preferences.remote.cache import cache_dir
from lm_human_preferences.remote.transports import RemoteError, Temporary, Unreachable, gs_parts, without_query
from lm_human_preferences.utils.files import written_whole
from lm_human_preferences.utils.locks import locked
from lm_human_preferences.utils.progress import transfer_bar

NEW_HOME = 'https://openaipublic.blob.core.windows.net'
MOVED_BUCKETS = ('lm-human-preferences', 'gpt-2')
LABELS_AND_TEXTS = 'gs://lm-human-preferences'
MODELS = 'gs://gpt-2'

NOT_THERE = (FileNotFoundError, PermissionError)  # a bucket that cannot be listed refuses what it does not have

ATTEMPTS = 5  # in a row that bring less than ENOUGH_BYTES
ENOUGH_BYTES = 1 << 20
FIRST_PAUSE = 1.0  # seconds, twice as many after each attempt
LONGEST_PAUSE = 120.0


def is_remote(source: str) -> bool:
    """Whether `source` is a URL, not a local path."""
    return source.startswith(('gs://', 'http://', 'https://'))


def is_published(source: str) -> bool:
    """Whether `source` is in a bucket of the data of 2019."""
    return source.startswith('gs://') and gs_parts(source)[0] in MOVED_BUCKETS


def join(folder: str, *names: str) -> str:
    """The path of something in a folder, local or remote."""
    if not is_remote(folder):
        return os.path.join(folder, *names)
    if folder.startswith('gs://'):
        return '/'.join([folder.rstrip('/'), *names])
    parts = urlsplit(folder)  # a query, such as a signature, stays at the end
    return urlunsplit(parts._replace(path='/'.join([parts.path.rstrip('/'), *map(quote, names)])))


def cache_path(source: str) -> str:
    """Where the cache keeps, or would keep, a remote object."""
    if source.startswith('gs://'):
        bucket, name = gs_parts(source)
        parts = [*([] if bucket in MOVED_BUCKETS else ['gs', bucket]), *name.split('/')]
    else:
        url = urlsplit(source)
        parts = [url.scheme, url.netloc.rpartition('@')[2], *unquote(url.path).lstrip('/').split('/')]
        if url.query:
            parts[-1] += '-' + hashlib.sha256(url.query.encode()).hexdigest()[:12]
    if any(part in ('', '.', '..') or '\0' in part for part in parts):
        raise ValueError(f'{without_query(source)} does not name a file')
    return os.path.join(cache_dir(), *parts)


def expanded(path: str) -> str:
    """A path with `~` as the user's home, as a shell leaves it in --flag=~/path; a URL as it is."""
    return path if is_remote(path) else os.path.expanduser(path)


def local_file(source: str) -> str:
    """The path of a local file with the contents of `source`, fetched into the cache unless it is there.

    FileNotFoundError, PermissionError or ConnectionError (all OSError) in one line that says what was sought where,
    and where to put the file by hand.
    """
    if not is_remote(source):
        path = expanded(source)
        if not os.path.isfile(path):
            raise FileNotFoundError(f'{path} not found')
        return path
    path = cache_path(source)
    asked = time.time()
    if _is_final(source, path):
        return path
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked(path):
            # While we waited another process may have fetched it, or have asked whether it is the latest.
            if not _is_final(source, path) and _time_of(_version_file(path)) < asked:
                _fetch(source, path)
            if is_published(source):
                _remove(_version_file(path))  # nobody will ask for it
    except RemoteError:
        raise
    except OSError as error:
        raise _cache_error(error, path) from error
    return path


def _is_final(source: str, path: str) -> bool:
    """Whether the copy at `path` needs no look at its server: published data, or a file put there by hand."""
    return os.path.exists(path) and (is_published(source) or not os.path.exists(_version_file(path)))


def _places(source: str) -> List[str]:
    """The URLs under which an object may be found, in the order in which to ask."""
    if not is_published(source):
        return [source]
    home = os.environ.get('LM_HUMAN_PREFERENCES_PUBLISHED') or NEW_HOME
    return [home.rstrip('/') + '/' + quote(source[len('gs://') :]), source]


def _fetch(source: str, path: str) -> None:
    failures = []
    for place in _places(source):
        try:
            return _fetch_from(place, path)
        except Unreachable as error:
            if os.path.exists(path):
                return None
            failures.append((place, error))
        except RemoteError as error:
            failures.append((place, error))
    tried = '; '.join(f'{without_query(place)}: {error}' for place, error in failures)
    raise type(failures[0][1])(f'cannot fetch {tried}. To supply it by hand, put the file at {path}')


def _fetch_from(place: str, path: str) -> None:
    """Fetch an object, trying again while that may help."""
    attempts = 1 if os.path.exists(path) else ATTEMPTS
    failed = 0
    while True:
        before = _size_of(_partial_file(path))
        try:
            return _fetch_once(place, path)
        except Temporary as problem:
            brought = _size_of(_partial_file(path)) - before
            failed = 1 if brought >= ENOUGH_BYTES else failed + 1
            if failed >= attempts:
                raise Unreachable(f'{problem} (attempt {failed})' if failed > 1 else str(problem)) from None
            backoff = FIRST_PAUSE * 2 ** (failed - 1) * random.uniform(0.5, 1.5)
            time.sleep(min(max(backoff, problem.pause), LONGEST_PAUSE))


def _fetch_once(place: str, path: str) -> None:
    partial = _partial_file(path)
    known = _read(_version_file(path)) if os.path.exists(path) else ''
    answer = transports.open_object(place, _size_of(partial), _read(_version_file(partial)), known)
    if answer is None:
        os.utime(_version_file(path))
        return
    with contextlib.closing(answer):
        if not answer.start:
            _remove(partial)
            with written_whole(_version_file(partial)) as file:
                file.write(answer.version)
        left = (answer.size or 0) - answer.start
        if left > shutil.disk_usage(os.path.dirname(path)).free:
            raise OSError(errno.ENOSPC, f'{left} bytes are still to come')
        with open(partial, 'ab') as file, transfer_bar(os.path.basename(path), answer.start, answer.size) as bar:
            for chunk in answer.chunks():
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            os.fsync(file.fileno())
    _verify(partial, answer)
    os.replace(partial, path)
    if answer.version:
        os.replace(_version_file(partial), _version_file(path))
    else:  # nothing to ask about later
        _remove(_version_file(partial))


def _verify(partial: str, answer: transports.Answer) -> None:
    """Temporary if the bytes that came are not those of the object; what cannot become right is removed."""
    size = _size_of(partial)
    if answer.size is not None and size < answer.size:
        raise Temporary(f'the connection ended after {size} of {answer.size} bytes')
    fault = None if answer.size in (None, size) else f'{size} bytes came, not {answer.size}'
    kind = next((kind for kind in _HASHES if kind in answer.checksums), None)
    if fault is None and kind:
        checksum = _HASHES[kind]()
        with open(partial, 'rb') as file:
            for chunk in iter(functools.partial(file.read, 1 << 20), b''):
                checksum.update(chunk)
        if base64.b64encode(checksum.digest()).decode() != answer.checksums[kind]:
            fault = f'what came has not the checksum ({kind}) that the server gives'
    if fault:
        _remove(partial)
        raise Temporary(fault)


def _crc32c():
    import google_crc32c

    return google_crc32c.Checksum()


_HASHES = {'crc32c': _crc32c, 'md5': hashlib.md5}


def _cache_error(error: OSError, path: str) -> OSError:
    """What the user can do about a cache folder that cannot be written."""
    elsewhere = 'set LM_HUMAN_PREFERENCES_CACHE to a folder elsewhere'
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        _remove(_partial_file(path))
        return OSError(f'no space left for {path} ({error.strerror}): free some, or {elsewhere}')
    return OSError(f'cannot write {path} ({error.strerror or error}): make that possible, or {elsewhere}')


def _partial_file(path: str) -> str:
    return _hidden(path, 'partial')


def _version_file(path: str) -> str:
    return _hidden(path, 'version')


def _hidden(path: str, suffix: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f'.{name.lstrip(".")}.{suffix}')


def _read(path: str) -> str:
    try:
        with open(path, encoding='utf-8') as file:
            return file.read()
    except FileNotFoundError:
        return ''


def _size_of(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0


def _time_of(path: str) -> float:
    return os.path.getmtime(path) if os.path.exists(path) else 0.0


def _remove(path: str) -> None:
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
