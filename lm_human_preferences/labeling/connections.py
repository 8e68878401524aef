"""The connections of the label page's server: a bounded number, each for a bounded time.

Anybody on this machine can open connections and send nothing. They must not keep out the people who label. So a
connection is not admitted before its request has shown the token. If there are too many connections, the oldest one
that is not admitted is cut, and one that takes too long is cut, too.
"""

import contextlib
import socket
import threading
import time
from typing import Dict

from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

MOST_CONNECTIONS = 64
SECONDS_TO_ASK = 10
"""How long a connection may last that has not shown the token."""
SECONDS_TO_ANSWER = 60
"""How long a connection may last in all. It serves one request."""

ADMIT = 'lm_human_preferences.admit'
"""The item of a request's environment that admits its connection when it is called."""


class _Connection:
    def __init__(self):
        self.opened_at = time.monotonic()
        self.is_admitted = False

    @property
    def is_overdue(self) -> bool:
        return time.monotonic() - self.opened_at > (SECONDS_TO_ANSWER if self.is_admitted else SECONDS_TO_ASK)


class BoundedServer(ThreadedWSGIServer):
    """A web server with a thread for each of at most MOST_CONNECTIONS connections."""

    def __init__(self, *arguments, **named):
        self._lock = threading.Lock()
        self._connections: Dict[socket.socket, _Connection] = {}  # oldest first
        super().__init__(*arguments, **named)

    def admit(self, request: socket.socket) -> None:
        """Keep a connection, though others come: its request has shown the token."""
        with self._lock:
            connection = self._connections.get(request)
            if connection is not None:
                connection.is_admitted = True

    def process_request(self, request, client_address) -> None:
        with self._lock:
            others = [other for other, connection in self._connections.items() if not connection.is_admitted]
            has_room = len(self._connections) < MOST_CONNECTIONS or bool(others)
            if has_room:
                if len(self._connections) >= MOST_CONNECTIONS:
                    self._cut(others[0])
                self._connections[request] = _Connection()
        if has_room:
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def shutdown_request(self, request) -> None:
        with self._lock:
            self._connections.pop(request, None)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Cut what takes too long. The server calls this after each request, and twice a second."""
        with self._lock:
            for request in [request for request, connection in self._connections.items() if connection.is_overdue]:
                self._cut(request)

    def _cut(self, request):
        """End a connection, and with it the thread that waits for it."""
        del self._connections[request]
        with contextlib.suppress(OSError):
            request.shutdown(socket.SHUT_RDWR)


class RequestHandler(WSGIRequestHandler):
    """Does not print a line for each request, or for what is no request: the journal has the choices."""

    def make_environ(self):
        environ = super().make_environ()
        environ[ADMIT] = lambda: self.server.admit(self.connection)
        return environ

    def log_request(self, *args, **kwargs):
        pass

    def log_error(self, *args, **kwargs):
        pass
