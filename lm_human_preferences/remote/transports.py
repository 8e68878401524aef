"""Request one object from a web server or from Google Cloud Storage, from a given byte on.

`requests` reads both. For gs:// google-cloud-storage first finds the object's address, version and checksums. This
module turns the answers and errors of the two libraries into one form, and asks only once: storage.py retries and
resumes. google-cloud-storage 3.9.0 alone retried for 80 s where the connection was refused, version 1.23.0 not at all;
storage.py gives up after 17 s.
"""

import base64
import contextlib
import functools
import inspect
import os
import re
import warnings
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple

from lm_human_preferences.remote import failures
from lm_human_preferences.remote.failures import (
    OutOfRange,
    RemoteError,
    Temporary,
    Unfit,
    check_addresses,
    check_status,
    gs_errors,
    network_errors,
)
from lm_human_preferences.utils.errors import short

CHUNK_BYTES = 1 << 18
# What may stand for a version in If-None-Match and If-Modified-Since: an ETag, with quotes or without, or a date.
_VALIDATOR = re.compile(r'(W/)?"[^"\x00-\x20\x7f]{1,500}"\Z|[\w.:/+=-]{8,500}\Z|\w{3}, [\w: ]{15,24} GMT\Z', re.ASCII)
_CHECKSUM = 'checksum '  # before a checksum that stands for a version
_SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write'


class _Body(NamedTuple):
    """What a response says about its body."""

    start: int  # the position of its first byte in the object
    length: Optional[int]  # bytes; None if the server does not say
    size: Optional[int]  # bytes of the whole object; None if the server does not say


class Answer(NamedTuple):
    """A server's answer: the bytes of an object from `start` on, and facts about the whole object."""

    start: int
    length: Optional[int]  # bytes of this answer; None if the server does not say
    size: Optional[int]  # bytes of the object; None if the server does not say
    version: str  # changes with the contents; '' if the server names none
    checksums: Dict[str, str]  # 'crc32c' and 'md5' in base64, where the server gives them
    response: Any

    @property
    def content_type(self) -> str:
        """The type of the content by the server's word, in lower case and without parameters."""
        return self.response.headers.get('Content-Type', '').partition(';')[0].strip().lower()

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; Temporary if the connection breaks or stalls, or if more bytes come than were said."""
        received = 0
        with network_errors():
            for chunk in self.response.iter_content(CHUNK_BYTES):
                received += len(chunk)
                if self.length is not None and received > self.length:
                    raise Temporary(f'received more than the {self.length} bytes that the server said')
                yield chunk

    def close(self) -> None:
        """Close the connection."""
        self.response.close()


def open_object(source: str, start: int = 0, part_of: str = '', known: str = '') -> Optional[Answer]:
    """Request the object at gs://BUCKET/NAME or http(s)://….

    Args:
      start: how many bytes we have; the answer begins after these.
      part_of: the version of these bytes; if the server has another version, the answer begins at byte 0.
      known: a version that we have in full; the answer is None if it is still the latest.

    Raises Missing, Refused or RemoteError, and Temporary for failures that may pass.
    """
    ask = _ask_gs if source.startswith('gs://') else _ask_http
    try:
        answer = ask(source, start if part_of else 0, part_of, known)
        if answer and answer.start and answer.version != part_of:
            answer.close()
            raise Unfit('the server sends a part of another version')
    except (OutOfRange, Unfit):
        if not (start and part_of):
            raise
        answer = ask(source, 0, '', known)
    if answer and known and answer.version == known:  # a server may ignore the question whether it is the latest
        answer.close()
        return None
    return answer


def gs_parts(source: str) -> Tuple[str, str]:
    """Split gs://BUCKET/NAME into (bucket, name)."""
    bucket, _, name = source[len('gs://') :].partition('/')
    return bucket, name


@functools.lru_cache(maxsize=1)
def gs_client():
    """Return a google-cloud-storage client and its session; anonymous if there are no credentials."""
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # about the end of support for this Python
        import google.auth
        from google.auth.credentials import AnonymousCredentials
        from google.auth.transport.requests import AuthorizedSession
        from google.cloud import storage

    credentials = AnonymousCredentials()
    if not os.environ.get('STORAGE_EMULATOR_HOST'):
        with contextlib.suppress(google.auth.exceptions.DefaultCredentialsError):
            credentials, _ = google.auth.default(scopes=[_SCOPE])

    class Session(AuthorizedSession):
        """A session that waits for the answer to a GET only as long as for one of a web server."""

        def request(self, method, url, *args, **kwargs):
            if method == 'GET':
                kwargs['timeout'] = (failures.CONNECT_SECONDS, failures.STALL_SECONDS)
            return super().request(method, url, *args, **kwargs)

    session = Session(credentials)
    # Reading and writing objects needs no project, but the client requires a name.
    return storage.Client(project='none', credentials=credentials, _http=session), session


def once(request: Callable) -> Callable:
    """Return a method of google-cloud-storage that does not retry by itself."""
    # Clients of 2019 have no argument `retry`.
    return functools.partial(request, retry=None) if 'retry' in inspect.signature(request).parameters else request


def _ask_gs(source, start, part_of, known):
    bucket, name = gs_parts(source)
    client, session = gs_client()
    with gs_errors():
        blob = client.bucket(bucket).blob(name)
        once(blob.reload)()
        version = f'{blob.generation}-{blob.crc32c}'
        if known == version:
            return None
        headers = {'Range': f'bytes={start}-'} if start and part_of == version else {}
        response, body = _get(session, blob.media_link, headers)
    if blob.content_encoding == 'gzip':  # unpacked by the server: size and checksums are those of the packed bytes
        return Answer(0, None, None, version, {}, response)
    checksums = {'crc32c': blob.crc32c, 'md5': blob.md5_hash}
    checksums = {kind: value for kind, value in checksums.items() if value}
    return Answer(body.start, body.length, blob.size, version, checksums, response)


def _ask_http(source, start, part_of, known):
    headers = {}
    if start and _VALIDATOR.match(part_of) and not part_of.startswith('W/'):  # a weak ETag may stand for other bytes
        headers.update({'Range': f'bytes={start}-', 'If-Range': part_of})
    elif known and _VALIDATOR.match(known):
        headers['If-Modified-Since' if known.endswith(' GMT') else 'If-None-Match'] = known
    response, body = _get(_session(), source, headers)
    if response.status_code == 304:
        response.close()
        return None
    checksums = _checksums(response)
    given = response.headers
    named = [given.get('ETag', '').strip(), given.get('Last-Modified', '').strip()]
    named += [f'{_CHECKSUM}{kind}={checksums[kind]}' for kind in sorted(checksums)]
    version = next((name for name in named if _VALIDATOR.match(name) or name.startswith(_CHECKSUM)), '')
    if body.size is None and not checksums and 'chunked' not in given.get('Transfer-Encoding', ''):
        response.close()
        raise RemoteError('the server gives neither size nor checksum, so a cut download would go unnoticed')
    return Answer(body.start, body.length, body.size, version, checksums, response)


@functools.lru_cache(maxsize=1)
def _session():
    import requests

    return requests.Session()


def _get(session, url: str, headers: Dict[str, str]) -> Tuple[Any, _Body]:
    """Send a GET. Return the response before its body is read, and what it says about its body.

    Raises an error for a status without a body, and Unfit for an answer to another question.
    """
    import urllib3

    check_addresses(url)
    with network_errors():
        # If the server packed the bytes, they would not match the size and checksum.
        asked = dict(headers, **{'Accept-Encoding': 'identity'})
        try:
            response = session.get(
                url, headers=asked, stream=True, timeout=(failures.CONNECT_SECONDS, failures.STALL_SECONDS)
            )
        except (ValueError, urllib3.exceptions.InvalidHeader) as error:
            if 'nonymous' in str(error):  # google-auth: there are no credentials to renew
                raise
            if 'Content-Length' in str(error):
                raise RemoteError('the server sends a Content-Length that is no number') from None
            raise RemoteError('the server redirects to a URL that cannot be used') from None
    try:
        if response.status_code not in (200, 206, 304):
            check_status(response.status_code, response.headers)
            raise RemoteError(f'the server answers {response.status_code} {response.reason}')
        if response.headers.get('Content-Encoding', 'identity') != 'identity':
            raise RemoteError('the server sends the file packed, although we asked it not to')
        return response, _body(response, headers)
    except Exception:
        response.close()
        raise


def _body(response, asked: Dict[str, str]) -> _Body:
    """Return what a response says about its body; Unfit if that does not fit the headers that `asked` for it.

    Only three answers fit: 200 with the whole object, 206 with the requested part of it, and 304 to a request that
    names a version.
    """
    status = response.status_code
    length = _length(response)
    if status == 304:
        if not {'If-None-Match', 'If-Modified-Since'} & set(asked):
            raise Unfit('the server answers 304 (not modified), but was not asked that')
        return _Body(0, 0, None)
    if status == 200:
        return _Body(0, length, length)
    if 'Range' not in asked:
        raise Unfit('the server sends a part of the file (206), where the whole file was asked for')
    start = int(asked['Range'][len('bytes=') : -1])
    place = response.headers.get('Content-Range', '')
    numbers = re.match(r'bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18})\Z', place)
    if numbers is None:
        raise Unfit('the server sends a part of the file (206) and does not say which')
    first, last, size = map(int, numbers.groups())
    if first != start or not first <= last < size:
        raise Unfit(
            f'the server sends another part of the file ({place}), where the bytes from {start} on were asked for'
        )
    if length not in (None, last + 1 - first):
        raise Unfit(f'the server sends {length} bytes and calls them {place}')
    return _Body(first, last + 1 - first, size)


def _length(response) -> Optional[int]:
    """Return the Content-Length of a response; None if there is none. RemoteError if it is no number."""
    text = response.headers.get('Content-Length')
    if text is None or 'chunked' in response.headers.get('Transfer-Encoding', ''):
        return None
    values = {value.strip() for value in text.split(',')}  # a header that is sent twice
    if len(values) != 1 or not re.match(r'[0-9]{1,18}\Z', text.split(',')[0].strip()):
        raise RemoteError(f'the server sends a Content-Length that is no number ({short(text)})')
    return int(values.pop())


def _checksums(response) -> Dict[str, str]:
    """Return the checksums of the whole object that the headers give, in base64."""
    headers = response.headers
    found = dict(re.findall(r'\b(crc32c|md5)=([\w+/]+=*)', headers.get('x-goog-hash', '')))
    if 'x-ms-blob-content-md5' in headers:
        found['md5'] = headers['x-ms-blob-content-md5']
    elif 'Content-MD5' in headers and response.status_code == 200:  # in another answer it is the checksum of the part
        found['md5'] = headers['Content-MD5']
    # The ETag is the MD5 only on S3, for objects uploaded in one piece and not encrypted with their own key.
    etag = re.match(r'"([0-9a-f]{32})"\Z', headers.get('ETag', ''))
    if etag and headers.get('Server') == 'AmazonS3' and 'aws' not in headers.get('x-amz-server-side-encryption', ''):
        found.setdefault('md5', base64.b64encode(bytes.fromhex(etag.group(1))).decode())
    return found
