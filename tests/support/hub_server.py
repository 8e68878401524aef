"""A server on this machine that speaks the protocol of the Hugging Face hub, for the real library huggingface_hub."""

import base64
import hashlib
import http.server
import json
import re
import threading
from typing import Dict, List, NamedTuple
from urllib.parse import parse_qs, unquote, urlsplit

from loopback import Running

LARGE = ('.safetensors', '.bin', '.parquet', '.npz', '-00001')  # the names of files that the hub keeps by LFS


class Repository:
    """A repository: its commits, and what its branches and tags name."""

    def __init__(self, files=None, private=False, gated=False):
        self.private, self.gated = private, gated
        self.commits: Dict[str, Dict[str, bytes]] = {}
        self.refs: Dict[str, str] = {}
        self.messages: List[str] = []
        self.commit(files or {})

    def commit(self, files, branch='main', message='first'):
        """Add a commit to a branch with all `files` ({path: bytes}), and return its id."""
        content = [(path, hashlib.sha1(data).hexdigest()) for path, data in sorted(files.items())]
        name = hashlib.sha1(repr((len(self.commits), content)).encode()).hexdigest()
        self.commits[name] = dict(files)
        self.refs[branch] = name
        self.messages.append(message)
        return name

    def find(self, revision):
        """Return the commit of a branch, a tag or a commit; None if there is none."""
        return self.refs.get(revision, revision if revision in self.commits else None)

    @property
    def files(self):
        """The files of the main branch."""
        return self.commits[self.refs['main']]


class Request(NamedTuple):
    """A request that the server got."""

    method: str
    path: str
    authorization: str
    range: str


class HubServer(Running, http.server.ThreadingHTTPServer):
    """The hub. `repos` holds models by OWNER/NAME, and data sets by datasets/OWNER/NAME.

    `faults` is a list of (pattern, fault): the next request whose 'METHOD path' matches the pattern takes the fault. A
    fault is a status, a tuple of status, headers and perhaps a body, 'cut' (half of the body), or 'stall' (half of the
    body, then silence).
    `tokens` are the valid ones; `readers` are those that may read what is gated. Files whose names end like LARGE are
    kept apart, on the `cdn`, as on the hub.
    """

    daemon_threads = True

    def __init__(self):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.release = threading.Event()
        self.clear()

    def stopping(self):
        self.release.set()

    def clear(self):
        """Forget all repositories and requests."""
        self.repos: Dict[str, Repository] = {}
        self.faults, self.requests = [], []
        self.tokens, self.readers = {'hf_writer', 'hf_reader'}, {'hf_reader'}
        self.objects: Dict[str, bytes] = {}  # of LFS, by the SHA-256
        self.verified: List[str] = []
        self.page_size = 1000

    @property
    def cdn(self):
        """The address of the large files: another host, which must not get the token."""
        return f'http://localhost:{self.server_port}'

    def put(self, name, files, **options):
        """Add a repository, and return it. The content of a file is bytes, text, or what becomes JSON."""
        data = {path: content if isinstance(content, bytes) else _text(content) for path, content in files.items()}
        self.repos[name] = Repository(data, **options)
        return self.repos[name]

    def asked(self, pattern):
        """Return the requests whose 'METHOD path' matches."""
        return [asked for asked in self.requests if re.search(pattern, f'{asked.method} {asked.path}')]


def _text(content):
    return (content if isinstance(content, str) else json.dumps(content)).encode('utf-8')


def _etag(path, data):
    """Return the hub's ETag: the SHA-256 of a large file, the object id of git of another."""
    return hashlib.sha256(data).hexdigest() if path.endswith(LARGE) else _git_id(data)


def _git_id(data):
    return hashlib.sha1(b'blob %d\0' % len(data) + data).hexdigest()


class _Refusal(Exception):
    """An answer that is an error."""

    def __init__(self, status, code='', message='', headers=None):
        super().__init__(message)
        self.status, self.headers = status, dict(headers or {})
        if code:
            self.headers['X-Error-Code'] = code
        self.headers['X-Error-Message'] = message


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def _handle(self):
        server, address = self.server, urlsplit(self.path)
        self.route, self.query = unquote(address.path), parse_qs(address.query)
        self.raw_path = address.path
        length = int(self.headers.get('Content-Length') or 0)
        self.content = self.rfile.read(length)
        server.requests.append(
            Request(self.command, self.route, self.headers.get('Authorization', ''), self.headers.get('Range', ''))
        )
        self.fault = self._next_fault()
        try:
            if isinstance(self.fault, (int, tuple)):
                status, headers, *body = self.fault if isinstance(self.fault, tuple) else (self.fault, {})
                if body:
                    return self._answer(status, headers, *body)
                raise _Refusal(status, message='as the test asks', headers=headers)
            for pattern, method in _ROUTES:
                match = re.fullmatch(pattern, f'{self.command} {self.raw_path}')
                if match:
                    return method(self, **{name: unquote(value or '') for name, value in match.groupdict().items()})
            raise _Refusal(404, message='no such page')
        except _Refusal as refusal:
            self._json({'error': str(refusal)}, refusal.status, refusal.headers)

    do_GET = do_HEAD = do_POST = do_PUT = _handle

    def _next_fault(self):
        for position, (pattern, fault) in enumerate(self.server.faults):
            if re.search(pattern, f'{self.command} {self.route}'):
                del self.server.faults[position]
                return fault
        return None

    @property
    def token(self):
        kind, _, value = self.headers.get('Authorization', '').partition(' ')
        if kind == 'Basic':
            value = base64.b64decode(value).decode().partition(':')[2]
        if value and value not in self.server.tokens:
            raise _Refusal(401, message='Invalid credentials in Authorization header')
        return value

    def _repository(self, kind, repo):
        """Return the key of a repository and the repository itself, if this client may read it."""
        name = f'datasets/{repo}' if kind.startswith('dataset') else repo
        found, token = self.server.repos.get(name), self.token
        if found is None or (found.private and not token):
            raise _Refusal(404 if token else 401, 'RepoNotFound', 'Repository not found')
        return name, found

    def _commit(self, found, revision):
        commit = found.find(revision)
        if commit is None:
            raise _Refusal(404, 'RevisionNotFound', f'Invalid rev id: {revision}')
        return commit

    # Reading.

    def resolve(self, kind, repo, revision, path):
        _, found = self._repository(kind, repo)
        commit = self._commit(found, revision)
        if found.gated and self.token not in self.server.readers:
            raise _Refusal(403 if self.token else 401, 'GatedRepo', f'Access to {repo} is restricted')
        headers = {'X-Repo-Commit': commit}
        data = found.commits[commit].get(path)
        if data is None:
            raise _Refusal(404, 'EntryNotFound', 'Entry not found', headers)
        etag = _etag(path, data)
        if not path.endswith(LARGE):
            return self._bytes(data, dict(headers, ETag=f'"{etag}"'))
        self.server.objects[etag] = data
        headers.update({'X-Linked-ETag': f'"{etag}"', 'X-Linked-Size': str(len(data))})
        self._answer(302, dict(headers, Location=f'{self.server.cdn}/cdn/{etag}?Signature=of-this-minute'), b'')

    def large_file(self, oid):
        self._bytes(self.server.objects[oid], {'ETag': f'"{oid}"'})

    def info(self, kind, repo, revision=''):
        _, found = self._repository(kind, repo)
        commit = self._commit(found, revision or 'main')
        files = [{'rfilename': path} for path in sorted(found.commits[commit])]
        self._json({'id': repo, 'modelId': repo, 'sha': commit, 'siblings': files, 'tags': [], 'private': False})

    def tree(self, kind, repo, revision, path=''):
        _, found = self._repository(kind, repo)
        files = found.commits[self._commit(found, revision)]
        entries = []
        for name in sorted(files):
            if name.startswith(f'{path}/' if path else ''):
                entry = {'type': 'file', 'path': name, 'size': len(files[name]), 'oid': _git_id(files[name])}
                if name.endswith(LARGE):
                    entry['lfs'] = {'oid': _etag(name, files[name]), 'size': len(files[name]), 'pointerSize': 134}
                entries.append(entry)
        start = int(self.query.get('cursor', ['0'])[0])
        end = start + self.server.page_size
        more = f'{self.server.url}{self.raw_path}?recursive=True&cursor={end}'
        self._json(entries[start:end], headers={'Link': f'<{more}>; rel="next"'} if end < len(entries) else {})

    # Writing.

    def _may_write(self):
        if not self.token:
            raise _Refusal(401, message='Invalid username or password.')
        if self.token != 'hf_writer':
            raise _Refusal(403, message='You have read access but not the required permissions for this operation')

    def create(self):
        self._may_write()
        wanted = json.loads(self.content)
        name = f'{wanted["organization"]}/{wanted["name"]}'
        key = f'datasets/{name}' if wanted.get('type') == 'dataset' else name
        if key in self.server.repos:
            return self._json({'error': 'You already created this repo', 'url': f'{self.server.url}/{key}'}, 409)
        self.server.repos[key] = Repository(private=wanted.get('private') or wanted.get('visibility') == 'private')
        self._json({'url': f'{self.server.url}/{key}', 'name': name})

    def branch(self, kind, repo, revision):
        self._may_write()
        _, found = self._repository(kind, repo)
        if revision in found.refs:
            raise _Refusal(409, message='Reference already exists')
        found.refs[revision] = found.refs['main']
        self._answer(201, {}, b'')

    def preupload(self, kind, repo, revision):
        self._may_write()
        self._repository(kind, repo)
        files = [
            {
                'path': file['path'],
                'uploadMode': 'lfs' if file['path'].endswith(LARGE) else 'regular',
                'shouldIgnore': False,
            }
            for file in json.loads(self.content)['files']
        ]
        self._json({'files': files})

    def lfs_batch(self, kind, repo):
        self._may_write()
        objects = []
        for wanted in json.loads(self.content)['objects']:
            entry = {'oid': wanted['oid'], 'size': wanted['size']}
            if wanted['oid'] not in self.server.objects:
                upload = {'href': f'{self.server.url}/lfs/{wanted["oid"]}'}
                verify = {'href': f'{self.server.url}/verify/{wanted["oid"]}'}
                entry['actions'] = {'upload': upload, 'verify': verify}
            objects.append(entry)
        self._json({'transfer': 'basic', 'objects': objects})

    def lfs_upload(self, oid):
        if hashlib.sha256(self.content).hexdigest() != oid:
            raise _Refusal(400, message='the content has another SHA-256')
        self.server.objects[oid] = self.content
        self._answer(200, {}, b'')

    def lfs_verify(self, oid):
        wanted = json.loads(self.content)
        if len(self.server.objects.get(oid, b'')) != wanted['size']:
            raise _Refusal(400, message='the object is not there')
        self.server.verified.append(oid)
        self._answer(200, {}, b'')

    def commit(self, kind, repo, revision):
        self._may_write()
        _, found = self._repository(kind, repo)
        files = dict(found.commits[self._commit(found, revision)])
        message = ''
        for line in self.content.splitlines():
            entry = json.loads(line)
            key, value = entry['key'], entry['value']
            if key == 'header':
                message = value['summary']
            elif key == 'file':
                files[value['path']] = base64.b64decode(value['content'])
            elif key == 'lfsFile':
                files[value['path']] = self.server.objects[value['oid']]
            elif key == 'deletedFile':
                del files[value['path']]
            else:
                raise _Refusal(400, message=f'unknown key {key}')
        name = found.commit(files, revision, message)
        address = f'{self.server.url}/{repo}/commit/{name}'
        self._json({'success': True, 'commitUrl': address, 'commitOid': name})

    def check_card(self):
        self._json({'errors': [], 'warnings': []})

    # Answers.

    def _json(self, content, status=200, headers=None):
        self._answer(status, dict(headers or {}, **{'Content-Type': 'application/json'}), json.dumps(content).encode())

    def _bytes(self, data, headers):
        """Answer with a file, or with the part of it that the request asks for."""
        status, start = 200, 0
        if self.command == 'GET' and self.headers.get('Range'):
            status, start = 206, int(re.match(r'bytes=(\d+)-', self.headers['Range']).group(1))
            if start >= len(data):
                raise _Refusal(416, message='no such range')
            headers['Content-Range'] = f'bytes {start}-{len(data) - 1}/{len(data)}'
        part = data[start:]
        self._answer(status, headers, part, sent=len(part) // 2 if self.fault in ('cut', 'stall') else len(part))
        if self.fault == 'stall':
            self.wfile.flush()
            self.server.release.wait(30)

    def _answer(self, status, headers, body, sent=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header('Content-Length', str(len(body)))
        if sent is not None and sent < len(body):
            self.close_connection = True
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body[:sent])


_REPO = r'(?P<kind>model|dataset)s/(?P<repo>[^/]+/[^/]+)'
_FILE = r'/(?P<kind>datasets/|)(?P<repo>[^/]+/[^/]+)'
_ROUTES = [
    (rf'(GET|HEAD) {_FILE}/resolve/(?P<revision>[^/]+)/(?P<path>.+)', _Handler.resolve),
    (r'(GET|HEAD) /cdn/(?P<oid>[0-9a-f]+)', _Handler.large_file),
    (rf'GET /api/{_REPO}', _Handler.info),
    (rf'GET /api/{_REPO}/revision/(?P<revision>[^/]+)', _Handler.info),
    (rf'GET /api/{_REPO}/tree/(?P<revision>[^/]+)(/(?P<path>.*))?', _Handler.tree),
    (r'POST /api/repos/create', _Handler.create),
    (rf'POST /api/{_REPO}/branch/(?P<revision>[^/]+)', _Handler.branch),
    (rf'POST /api/{_REPO}/preupload/(?P<revision>[^/]+)', _Handler.preupload),
    (rf'POST {_FILE}\.git/info/lfs/objects/batch', _Handler.lfs_batch),
    (r'PUT /lfs/(?P<oid>[0-9a-f]+)', _Handler.lfs_upload),
    (r'POST /verify/(?P<oid>[0-9a-f]+)', _Handler.lfs_verify),
    (rf'POST /api/{_REPO}/commit/(?P<revision>[^/]+)', _Handler.commit),
    (r'POST /api/validate-yaml', _Handler.check_card),
]
