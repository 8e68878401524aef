"""Servers on this machine: a web server that fails on demand, and an emulated Google Cloud Storage."""

import base64
import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
from urllib.parse import unquote, urlsplit


def folder_files(folder):
    """Return {path below the folder: content} of its files."""
    found = {}
    for parent, _, names in os.walk(str(folder)):
        for name in names:
            path = os.path.join(parent, name)
            with open(path, 'rb') as file:
                found[os.path.relpath(path, str(folder))] = file.read()
    return found


class Running:
    """What a server on this machine does while a test runs. To be mixed into a class of `http.server`."""

    scheme = 'http'

    @property
    def url(self):
        return f'{self.scheme}://127.0.0.1:{self.server_port}'

    def handle_error(self, request, client_address):
        pass  # in some tests the client hangs up on purpose

    def stopping(self):
        """Do what must be done before the server can stop."""

    @contextlib.contextmanager
    def running(self):
        thread = threading.Thread(target=self.serve_forever, kwargs={'poll_interval': 0.02}, daemon=True)
        thread.start()
        try:
            yield self
        finally:
            self.stopping()
            self.shutdown()
            self.server_close()


class WebServer(Running, http.server.ThreadingHTTPServer):
    """Serve `files` ({path: bytes}).

    `faults[path]` lists one fault for each of the next answers: a status (`403`), a status with headers
    (`(503, {'Retry-After': '1'})`) and with a body (`(206, {'Content-Range': 'bytes 1-2/3'}, b'bc')`), a function from
    the handler to such a tuple, 'cut' (half of the body), 'wrong' (the last byte differs), or 'stall' (half of the
    body, then silence). `bodies` counts the bodies sent for each path. `requests` lists (path, Range header).
    """

    daemon_threads = True

    def __init__(self, ranges=True, tags=True, checksums=True, sizes=True):
        super().__init__(('127.0.0.1', 0), _Handler)
        self.ranges, self.tags, self.checksums, self.sizes = ranges, tags, checksums, sizes
        self.signature = ''  # if set, requests without it in their URL are refused
        self.files, self.faults, self.bodies, self.requests = {}, {}, {}, []
        self.release = threading.Event()

    def stopping(self):
        self.release.set()


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
        pass

    def do_GET(self):
        server, path = self.server, unquote(urlsplit(self.path).path)
        server.requests.append((path, self.headers.get('Range')))
        faults = server.faults.get(path)
        fault = faults.pop(0) if faults else None
        if fault is None and path not in server.files:
            fault = 404
        if server.signature not in self.path:
            fault = 403
        if isinstance(fault, int):
            fault = (fault, {})
        if callable(fault):
            fault = fault(self)
        if isinstance(fault, tuple):
            return self._answer(*fault, *([b''] if len(fault) == 2 else []))
        body = server.files[path]
        tag = '"' + hashlib.sha1(body).hexdigest() + '"'
        headers = {'ETag': tag} if server.tags else {}
        if server.checksums:
            headers['x-ms-blob-content-md5'] = base64.b64encode(hashlib.md5(body).digest()).decode()
        if self.headers.get('If-None-Match') == tag:
            return self._answer(304, headers, b'')
        status, start = 200, 0
        if server.ranges and self.headers.get('Range') and self.headers.get('If-Range') == tag:
            status, start = 206, int(self.headers['Range'][len('bytes=') :].rstrip('-'))
            if start >= len(body):
                return self._answer(416, {}, b'')
            headers['Content-Range'] = f'bytes {start}-{len(body) - 1}/{len(body)}'
        server.bodies[path] = server.bodies.get(path, 0) + 1
        part = body[start:]
        if fault == 'wrong':
            part = part[:-1] + bytes([part[-1] ^ 1])
        self._answer(status, headers, part, sent=len(part) // 2 if fault in ('cut', 'stall') else len(part))
        if fault == 'stall':
            self.wfile.flush()
            server.release.wait(30)

    def _answer(self, status, headers, body, sent=None):
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        if 'Content-Length' in headers:
            self.close_connection = True
        elif status != 304 and self.server.sizes:
            self.send_header('Content-Length', str(len(body)))
        else:
            self.close_connection = True
        if sent is not None and sent < len(body):
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body[:sent])


class CloudStorage:
    """Google Cloud Storage, emulated by gcp-storage-emulator in a separate process."""

    def __init__(self, bucket):
        self.bucket = bucket
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            self.port = probe.getsockname()[1]
        self.url = f'http://127.0.0.1:{self.port}'
        command = [sys.executable, '-m', 'gcp_storage_emulator', 'start', '--host=127.0.0.1', f'--port={self.port}']
        self._process = subprocess.Popen(
            [*command, '-M', '--quiet', f'--default-bucket={bucket}'],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(600):
            with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', self.port), 1):
                return
            assert self._process.poll() is None, 'gcp-storage-emulator ended'
            time.sleep(0.05)
        raise AssertionError('gcp-storage-emulator does not answer')

    def stop(self):
        self._process.terminate()
        self._process.wait()

    def _bucket(self):
        from google.auth.credentials import AnonymousCredentials
        from google.cloud import storage

        return storage.Client(project='test', credentials=AnonymousCredentials()).bucket(self.bucket)

    def put(self, name, content):
        """Store an object."""
        self._bucket().blob(name).upload_from_string(content)

    def put_folder(self, name, folder):
        """Store the files of a folder."""
        for path, content in folder_files(folder).items():
            self.put(f'{name}/{path}', content)

    def objects(self, prefix=''):
        """Return {name: contents} of the objects whose names start with `prefix`."""
        import requests

        return {blob.name: requests.get(blob.media_link).content for blob in self.blobs(prefix)}

    def blobs(self, prefix=''):
        """Return the metadata of the objects whose names start with `prefix`."""
        return list(self._bucket().list_blobs(prefix=prefix))
