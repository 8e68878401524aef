"""Texts as people read them: on one line, and without the secrets that URLs may hold.

A URL may hold a password (https://USER:PASSWORD@HOST/…) or a signature (https://HOST/…?sig=…). Neither is printed, nor
written to files that may be shared: `without_secrets` leaves both out wherever a message is made or a file is saved.
"""

import re
from typing import Any, List, Tuple
from urllib.parse import parse_qsl

_URL = re.compile(r'\b[a-z][a-z0-9+.-]{0,20}://[^\s"<>]*', re.IGNORECASE)
# A value that is a URL, perhaps behind a word as in text:https://…
_WHOLE_URL = re.compile(r'((?:[a-z]+:)?)[a-z][a-z0-9+.-]{0,20}://', re.IGNORECASE)
# What may follow the URL of a data set: the names of its columns.
_COLUMNS = re.compile(r'(?:jsonl|parquet):[^#]*(#[\w ,.-]+)')
_HOST = re.compile(r'(\[[^\]]*\]|[^:]*)(:[0-9]*)?[:;,.)\]\']*\Z')
# Parameters of a query that say who asks and until when, not what for: those of Azure, Amazon, Google and others.
_SIGNATURE = re.compile(
    r'sig|s[eptvr]|spr|sip|srt|ss|sk(oid|tid|t|e|s|v)|x-(amz|goog)-.*|awsaccesskeyid|googleaccessid|signature|expires|'
    r'policy|key-pair-id|.*(token|key|secret|passw|auth|credential|session).*',
    re.IGNORECASE,
)


def one_line(text: str) -> str:
    """Return the text on one line: each newline becomes ⏎."""
    return text.replace('\n', '⏎')


def without_secrets(text: str) -> str:
    """Return a text whose URLs have no user, password, query or fragment."""
    return _URL.sub(lambda url: _shared_part(url.group()), text) if '://' in text else text


def shared(content: Any) -> Any:
    """Return nested lists and dictionaries in which all texts, also keys, are `without_secrets`.

    A text that begins like a URL is one as a whole, even if it has spaces.
    """
    if isinstance(content, dict):
        return {shared(key): shared(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [shared(item) for item in content]
    if not isinstance(content, str):
        return content
    start = _WHOLE_URL.match(content)
    if not start:
        return without_secrets(content)
    match = _COLUMNS.fullmatch(content)
    columns = match.group(1) if match else ''
    return start.group(1) + _shared_part(content[start.end(1) : len(content) - len(columns)]) + columns


def same_source(one: Any, other: Any) -> bool:
    """Return whether two values name the same thing: equal, or URLs that differ only in user and signature.

    One of them may be only the `shared` part of a URL.
    """
    if one == other or not (isinstance(one, str) and isinstance(other, str)):
        return one == other
    part = shared(one)
    return part == shared(other) and (part in (one, other) or parameters(one) == parameters(other))


def parameters(url: str) -> List[Tuple[str, str]]:
    """Return the parameters in the query of a URL that say what is asked for, and not who asks."""
    query = url.partition('?')[2].partition('#')[0]
    return [item for item in parse_qsl(query, keep_blank_values=True) if not _SIGNATURE.fullmatch(item[0])]


def _shared_part(url: str) -> str:
    """Return a URL without user, password, query and fragment; without everything if they cannot be told apart."""
    scheme, _, rest = url.partition('://')
    if scheme.lower() == 'hf' and not re.match('[^/]*[@:?]', rest):
        return url  # a repository, a revision behind @, and names; the hub takes no password in a URL
    place = re.split('[?#]', rest)[0]
    host, slash, path = place.partition('/')
    name_in_path = '@' in path and ':' in place.rpartition('@')[0]
    if name_in_path or ('@' not in host and not _HOST.match(host)):
        place = '…'  # perhaps a name or a password with one of / ? # in it
    end = re.search(r"[:;,.)\]']*\Z", rest).group() if place != rest else ''  # of the sentence around it
    return f'{scheme}://{host.rpartition("@")[2]}{slash}{path}{end}' if place != '…' else f'{scheme}://…{end}'
