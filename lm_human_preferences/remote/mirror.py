"""Save run folders to gs://: write them on this machine, and copy them to the bucket as they grow.

TensorFlow's own file system for gs:// is not used. It would save only the checkpoints, and it knows only Google's
server. If that refuses connections, TensorFlow 2.15.1 raises an error after 195 s and 1.13.2 after 99 s, against 17 and
19 s here. If it accepts them and does not answer, they wait 865 s and 768 s, against 324 s here (on Python 3.11).

In this module every file is complete on disk before it is copied. The files of a checkpoint are copied before the file
that names the checkpoint, so the run in the bucket can be sampled or resumed at any time.
"""

import contextlib
import json
import os
import re
import socket
import threading
from typing import Callable, Dict, Iterator, List, Optional, TypeVar

from lm_human_preferences.remote import storage
from lm_human_preferences.remote.cache import cache_folder
from lm_human_preferences.remote.failures import Missing, Temporary, Unreachable, gs_errors
from lm_human_preferences.remote.transports import gs_client, gs_parts, once
from lm_human_preferences.utils.errors import UserError
from lm_human_preferences.utils.files import write_json
from lm_human_preferences.utils.json_files import read_json
from lm_human_preferences.utils.locks import locked
from lm_human_preferences.utils.progress import say

COPY_SECONDS = 60.0  # between two copies

# Hidden files, and temporary files that are renamed when they are complete.
_UNFINISHED = re.compile(r'(\A|/)\.|\.tempstate\d|_temp_\w+/|\.tmp')
_CHECKPOINT = re.compile(r'((?:.*/)?)(model\.ckpt-\d+)\.')
_POINTER = 'checkpoint'  # the file in which TensorFlow lists the checkpoints of a folder
_RECORD = '.copied.json'  # of each file that is the same in both places: local size and time, version in the bucket
_CLEARED = '.cleared'  # says that the folder's last run was removed on purpose, with whole folders in it

T = TypeVar('T')


@contextlib.contextmanager
def mirrored(folder: str) -> Iterator[str]:
    """Yield the local folder in which to write a run: `folder` itself, or for gs://… one that is copied to the bucket.

    First the run is downloaded from the bucket, so that it can be resumed on another machine. Then it is copied to the
    bucket every minute and at the end. OSError if the bucket cannot be written; the local files are kept, and the same
    command copies them.
    """
    if not storage.is_remote(folder):
        yield folder
        return
    mirror = Mirror(folder)
    with mirror.owned():
        mirror.open()
        over = threading.Event()
        thread = threading.Thread(target=mirror.follow, args=[over], daemon=True)
        thread.start()
        failed = True
        try:
            yield mirror.local
            failed = False
        finally:
            over.set()
            thread.join()
            try:
                mirror.copy()
            except OSError as error:
                if not failed:
                    raise
                say(str(error))  # the error of the run is the one to raise


def is_used(url: str) -> bool:
    """Return whether there are objects below gs://BUCKET/PATH."""
    bucket, path = gs_parts(url.rstrip('/'))
    listing = once(gs_client()[0].bucket(bucket).list_blobs)(prefix=path + '/', max_results=1)
    return bool(_again(lambda: list(listing)))


def note_cleared(folder: str) -> None:
    """Note that a run was removed from its local folder on purpose, if that folder is copied to a bucket."""
    if os.path.exists(os.path.join(folder, _RECORD)):
        write_json(os.path.join(folder, _CLEARED), True)


class Mirror:
    """The folder `local` on this machine and its copy at gs://BUCKET/PATH."""

    def __init__(self, url: str):
        self.url = url.rstrip('/')
        bucket, self._path = gs_parts(self.url)
        self.local = cache_folder('runs', bucket, *self._path.split('/'))
        self._bucket = gs_client()[0].bucket(bucket)
        self._record_file = os.path.join(self.local, _RECORD)
        self._record: Dict[str, List[int]] = {}
        if os.path.exists(self._record_file):
            self._record = _read_record(self._record_file)

    @contextlib.contextmanager
    def owned(self) -> Iterator[None]:
        """Prevent other processes of this host from writing the same run; UserError if one already does."""
        with contextlib.ExitStack() as stack:
            try:
                stack.enter_context(locked(self.local, wait=False))
            except BlockingIOError:
                raise UserError(f'{self.url}: another process is writing this run: give another NAME') from None
            yield

    def open(self) -> None:
        """Download what is new in the bucket, but only the last checkpoint; OSError if the bucket cannot be written."""
        origin = json.dumps(dict(host=socket.gethostname(), folder=self.local))
        try:
            _again(lambda: once(self._blob('.origin.json').upload_from_string)(origin))
            blobs = {blob.name[len(self._path) + 1 :]: blob for blob in _again(self._list)}
        except OSError as error:
            raise type(error)(f'cannot save to {self.url}: {error}') from error
        for name in [name for name in self._record if not self._may_be_removed(name)]:
            del self._record[name]  # its folder was moved away: it is downloaded again
        for name in set(self._record) - set(blobs):  # removed from the bucket
            del self._record[name]
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._local(name))
        new = [name for name, blob in blobs.items() if self._record.get(name, [0])[-1] != blob.generation]
        for name in sorted(new, key=_is_pointer, reverse=True):  # pointers first: they name the checkpoints to download
            if name and not name.endswith('/') and not _UNFINISHED.search(name) and self._is_needed(name):
                os.makedirs(os.path.dirname(self._local(name)), exist_ok=True)
                os.replace(storage.local_file(f'{self.url}/{name}'), self._local(name))
                self._record[name] = [*self._facts(name), blobs[name].generation]
        write_json(self._record_file, self._record)

    def follow(self, over: threading.Event) -> None:
        """Copy every minute until `over` is set; report a failure and try again a minute later."""
        while not over.wait(COPY_SECONDS):
            try:
                self.copy()
            except OSError as error:
                say(f'{error}; trying again')

    def copy(self) -> None:
        """Copy what changed to the bucket, and remove there what was removed here; OSError if that fails.

        Files whose whole folder is gone stay in the bucket, as somebody may have moved it.
        """
        try:
            os.stat(self._record_file)  # if the folder itself is gone, nothing in it was removed
            files = {name: self._facts(name) for name in self._names()}
            # Read the pointers first: a later version may name a checkpoint that is not in `files`.
            pointers = {name: self._read(name) for name in files if _is_pointer(name)}
            for name, facts in sorted(files.items(), key=lambda item: _is_pointer(item[0])):
                if facts and self._record.get(name, [])[:-1] != facts:
                    self._record[name] = [*facts, self._put(name, pointers.get(name))]
            removed = [name for name in self._record if not self._facts(name)]
            for name in filter(self._may_be_removed, removed):
                with contextlib.suppress(Missing):
                    _again(once(self._blob(name).delete))
                del self._record[name]
            write_json(self._record_file, self._record)
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._local(_CLEARED))
        except OSError as error:
            raise type(error)(f'cannot copy the run from {self.local} to {self.url}: {error}') from error

    def _may_be_removed(self, name: str) -> bool:
        """Return False for a file whose folder is gone, unless the run was removed on purpose."""
        return os.path.isdir(os.path.dirname(self._local(name))) or os.path.exists(self._local(_CLEARED))

    def _put(self, name: str, content: Optional[bytes]) -> int:
        """Upload a file, or `content` in its place; return its version in the bucket."""
        blob = self._blob(name)
        if content is not None:
            _again(lambda: once(blob.upload_from_string)(content))
        else:
            _again(lambda: once(blob.upload_from_filename)(self._local(name)))
        return blob.generation

    def _names(self) -> List[str]:
        """Return the complete files of the local folder."""
        found = []
        for parent, _, names in os.walk(self.local):
            found += [os.path.relpath(os.path.join(parent, name), self.local) for name in names]
        return [name for name in found if not _UNFINISHED.search(name)]

    def _is_needed(self, name: str) -> bool:
        """Return False for the files of a checkpoint that is not the last one; True if the last one is not named."""
        checkpoint = _CHECKPOINT.match(name)
        if checkpoint is None:
            return True
        folder, prefix = checkpoint.groups()
        last = re.search(rb'^model_checkpoint_path: ".*?([^/"]*)"', self._read(folder + _POINTER), re.MULTILINE)
        return last is None or last.group(1).decode('utf-8', 'replace') == prefix

    def _facts(self, name: str) -> List[int]:
        """Return the size and time of a local file; [] if it was removed."""
        try:
            status = os.stat(self._local(name))
        except FileNotFoundError:
            return []
        return [status.st_size, status.st_mtime_ns]

    def _read(self, name: str) -> bytes:
        try:
            with open(self._local(name), 'rb') as file:
                return file.read()
        except FileNotFoundError:
            return b''

    def _local(self, name: str) -> str:
        return os.path.join(self.local, name)

    def _blob(self, name: str):
        return self._bucket.blob(f'{self._path}/{name}')

    def _list(self):
        return list(once(self._bucket.list_blobs)(prefix=self._path + '/'))


def _again(action: Callable[[], T]) -> T:
    """Run a request to the bucket; try again after temporary failures."""
    for failed in range(1, storage.ATTEMPTS + 1):
        try:
            with gs_errors():
                return action()
        except Temporary as problem:
            last = problem
            if failed < storage.ATTEMPTS:
                storage.wait('the bucket', problem, failed)
    raise Unreachable(str(last))


def _read_record(path: str) -> Dict[str, List[int]]:
    """Return the record of the copied files. UserError if it is damaged: nobody knows then which side is newer."""
    try:
        record = read_json(path)
        if isinstance(record, dict) and all(isinstance(facts, list) for facts in record.values()):
            return record
        fault = f'{path}: damaged'
    except ValueError as error:
        fault = str(error)
    raise UserError(f'{fault}: move {os.path.dirname(path)} away, and the same command fetches the run from its bucket')


def _is_pointer(name: str) -> bool:
    return os.path.basename(name) == _POINTER
