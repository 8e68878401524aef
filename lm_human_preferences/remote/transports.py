"""Request one object from a web server or from Google Cloud Storage, from a given byte on.

`requests` reads both. For gs:// google-cloud-storage first finds the object's address, version and checksums. This
module turns the answers and errors of the two libraries into one form, and asks only once: storage.py retries and
resumes. google-cloud-storage 3.9.0 alone retried for 80 s where the connection was refused, version 1.23.0 not at all;
storage.py gives up after 17 s.
"""

import base64
import contextlib
import email.utils
import functools
import inspect
import os
import re
import time
import warnings
from typing import Any, Callable, Dict, Iterator, NamedTuple, Optional, Tuple
from urllib.parse import urlsplit, urlunsplit

CONNECT_SECONDS = 10
STALL_SECONDS = 30  # the longest wait for the next byte
CHUNK_BYTES = 1 << 18
_SCOPE = 'https://www.googleapis.com/auth/devstorage.read_write'


class RemoteError(OSError):
    """An object cannot be fetched; the message says why."""


class Missing(RemoteError, FileNotFoundError):
    """There is no such object."""


class Refused(RemoteError, PermissionError):
    """The server refuses access to the object."""


class Unreachable(RemoteError, ConnectionError):
    """The server does not answer, or the connection breaks each time."""


class Temporary(Exception):
    """A failure that may pass: try again, after `pause` seconds if the server asks for that."""

    def __init__(self, reason: str, pause: float = 0.0):
        super().__init__(reason)
        self.pause = pause


class _OutOfRange(Temporary):
    """The object has no bytes from the requested start on."""


class Answer(NamedTuple):
    """A server's answer: the bytes of an object from `start` on, and facts about the whole object."""

    start: int
    size: Optional[int]  # bytes; None if the server does not say
    version: str  # changes with the contents; '' if the server names none
    checksums: Dict[str, str]  # 'crc32c' and 'md5' in base64, where the server gives them
    response: Any

    def chunks(self) -> Iterator[bytes]:
        """Yield the bytes; Temporary if the connection breaks or stalls."""
        with _network_errors():
            yield from self.response.iter_content(CHUNK_BYTES)

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
    except _OutOfRange:
        return ask(source, 0, '', known)
    if answer and answer.start and (answer.start, answer.version) != (start, part_of):
        answer.close()
        return ask(source, 0, '', known)
    return answer


def gs_parts(source: str) -> Tuple[str, str]:
    """Split gs://BUCKET/NAME into (bucket, name)."""
    bucket, _, name = source[len('gs://') :].partition('/')
    return bucket, name


def without_query(source: str) -> str:
    """Return a URL without its query, which may hold a secret."""
    return source if source.startswith('gs://') else urlunsplit(urlsplit(source)._replace(query='', fragment=''))


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
    session = AuthorizedSession(credentials)
    # Reading and writing objects needs no project, but the client requires a name.
    return storage.Client(project='none', credentials=credentials, _http=session), session


def once(request: Callable) -> Callable:
    """Return a method of google-cloud-storage that does not retry by itself."""
    # Clients of 2019 have no argument `retry`.
    return functools.partial(request, retry=None) if 'retry' in inspect.signature(request).parameters else request


@contextlib.contextmanager
def gs_errors() -> Iterator[None]:
    """Turn the errors of google-cloud-storage into those of this module."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        with _network_errors():
            yield
    except GoogleAPICallError as error:
        _check_status(error.code or 500, getattr(error.response, 'headers', {}))
        raise RemoteError(error.message) from None
    except TransportError as error:
        raise Temporary(_reason(error)) from None
    except GoogleAuthError as error:
        raise Refused(f'no permission: {error}') from None
    except ValueError as error:
        if 'nonymous' in str(error):  # google-auth of 2021: there are no credentials to renew
            raise Refused(f'no permission: {error}') from None
        raise


def _ask_gs(source, start, part_of, known):
    client, session = gs_client()
    bucket, name = gs_parts(source)
    blob = client.bucket(bucket).blob(name)
    with gs_errors():
        once(blob.reload)()
        version = f'{blob.generation}-{blob.crc32c}'
        if known == version:
            return None
        headers = {'Range': f'bytes={start}-'} if start and part_of == version else {}
        response = _get(session, blob.media_link, headers)
    if blob.content_encoding == 'gzip':  # unpacked by the server: size and checksums are those of the packed bytes
        return Answer(0, None, version, {}, response)
    checksums = {'crc32c': blob.crc32c, 'md5': blob.md5_hash}
    checksums = {kind: value for kind, value in checksums.items() if value}
    return Answer(_first_byte(response), blob.size, version, checksums, response)


def _ask_http(source, start, part_of, known):
    headers = {}
    if start and not part_of.startswith('W/'):  # a weak ETag does not guarantee the same bytes
        headers.update({'Range': f'bytes={start}-', 'If-Range': part_of})
    elif known:
        headers['If-Modified-Since' if known.endswith(' GMT') else 'If-None-Match'] = known
    response = _get(_session(), source, headers)
    if response.status_code == 304:
        response.close()
        return None
    given = response.headers
    version = given.get('ETag') or given.get('Last-Modified') or ''
    checksums = _checksums(response)
    whole = re.match(r'bytes \d+-\d+/(\d+)', given.get('Content-Range', '')) if response.status_code == 206 else None
    size = int(whole.group(1) if whole else given.get('Content-Length', -1))
    if size < 0 and not checksums and 'chunked' not in given.get('Transfer-Encoding', ''):
        response.close()
        raise RemoteError('the server gives neither size nor checksum, so a cut download would go unnoticed')
    return Answer(_first_byte(response), None if size < 0 else size, version, checksums, response)


@functools.lru_cache(maxsize=1)
def _session():
    import requests

    return requests.Session()


def _get(session, url, headers):
    """Send a GET and return the response before its body is read; raise an error for a status without a body."""
    with _network_errors():
        # If the server packed the bytes, they would not match the size and checksum.
        headers = dict(headers, **{'Accept-Encoding': 'identity'})
        response = session.get(url, headers=headers, stream=True, timeout=(CONNECT_SECONDS, STALL_SECONDS))
    if response.status_code not in (200, 206, 304):
        response.close()
        _check_status(response.status_code, response.headers)
        raise RemoteError(f'the server answers {response.status_code} {response.reason}')
    if response.headers.get('Content-Encoding', 'identity') != 'identity':
        response.close()
        raise RemoteError('the server sends the file packed, although we asked it not to')
    return response


def _first_byte(response) -> int:
    """Return the position in the object at which the body of a response begins."""
    place = re.match(r'bytes (\d+)-', response.headers.get('Content-Range', ''))
    return int(place.group(1)) if response.status_code == 206 and place else 0


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


def _check_status(status: int, headers: Dict[str, str]) -> None:
    """Raise the error that an HTTP status stands for; return if it stands for none."""
    if status in (404, 410):
        raise Missing(f'not found ({status})')
    if status in (401, 403):
        raise Refused(f'no permission ({status})')
    if status == 416:
        raise _OutOfRange('no such range (416)')
    if status in (408, 425, 429) or status >= 500:
        raise Temporary(f'the server answers {status}', _pause(headers.get('Retry-After', '')))


def _pause(retry_after: str) -> float:
    """Return the seconds to wait by a Retry-After header, which is a number or a date; 0 if it is neither."""
    if retry_after.isdigit():
        return float(retry_after)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError):
        return 0.0


@contextlib.contextmanager
def _network_errors() -> Iterator[None]:
    """Turn the errors of `requests` into those of this module."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        if 'CERTIFICATE_VERIFY_FAILED' in str(error):
            raise RemoteError('its certificate cannot be verified') from None
        raise Temporary(_reason(error)) from None
    except requests.exceptions.Timeout:
        raise Temporary(f'no answer for {STALL_SECONDS} seconds') from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        if 'timed out' in str(error):
            raise Temporary(f'no data for {STALL_SECONDS} seconds') from None
        raise Temporary('the connection ended early' if 'IncompleteRead' in str(error) else _reason(error)) from None
    except requests.exceptions.RequestException as error:  # such as a bad URL or too many redirects
        raise RemoteError(_reason(error)) from None


def _reason(error: Exception) -> str:
    """Return what went wrong, without the names of Python objects."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    text = str(getattr(cause, 'reason', cause))
    return re.sub(r"^.*(?:object at 0x\w+>|port=\d+\)): |[()<>']", '', text) or type(error).__name__
