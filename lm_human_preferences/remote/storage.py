"""Fetch files from gs://BUCKET/PATH and http(s)://HOST/PATH into the cache folder; use local paths as they are.

Files of the Hugging Face hub (hf://…) are fetched by its own library into its own cache (hub.py).

`requests` and google-cloud-storage move the bytes (transports.py). This module adds what they lack: a file is fetched
once per host for all runs and ranks, resumed after a lost connection, and verified before it gets its name. A failure
is one line that names each place that was tried. Measured with a file of 100 MB whose connection broke three times
halfway: `requests` raises an error at the first break, and starting again each time would transfer 250 MB. Here 100 MB
are transferred.

The cache keeps gs://BUCKET/PATH as gs/BUCKET/PATH and https://HOST/PATH as https/HOST/PATH. A query that says what is
asked for, and does not only sign the request, has a folder of its own below HOST. Downloads are written under a hidden
name, compared with the size and checksum that the server gives, and renamed. A lock prevents two processes from
fetching the same object.

The data published in 2019 was in the buckets gs://lm-human-preferences and gs://gpt-2. It has moved to NEW_HOME, which
is tried first, then the old bucket. LM_HUMAN_PREFERENCES_PUBLISHED names a mirror to use in place of NEW_HOME. The
cache keeps this data under its path in the bucket. It never changes, so a cached copy is used without asking the
server. The same holds for any copy put there by hand. For other objects we ask whether our copy is still the latest. If
the server does not answer, the copy is used. If it names no version (neither ETag nor Last-Modified nor checksum), it
cannot say whether our copy is the latest, so each process fetches the object once. A web page is never stored in place
of another file.
"""

import base64
import contextlib
import errno
import functools
import glob
import hashlib
import os
import random
import re
import shutil
import time
from typing import Any, Callable, List, Optional
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from lm_human_preferences.remote import hub, records, transports
from lm_human_preferences.remote.cache import cache_dir, expanded_home, unwritable
from lm_human_preferences.remote.failures import RemoteError, Temporary, Unreachable
from lm_human_preferences.remote.transports import gs_parts
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import check_regular, sync_content
from lm_human_preferences.utils.locks import locked
from lm_human_preferences.utils.progress import note, transfer_bar
from lm_human_preferences.utils.text import parameters, shared

NEW_HOME = 'https://openaipublic.blob.core.windows.net'
MOVED_BUCKETS = ('lm-human-preferences', 'gpt-2')
LABELS_AND_TEXTS = 'gs://lm-human-preferences'
MODELS = 'gs://gpt-2'

NOT_THERE = (FileNotFoundError, PermissionError)  # a bucket without permission to list answers 403 for missing objects

ATTEMPTS = 5  # failures in a row; an attempt that brings ENOUGH_BYTES starts the count again
ENOUGH_BYTES = 1 << 20
FIRST_PAUSE = 1.0  # seconds; doubles after each attempt
LONGEST_PAUSE = 120.0  # seconds, even if the server asks for more
_LONG_SECONDS = 60.0  # a download from the hub that broke after longer has brought much
_SAID_PAUSE = 15.0  # seconds; a longer pause is said
_STARTED = time.time()


class _WebPage(RemoteError):
    """The server sends a web page in place of the file."""


def is_remote(source: str) -> bool:
    """Return whether `source` is a URL and not a local path."""
    return source.startswith(('gs://', 'http://', 'https://', hub.SCHEME))


def is_published(source: str) -> bool:
    """Return whether `source` is in a bucket of the data published in 2019."""
    return source.startswith('gs://') and gs_parts(source)[0] in MOVED_BUCKETS


def join(folder: str, *names: str) -> str:
    """Return the path of an entry of a folder, local or remote."""
    if not is_remote(folder):
        return os.path.join(folder, *names)
    if folder.startswith(('gs://', hub.SCHEME)):
        return '/'.join([folder.rstrip('/'), *names])
    parts = urlsplit(folder)  # a query, such as a signature, stays at the end
    return urlunsplit(parts._replace(path='/'.join([parts.path.rstrip('/'), *map(quote, names)])))


def cached(source: str) -> Optional[str]:
    """Return the path of the copy of a remote object if there is one; it may not be the latest."""
    path = hub.cached(source) if hub.is_hub(source) else cache_path(source)
    return path if path and os.path.exists(path) else None


def cache_path(source: str) -> str:
    """Return the path in the cache for a remote object; ValueError if `source` does not name a file."""
    if source.startswith('gs://'):
        bucket, name = gs_parts(source)
        parts = [*([] if bucket in MOVED_BUCKETS else ['gs', bucket]), *name.split('/')]
    else:
        try:
            url = urlsplit(source)
        except ValueError:
            raise ValueError(f'{shared(source)} is no URL') from None
        parts = [url.scheme, url.netloc.rpartition('@')[2], *unquote(url.path).lstrip('/').split('/')]
        asked = parameters(source)  # without a signature: a new one stands for the same file
        if asked:
            # A folder, so that the files of a model stay together under their own names.
            parts.insert(2, 'query-' + hashlib.sha256(repr(asked).encode()).hexdigest()[:12])
    if any(part in ('', '.', '..') or '\0' in part for part in parts):
        raise ValueError(f'{shared(source)} does not name a file')
    return os.path.join(cache_dir(), *parts)


def expanded(path: str) -> str:
    """Replace `~` in a local path by the home folder, which a shell does not do in --flag=~/path; keep URLs.

    UserError if there is no home folder.
    """
    return path if is_remote(path) else expanded_home(path)


def local_file(source: str) -> str:
    """Return the path of a local file with the contents of `source`; fetch it into the cache if it is not there.

    Raises FileNotFoundError, PermissionError or ConnectionError (all OSError). The message is one line: where we
    looked, and where to put the file by hand. ValueError for a local FIFO or device.
    """
    if not is_remote(source):
        path = expanded(source)
        try:
            check_regular(path)
        except (FileNotFoundError, NotADirectoryError):
            raise FileNotFoundError(f'{path} not found') from None
        return path
    if hub.is_hub(source):
        return _from_hub(source, lambda: hub.fetch(source))
    path = cache_path(source)
    asked = time.time()
    if _is_final(source, path):
        return path
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with locked(path):
            # While we waited, another process may have fetched it, or asked whether it is still the latest.
            if not _is_final(source, path) and not _is_fresh(path, asked):
                _fetch(source, path)
            if is_published(source):
                records.forget(path)  # published data is never compared with the server again
    except RemoteError:
        raise
    except OSError as error:
        raise _cache_error(error, path) from error
    return path


def copy_on_hub(source: str, failure: RemoteError, title: str) -> str:
    """Return the local path of the hub's copy of published data, which the places of 2019 did not give.

    Args:
      failure: the error of these places. If the hub does not have it either, an error of that type says both.
      title: what a note calls the data.
    """
    try:
        path = local_file(source)
    except (RemoteError, UserError) as error:
        raise type(failure)(f'{failure}. The copy on the hub: {error}') from None
    _note_copy(title, hub.parse(source)._replace(path='').title)
    return path


@functools.lru_cache(maxsize=None)  # one note, however many files there are
def _note_copy(title: str, repository: str) -> None:
    note(f'note: {title}: read from {repository}, as its place of 2019 does not have it')


def matching(pattern: str) -> List[str]:
    """Return the files, sorted, that match a path or an hf:// URL. * and ? match in a name, ** folders, too.

    FileNotFoundError if there is none. ValueError for gs:// and https://, which are not listed.
    """
    if hub.is_hub(pattern):
        wanted = hub.parse(pattern)
        names = [name for name in _from_hub(pattern, lambda: hub.files(pattern)) if _matches(name, wanted.path)]
        found = [join(wanted._replace(path='').title, name) for name in names]
    elif is_remote(pattern):
        raise ValueError(f'{shared(pattern)}: a pattern of files is possible for local paths and hf:// only')
    else:
        found = sorted(path for path in glob.glob(expanded(pattern), recursive=True) if os.path.isfile(path))
    if not found:
        raise FileNotFoundError(f'{pattern}: no file matches this')
    return found


def _matches(name: str, pattern: str) -> bool:
    """Return whether a path matches a pattern in the form of `glob`."""
    parts = {'**/': '(?:[^/]+/)*', '**': '.*', '*': '[^/]*', '?': '[^/]'}
    regex = ''.join(parts.get(part, re.escape(part)) for part in re.split(r'(\*\*/|\*\*|\*|\?)', pattern))
    return re.fullmatch(regex, name) is not None


def upload_to_hub(url: str, folder: str, message: str, private: bool = False) -> str:
    """Do what `hub.upload` does; try again after failures that may pass. RemoteError that names `url`."""
    return _from_hub(url, lambda: hub.upload(url, folder, message, private), 'write')


def _from_hub(source: str, ask: Callable[[], Any], what: str = 'fetch') -> Any:
    """Ask the hub; try again after failures that may pass. RemoteError that names `source`."""
    failed = 0
    while True:
        began = time.monotonic()
        try:
            return ask()
        except Temporary as problem:
            failed = 1 if time.monotonic() - began > _LONG_SECONDS else failed + 1
            if failed >= ATTEMPTS:
                raise Unreachable(f'cannot {what} {source}: {problem} (attempt {failed})') from None
            wait(source, problem, failed)
        except RemoteError as problem:
            raise type(problem)(f'cannot {what} {source}: {problem}') from None


def _is_final(source: str, path: str) -> bool:
    """Return whether the server need not be asked about the copy at `path`: published data, or put there by hand."""
    if not os.path.exists(path) or not (is_published(source) or records.record_of(path) is None):
        return False
    return not records.is_web_page(path)  # a web page was never what was asked for


def _is_fresh(path: str, asked: float) -> bool:
    """Return whether the server has said since the time `asked` that our copy is the latest."""
    record = records.record_of(path)
    return record is not None and record.asked >= (asked if record.can_be_asked else _STARTED)


def _places(source: str) -> List[str]:
    """Return the URLs to try for an object, in order."""
    if not is_published(source):
        return [source]
    home = os.environ.get('LM_HUMAN_PREFERENCES_PUBLISHED') or NEW_HOME
    return [home.rstrip('/') + '/' + quote(source[len('gs://') :]), source]


def _fetch(source: str, path: str) -> None:
    """Fetch an object from the first place that has it; keep an older copy if a server does not answer."""
    failures = []
    for place in _places(source):
        try:
            return _fetch_from(place, path)
        except (Unreachable, _WebPage) as error:
            if os.path.exists(path) and not records.is_web_page(path):
                if isinstance(error, _WebPage):
                    note(f'{shared(place)}: {error}: the copy of an earlier time is used')
                return None
            failures.append((place, error))
        except RemoteError as error:
            failures.append((place, error))
    tried = '; '.join(f'{shared(place)}: {error}' for place, error in failures)
    raise type(failures[0][1])(f'cannot fetch {tried}. To supply it by hand, put the file at {path}')


def _fetch_from(place: str, path: str) -> None:
    """Fetch an object from one URL; try again after temporary failures."""
    attempts = 1 if os.path.exists(path) else ATTEMPTS
    failed = 0
    while True:
        before = _size_of(records.partial_file(path))
        try:
            return _fetch_once(place, path)
        except Temporary as problem:
            brought = _size_of(records.partial_file(path)) - before
            failed = 1 if brought >= ENOUGH_BYTES else failed + 1
            if failed >= attempts:
                raise Unreachable(f'{problem} (attempt {failed})' if failed > 1 else str(problem)) from None
            wait(place, problem, failed)


def wait(place: str, problem: Temporary, failed: int) -> None:
    """Wait before the next attempt, after `failed` ones in a row; say so if that takes long."""
    backoff = FIRST_PAUSE * 2 ** (failed - 1) * random.uniform(0.5, 1.5)
    seconds = min(max(backoff, problem.pause), LONGEST_PAUSE)
    if seconds > _SAID_PAUSE:
        note(f'{shared(place)}: {problem}, and asks to wait: trying again in {seconds:.0f} seconds')
    time.sleep(seconds)


def _fetch_once(place: str, path: str) -> None:
    """Resume or start the download of an object, verify it and rename it; Temporary if that should be tried again."""
    partial = records.partial_file(path)
    record = records.record_of(path)
    answer = transports.open_object(
        place, _size_of(partial), records.partial_version(path), record.version if record else ''
    )
    if answer is None:
        return records.note_asked(path)
    with contextlib.closing(answer):
        if not answer.start:
            records.begin(path, answer.version, answer.size)
        elif not records.partial_version(path, answer.size):
            records.discard(path)
            raise Temporary(f'the server now says that the file has {answer.size} bytes')
        left = (answer.size or 0) - answer.start
        if left > shutil.disk_usage(os.path.dirname(path)).free:
            raise OSError(errno.ENOSPC, f'{left} more bytes are needed')
        with open(partial, 'ab') as file, transfer_bar(os.path.basename(path), answer.start, answer.size) as bar:
            for chunk in answer.chunks():
                file.write(chunk)
                bar.update(len(chunk))
            file.flush()
            sync_content(file.fileno())
    _verify(path, answer)
    records.finish(path, answer.version)


def _verify(path: str, answer: transports.Answer) -> None:
    """Raise Temporary if the downloaded bytes are not those of the object, and _WebPage if they are a web page.

    A download that is too short is kept, so that it can be resumed. A wrong one is removed.
    """
    partial = records.partial_file(path)
    size = _size_of(partial)
    if answer.size is not None and size < answer.size:
        raise Temporary(f'the connection ended after {size} of {answer.size} bytes')
    fault = None if answer.size in (None, size) else f'received {size} bytes instead of {answer.size}'
    kind = next((kind for kind in _HASHES if kind in answer.checksums), None)
    if fault is None and kind:
        checksum = _HASHES[kind]()
        with open(partial, 'rb') as file:
            for chunk in iter(functools.partial(file.read, 1 << 20), b''):
                checksum.update(chunk)
        if base64.b64encode(checksum.digest()).decode() != answer.checksums[kind]:
            fault = f'the checksum ({kind}) of the download is not the one that the server gives'
    if fault:
        records.discard(path)
        raise Temporary(fault)
    if records.is_web_page(partial, answer.content_type, name=path):
        records.discard(path)
        raise _WebPage('the server sends a web page in place of the file')


def _crc32c():
    import google_crc32c

    return google_crc32c.Checksum()


_HASHES = {'crc32c': _crc32c, 'md5': hashlib.md5}


def _cache_error(error: OSError, path: str) -> OSError:
    """Return an error that says what the user can do about a cache folder that cannot be written."""
    elsewhere = 'set LM_HUMAN_PREFERENCES_CACHE to another folder'
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        records.discard(path)
        return OSError(f'no space left for {path} ({error.strerror}): free some space, or {elsewhere}')
    return unwritable(path, error)


def _size_of(path: str) -> int:
    return os.path.getsize(path) if os.path.exists(path) else 0
