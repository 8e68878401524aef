"""What the cache knows of a file: whether it was fetched, when, and which version. Hidden files beside it say so.

    NAME             the file
    .NAME.version    the record of a fetched file: JSON with its version, size and time. No record: put there by hand
    .NAME.partial    an unfinished download
    .NAME.partial.version    the record of that download

The record of a finished download gets its name right after the file. If the process is killed between the two, the
record of a download without its file stays. It says that the file was fetched.
"""

import contextlib
import json
import os
import re
from typing import Dict, NamedTuple, Optional

from lm_human_preferences.utils.files import open_regular, write_json

_MARKUP = re.compile(rb'<(!doctype\s+html|html|head|body|title|script|meta|\?xml)\b', re.IGNORECASE)
_JSON_NAMES = ('.json', '.jsonl')
_HTML_NAMES = ('.html', '.htm', '.xhtml', '.xml', '.story')
_TEXT_NAMES = ('.txt', '.text')
_FIRST_BYTES = 512


class Record(NamedTuple):
    """What is known of a fetched file."""

    version: str  # '' if the server named none
    asked: float  # the time at which the server last said that this is the latest version

    @property
    def can_be_asked(self) -> bool:
        """Whether the server can be asked if the file is still the latest."""
        return bool(self.version)


def partial_file(path: str) -> str:
    """Return the path of the unfinished download of a file."""
    return _hidden(path, 'partial')


def record_of(path: str) -> Optional[Record]:
    """Return the record of the file at `path`; None if it was put there by hand, or if there is no file."""
    if not os.path.exists(path):
        return None
    finished, unfinished = _version_file(path), _version_file(partial_file(path))
    if os.path.exists(unfinished) and not os.path.exists(partial_file(path)):
        return Record('', 0.0)  # killed after the renaming of the file
    if not os.path.exists(finished):
        return None
    known = _read(finished)
    status = os.stat(path)
    if (
        known.get('size', status.st_size) != status.st_size
        or known.get('time', status.st_mtime_ns) != status.st_mtime_ns
    ):
        return None  # another file was put there
    return Record(known['version'], os.path.getmtime(finished))


def note_asked(path: str) -> None:
    """Record that the server says now that the file at `path` is the latest."""
    os.utime(_version_file(path))


def partial_version(path: str, size: Optional[int] = None) -> str:
    """Return the version of the unfinished download of a file; '' if it is not known.

    If `size` is given, the whole file must have this size, or the version is not known.
    """
    known = _read(_version_file(partial_file(path)))
    return known['version'] if size is None or known.get('size') in (None, size) else ''


def begin(path: str, version: str, size: Optional[int]) -> None:
    """Record that the download of a file begins at its first byte."""
    discard(path)
    write_json(_version_file(partial_file(path)), {'version': version, 'size': size})


def finish(path: str, version: str) -> None:
    """Give the downloaded file its name, and record it."""
    partial = partial_file(path)
    status = os.stat(partial)
    record = {'version': version, 'size': status.st_size, 'time': status.st_mtime_ns}
    write_json(_version_file(partial), record)
    os.replace(partial, path)
    os.replace(_version_file(partial), _version_file(path))


def discard(path: str) -> None:
    """Remove an unfinished download."""
    for file in (_version_file(partial_file(path)), partial_file(path)):
        remove(file)


def forget(path: str) -> None:
    """Remove the record of a file that is never compared with the server again."""
    remove(_version_file(path))


def remove(path: str) -> None:
    """Remove a file if it is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)


def is_web_page(path: str, content_type: str = '', name: str = '') -> bool:
    """Return whether the file at `path` is a web page where `name` (default: its own name) asks for another file.

    Such a page comes from a login or from a server that reports an error with status 200.

    Args:
      content_type: the type of the content by the server's word.
    """
    ending = os.path.splitext(name or path)[1].lower()
    if ending in _HTML_NAMES:
        return False
    with open_regular(path) as file:
        first = file.read(_FIRST_BYTES)
    text = first.lstrip(b'\xef\xbb\xbf \t\r\n')
    if 'html' in content_type:
        is_text = b'\0' not in first
        return is_text and not text.startswith((b'{', b'[', b'"', b'model_checkpoint_path'))
    return ending not in _TEXT_NAMES and bool(text.startswith(b'<') if ending in _JSON_NAMES else _MARKUP.match(text))


def _read(path: str) -> Dict:
    """Return a record; one without size and time if it is of an older form, which held only the version."""
    try:
        with open(path, encoding='utf-8', errors='replace') as file:
            text = file.read()
    except FileNotFoundError:
        return {'version': ''}
    try:
        known = json.loads(text)
    except ValueError:
        return {'version': '' if '\n' in text else text.strip()}
    if isinstance(known, dict) and isinstance(known.get('version'), str):
        return known
    return {'version': text.strip() if isinstance(known, str) else ''}  # an ETag in quotes is JSON, too


def _version_file(path: str) -> str:
    return _hidden(path, 'version')


def _hidden(path: str, suffix: str) -> str:
    folder, name = os.path.split(path)
    return os.path.join(folder, f'.{name.lstrip(".")}.{suffix}')
