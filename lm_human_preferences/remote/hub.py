"""Files on the Hugging Face hub, by the URLs of the hub's own file system.

    hf://OWNER/NAME[@REVISION][/PATH]            a repository of a model
    hf://datasets/OWNER/NAME[@REVISION][/PATH]   a repository of data

The library huggingface_hub moves the bytes, and keeps them in its own cache, where other programs find them. Its
settings hold here, too: a login or HF_TOKEN, HF_ENDPOINT, HF_HUB_CACHE and HF_HUB_OFFLINE. This module adds what it
lacks: a process reads all files of a repository at one commit, a listing is kept for later runs that are offline, and
each error is one line that says what to do. It asks once: storage.py tries again.

The library is optional, and slow to load, so it is imported where it is used.
"""

import errno
import functools
import inspect
import logging
import os
import re
import sys
import time
from typing import Any, Callable, Dict, List, NamedTuple, Optional, Tuple
from urllib.parse import quote, unquote

from lm_human_preferences.remote.cache import cache_folder
from lm_human_preferences.remote.failures import (
    Missing,
    RemoteError,
    Temporary,
    Unreachable,
    network_errors,
    pause_of,
)
from lm_human_preferences.utils.errors import UserError, short
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.json_files import read_json

SCHEME = 'hf://'
_URL = re.compile(
    r'hf://(?P<kind>datasets/|)(?P<repo>[\w.-]+/[\w.-]+)(@(?P<revision>refs/(?:convert|pr)/[^/@]+|[^/@]+))?(/(?P<path>.*))?',
    re.ASCII,
)
_PATIENT_SECONDS = 15.0  # a request that failed after longer was tried again by the library
_LOGIN = 'log in with the command of huggingface_hub, or set HF_TOKEN'
_NO_FILE = 'the repository has no such file (404)'
_commits: Dict[Tuple, str] = {}  # what a revision stands for in this process


class Place(NamedTuple):
    """What an hf:// URL names."""

    kind: str  # 'model' or 'dataset'
    repo: str  # OWNER/NAME
    revision: Optional[str]  # a branch, a tag or a commit; None: the main branch
    path: str  # of a file or a folder in the repository; '' for the whole of it

    @property
    def title(self) -> str:
        """The URL of the repository at the revision."""
        kind = 'datasets/' if self.kind == 'dataset' else ''
        revision = f'@{self.revision}' if self.revision else ''
        return f'{SCHEME}{kind}{self.repo}{revision}'

    @property
    def pinned(self) -> Optional[str]:
        """The revision to ask for: the commit that the first answer to this process named."""
        return _commits.get((self.kind, self.repo, self.revision), self.revision)


def is_hub(source: str) -> bool:
    """Return whether `source` is an hf:// URL."""
    return source.startswith(SCHEME)


def parse(url: str) -> Place:
    """Split an hf:// URL. UserError if it is not one of the spellings above."""
    match = _URL.fullmatch(url)
    path = (match.group('path') or '').rstrip('/') if match else ''
    if match is None or any(part in ('', '.', '..') or '\0' in part for part in (path.split('/') if path else [])):
        raise UserError(
            f'{url} names nothing on the hub: give hf://OWNER/NAME[@REVISION][/PATH], such as '
            'hf://openai-community/gpt2, or hf://datasets/OWNER/NAME[@REVISION]/PATH'
        )
    revision = match.group('revision')
    kind = 'dataset' if match.group('kind') else 'model'
    return Place(kind, match.group('repo'), unquote(revision) if revision else None, path)


def fetch(url: str) -> str:
    """Return the local path of a file on the hub, in the hub's cache; fetch it if it is not there.

    The files of a repository that one process fetches lie together in one folder, as in the repository.

    Raises Missing if the repository has no such file, Temporary for failures that may pass, and RemoteError.
    """
    place = parse(url)
    if not place.path:
        raise UserError(f'{url} is a whole repository: give a file of it, as in {place.title}/PATH')
    library = load_library()
    if place.pinned != place.revision:  # what a commit holds does not change
        known = _look(place)
        if isinstance(known, str):
            return known
        if known is not None:
            raise Missing(_NO_FILE)
    # The library of Python 3.7 starts again unless told otherwise; later ones always resume.
    resume = inspect.signature(library.hf_hub_download).parameters.get('resume_download')
    options = {'resume_download': True} if resume is not None and resume.default is False else {}
    try:
        path = _asked(
            place,
            lambda: library.hf_hub_download(
                place.repo, place.path, repo_type=place.kind, revision=place.pinned, token=_token(), **options
            ),
        )
    except Missing:
        raise
    except (RemoteError, Temporary):
        known = cached(url)
        if known is None:
            raise
        return known
    _pin(place, _commit_of(path, place.path))
    return path


def cached(url: str) -> Optional[str]:
    """Return the local path of a file that the hub's cache has for the revision. None: ask the hub."""
    found = _look(parse(url))
    return found if isinstance(found, str) else None


def _look(place: Place) -> Any:
    """Return what the hub's cache has for a file: its path, None, or an object that says that there is no such file."""
    return load_library().try_to_load_from_cache(
        place.repo, place.path, revision=place.pinned or 'main', repo_type=place.kind
    )


def files(url: str) -> List[str]:
    """Return the paths of all files of a repository, sorted. If the hub does not answer, as listed at an earlier time.

    Raises Temporary for failures that may pass, and RemoteError.
    """
    place = parse(url)
    library = load_library()
    record = os.path.join(cache_folder('hf', 'listings'), quote(place._replace(path='').title, safe='') + '.json')

    def ask() -> Dict[str, Any]:
        if library.constants.HF_HUB_OFFLINE:  # its version for Python 3.7 would ask all the same
            raise _offline(place)
        api = library.HfApi(token=_token())
        commit = api.repo_info(place.repo, repo_type=place.kind, revision=place.pinned).sha
        if not commit:
            raise _other_server()
        return {'commit': commit, 'files': api.list_repo_files(place.repo, repo_type=place.kind, revision=commit)}

    try:
        listing = _asked(place, ask)
        write_json(record, listing)
    except (Unreachable, Missing, Temporary):
        if not os.path.exists(record):
            raise
        listing = read_json(record)
    _pin(place, listing['commit'])
    return sorted(listing['files'])


def upload(url: str, folder: str, message: str, private: bool = False) -> str:
    """Put the files of a local folder into a repository, in one commit; make the repository if it is not there.

    Args:
      private: whether a new repository is private.

    Returns:
      the address of the commit.

    Raises:
      Temporary: a failure that may pass. What was uploaded before is not sent again.
      RemoteError: the hub refuses.
    """
    place = parse(url)
    if place.path:
        raise UserError(f'{url} is a path in a repository: give {place.title}')

    def send() -> str:
        library = load_library()
        if library.constants.HF_HUB_OFFLINE:
            raise Unreachable('HF_HUB_OFFLINE is set: unset it')
        api = library.HfApi(token=_token())
        api.create_repo(place.repo, repo_type=place.kind, private=private, exist_ok=True)
        if place.revision:
            api.create_branch(place.repo, repo_type=place.kind, branch=place.revision, exist_ok=True)
        done = api.upload_folder(
            repo_id=place.repo,
            repo_type=place.kind,
            revision=place.revision,
            folder_path=folder,
            commit_message=message,
        )
        return str(getattr(done, 'commit_url', done))

    return _asked(place, send, writes=True)


def commits() -> Dict[str, str]:
    """Return the commits that this process reads, by the URL of the repository at its revision."""
    return {Place(*key, path='').title: commit for key, commit in _commits.items()}


def check_commits(others: Dict[str, str]) -> None:
    """Compare `commits` of another process of the run with ours; UserError if a repository changed in between."""
    ours = commits()
    for url in sorted(set(ours) & set(others)):
        if ours[url] != others[url]:
            raise UserError(
                f'{url} changed while the run started: one rank read commit {others[url][:12]}, and another one '
                f'{ours[url][:12]}: give the same command again, or name a commit, as in OWNER/NAME@COMMIT'
            )


def forget() -> None:
    """Forget which commits this process reads."""
    _commits.clear()


def _pin(place: Place, commit: str) -> None:
    _commits.setdefault((place.kind, place.repo, place.revision), commit)


def _commit_of(local: str, path: str) -> str:
    """Return the commit in the path of a file in the hub's cache: …/snapshots/COMMIT/PATH."""
    return os.path.basename(local[: -len(path) - 1])


@functools.lru_cache(maxsize=1)
def load_library():
    """Return the module huggingface_hub, silenced."""
    import huggingface_hub

    if 'HF_HUB_VERBOSITY' not in os.environ:
        huggingface_hub.logging.set_verbosity(logging.CRITICAL)  # its lines repeat what our errors say
    if not sys.stderr.isatty():
        huggingface_hub.utils.disable_progress_bars()
    return huggingface_hub


def _token() -> Optional[str]:
    """Return the token in HF_TOKEN where the library does not know this variable. None: the library finds a token."""
    return re.sub(r'\s', '', os.environ.get('HF_TOKEN', '')) or None if sys.version_info < (3, 8) else None


def _asked(place: Place, ask: Callable[[], Any], writes: bool = False) -> Any:
    """Call the library, and turn its errors into those of `failures`."""
    began = time.monotonic()
    try:
        return ask()
    except (RemoteError, Temporary):
        raise
    except Exception as error:
        problem = _problem(place, error, writes)
        if problem is None:
            raise
        tried_again = time.monotonic() - began > _PATIENT_SECONDS and not isinstance(problem, _Broken)
        raise Unreachable(str(problem)) if isinstance(problem, Temporary) and tried_again else problem from None


class _Broken(Temporary):
    """A connection ended in the middle of a body."""


def _problem(place: Place, error: Exception, writes: bool) -> Optional[Exception]:
    """Return the error of `failures` that stands for one of the library; None for a fault that is not the hub's."""
    utils, constants = load_library().utils, load_library().constants
    cause = error
    while isinstance(cause, (utils.LocalEntryNotFoundError, RuntimeError)) and isinstance(cause.__cause__, Exception):
        cause = cause.__cause__
    response = getattr(cause, 'response', None)
    status = getattr(response, 'status_code', None)
    if writes and (status in (401, 403, 404) or 'Token is required' in str(cause)):
        answer = f' ({status})' if status else ''
        return RemoteError(f'no permission to write to {place.repo}{answer}: {_LOGIN} to a token that may write there')
    if response is not None:
        return _by_status(place, status, response.headers)
    if constants.HF_HUB_OFFLINE and isinstance(cause, (utils.LocalEntryNotFoundError, ConnectionError)):
        return _offline(place)
    if isinstance(cause, utils.HFValidationError):
        return UserError(f'{place.title}: {cause}')
    if isinstance(cause, utils.LocalEntryNotFoundError):
        return Temporary(_no_answer(''))
    library = type(cause).__module__.partition('.')[0]
    if library == 'requests' and 'JSONDecode' not in type(cause).__name__:
        try:
            with network_errors():
                raise cause
        except Temporary as problem:
            reason = re.sub(' for [0-9]+ seconds', '', str(problem))  # these are limits of our own requests
            broken = reason in ('no data', 'the connection ended early')
            return _Broken(reason) if broken else Temporary(_no_answer(reason if reason != 'no answer' else ''))
        except RemoteError as problem:
            return problem
        except Exception:
            return None
    if library in ('httpx', 'httpx2'):  # what later versions of the library speak through
        name = type(cause).__name__
        broken = 'Protocol' in name or 'Read' in name
        return _Broken('the connection ended early') if broken else Temporary(_no_answer(name))
    return _by_text(cause)


def _by_text(cause: Exception) -> Optional[Exception]:
    """Return the error that stands for one that the library tells apart only by its text."""
    if isinstance(cause, OSError) and cause.filename:
        full = cause.errno in (errno.ENOSPC, errno.EDQUOT)
        return RemoteError(
            f'{"no space left for" if full else "cannot write"} {cause.filename} ({cause.strerror}): '
            f'{"free some space" if full else "make the folder writable"}, or set HF_HUB_CACHE to another folder'
        )
    if isinstance(cause, OSError) and cause.errno in (errno.ENOSPC, errno.EDQUOT):
        return RemoteError(f'{cause.strerror}: free some space, or set HF_HUB_CACHE to another folder')
    name, text = type(cause).__name__, str(cause)
    if isinstance(cause, RuntimeError) or name.startswith('Xet'):  # of the library that stores large files in pieces
        return _Broken(f'the transfer failed: {short(text)}')
    if 'LFS batch API' in text:
        return RemoteError(f'the hub does not take a file: {short(text)}')
    if 'Consistency check failed' in text:
        return _Broken('the connection ended before the end of the file')
    is_other = isinstance(cause, KeyError) or 'JSONDecode' in name
    if is_other or 'Distant resource' in text or 'X-Repo-Commit' in text:
        return _other_server()
    return None


def _other_server() -> RemoteError:
    return RemoteError(f'{endpoint()} does not answer as the hub does: check HF_ENDPOINT and the proxy')


def endpoint() -> str:
    """Return the address of the hub: HF_ENDPOINT, or the public one."""
    return os.environ.get('HF_ENDPOINT', '').rstrip('/') or 'https://huggingface.co'


def _no_answer(reason: str) -> str:
    return f'{endpoint()} does not answer{f" ({reason})" if reason else ""}: check the network, or set HF_ENDPOINT'


def _offline(place: Place) -> Exception:
    """Return the error for a file that is not in the cache while HF_HUB_OFFLINE is set.

    It is `Missing` if other files of the repository are there: then the search for files goes on.
    """
    reason = 'HF_HUB_OFFLINE is set, and this is not in the cache of the hub: unset it, or fetch it before'
    constants = load_library().constants
    cache = getattr(constants, 'HF_HUB_CACHE', None) or constants.HUGGINGFACE_HUB_CACHE
    snapshots = os.path.join(cache, f'{place.kind}s--' + place.repo.replace('/', '--'), 'snapshots')
    return Missing(reason) if os.path.isdir(snapshots) and os.listdir(snapshots) else Unreachable(reason)


def _by_status(place: Place, status: int, headers: Dict[str, str]) -> Exception:
    """Return the error that an answer of the hub stands for."""
    code = headers.get('X-Error-Code', '')
    if code == 'EntryNotFound':
        if headers.get('X-Repo-Commit'):
            _pin(place, headers['X-Repo-Commit'])
        return Missing(_NO_FILE)
    if code == 'RevisionNotFound':
        return RemoteError(
            f'the repository has no revision {place.revision or "main"}: give a branch, a tag or a commit of it'
        )
    if code == 'GatedRepo':
        page = f'{endpoint()}/{"datasets/" if place.kind == "dataset" else ""}{place.repo}'
        return RemoteError(f'the repository is gated ({status}): ask for access at {page}, then {_LOGIN}')
    if code == 'RepoNotFound' or status in (401, 404):
        return RemoteError(
            f'there is no repository {place.repo} that you may read ({status}): check the name; '
            f'if it is private, {_LOGIN}'
        )
    if status == 403:
        return RemoteError('no permission (403): the token of your login or in HF_TOKEN does not allow this')
    if status == 429:
        return Temporary(f'the hub answers 429, too many requests: try again later, or {_LOGIN}', pause_of(headers))
    if status in (408, 425) or status >= 500:
        return Temporary(f'the hub answers {status}: try again later', pause_of(headers))
    return RemoteError(f'the hub answers {status}')
