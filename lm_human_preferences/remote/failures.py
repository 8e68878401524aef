"""What can go wrong between us and a server: the errors of two libraries and the statuses of HTTP, in one form.

The texts of the libraries' errors about URLs are not used: they hold the URL, perhaps that of a proxy, with its
password.
"""

import contextlib
import email.utils
import importlib.util
import os
import re
import ssl
import time
from typing import Dict, Iterator, Mapping
from urllib.parse import urlsplit

CONNECT_SECONDS = 10
STALL_SECONDS = 30  # the longest wait for the next byte
_BAD_PROXY = 'the address of the proxy (in HTTP_PROXY, HTTPS_PROXY or ALL_PROXY) cannot be read'


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


class OutOfRange(Temporary):
    """The object has no bytes from the requested start on."""


class Unfit(Temporary):
    """The answer does not fit the question, such as another part of the object than was asked for."""


@contextlib.contextmanager
def gs_errors() -> Iterator[None]:
    """Turn the errors of google-cloud-storage into those of this module."""
    from google.api_core.exceptions import GoogleAPICallError
    from google.auth.exceptions import GoogleAuthError, TransportError

    try:
        with network_errors():
            yield
    except GoogleAPICallError as error:
        check_status(error.code or 500, getattr(error.response, 'headers', {}))
        raise RemoteError(error.message) from None
    except TransportError as error:
        raise Temporary(_reason(error)) from None
    except GoogleAuthError as error:
        raise Refused(f'no permission: {error}') from None
    except ValueError as error:
        if 'nonymous' in str(error):  # google-auth of 2021: there are no credentials to renew
            raise Refused(f'no permission: {error}') from None
        raise


def check_status(status: int, headers: Dict[str, str]) -> None:
    """Raise the error that an HTTP status stands for; return if it stands for none."""
    if status in (404, 410):
        raise Missing(f'not found ({status})')
    if status in (401, 403):
        raise Refused(f'no permission ({status})')
    if status == 416:
        raise OutOfRange('no such range (416)')
    if status in (408, 425, 429) or status >= 500:
        raise Temporary(f'the server answers {status}', pause_of(headers))


def pause_of(headers: Mapping[str, str]) -> float:
    """Return the seconds to wait by the header Retry-After, which is a number or a date; 0 if it is neither."""
    retry_after = headers.get('Retry-After', '')
    if re.match(r'[0-9]+\Z', retry_after):
        return float(retry_after[:18])
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (TypeError, ValueError, LookupError, OverflowError):
        return 0.0


@contextlib.contextmanager
def network_errors() -> Iterator[None]:
    """Turn the errors of `requests` into those of this module."""
    import requests

    try:
        yield
    except requests.exceptions.SSLError as error:
        if 'CERTIFICATE_VERIFY_FAILED' in str(error):
            raise RemoteError('its certificate cannot be verified') from None
        _check_certificates()
        raise Temporary(_reason(error)) from None
    except requests.exceptions.Timeout:
        raise Temporary(f'no answer for {STALL_SECONDS} seconds') from None
    except (requests.exceptions.ConnectionError, requests.exceptions.ChunkedEncodingError) as error:
        if isinstance(error, requests.exceptions.InvalidProxyURL):
            raise RemoteError(_BAD_PROXY) from None
        if 'timed out' in str(error):
            raise Temporary(f'no data for {STALL_SECONDS} seconds') from None
        raise Temporary('the connection ended early' if 'IncompleteRead' in str(error) else _reason(error)) from None
    except requests.exceptions.RequestException as error:  # such as a bad URL or too many redirects
        if isinstance(error, ValueError):
            raise RemoteError(f'its URL cannot be read, or {_BAD_PROXY}') from None
        raise RemoteError(_reason(error)) from None
    except OSError as error:
        if 'TLS CA' in str(error):  # requests raises a plain OSError for certificates that are not there
            _check_certificates()
        raise


def check_addresses(url: str) -> None:
    """Raise RemoteError for a URL that does not parse, or if the proxy for it has an address that does not."""
    import requests
    import urllib3

    try:
        address = requests.Request('GET', url).prepare().url
        urlsplit(address).hostname.encode('idna')
    except ValueError:
        raise RemoteError('this URL cannot be read') from None
    proxy = requests.utils.select_proxy(url, requests.utils.get_environ_proxies(url))
    if proxy:
        try:
            parsed = urllib3.util.parse_url(requests.utils.prepend_scheme_if_needed(proxy, 'http'))
        except (ValueError, TypeError):
            parsed = None
        if not parsed or not parsed.host:
            raise RemoteError(_BAD_PROXY)
        if parsed.scheme.startswith('socks') and importlib.util.find_spec('socks') is None:
            raise RemoteError('the proxy is of the kind SOCKS, which needs the Python package PySocks')


def _check_certificates() -> None:
    """Raise RemoteError if the environment names certificates that cannot be read."""
    name = next((name for name in ('REQUESTS_CA_BUNDLE', 'CURL_CA_BUNDLE') if os.environ.get(name)), None)
    if name is None:
        return
    path = os.environ[name]
    try:
        ssl.create_default_context(**{'capath' if os.path.isdir(path) else 'cafile': path})
    except OSError as error:
        reason = 'no certificates' if isinstance(error, ssl.SSLError) else error.strerror
        raise RemoteError(
            f'{name} names {path}, which cannot be read ({reason}): '
            'name a file of certificates in PEM form, or unset the variable'
        ) from None


def _reason(error: Exception) -> str:
    """Return what went wrong, without the names of Python objects and without URLs."""
    cause = error.args[0] if error.args and isinstance(error.args[0], Exception) else error
    text = str(getattr(cause, 'reason', cause))
    text = re.sub(r"^.*(?:object at 0x\w+>|port=\d+\)): |[()<>']|(?: with)? url: \S+", '', text)
    return text.rstrip('.') or type(error).__name__
