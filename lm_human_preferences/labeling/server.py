"""The web server of the label page. It makes the pages; their forms post back; the collection holds all state.

The server listens only on this machine (127.0.0.1) and asks every request for a secret token: first in the address that
was printed, then in a cookie. It refuses requests for another host name (DNS rebinding) and posts from other sites.
Who has no token cannot keep others out (`connections`).
"""

import contextlib
import hmac
import re
import secrets
import socket
import threading
from typing import Iterator, List, Optional, Tuple
from urllib.parse import quote, unquote

import flask

from lm_human_preferences.labeling.collection import Collection, Outcome, Progress
from lm_human_preferences.labeling.connections import ADMIT, BoundedServer, RequestHandler
from lm_human_preferences.labeling.journal_state import Question
from lm_human_preferences.language.encodings import Encoding

HOST = '127.0.0.1'
LONGEST_NAME = 40
NOTICES = {
    Outcome.CHANGED: 'Changed: your last answer to that question counts.',
    Outcome.LATE: 'Somebody else answered that question first. Here is another one.',
    Outcome.FULL: 'All answers are collected: that one was not needed.',
    Outcome.SKIPPED: 'Skipped.',
    Outcome.WITHDRAWN: 'Skipped: your answer to that question no longer counts.',
    Outcome.UNDONE: 'Taken back.',
    Outcome.GIVEN_AWAY: 'Taken back. Somebody else has that question now. Here is another one.',
    Outcome.UNDONE_BEFORE: 'That choice was taken back or changed before. Nothing else was taken back.',
    Outcome.NOTHING: 'There is nothing to undo.',
}
SECURITY_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; style-src 'self'; script-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    'X-Content-Type-Options': 'nosniff',
    'Referrer-Policy': 'same-origin',
    'Cache-Control': 'no-store',
}


class LabelServer:
    """The routes of the label page of one collection."""

    def __init__(self, collection: Collection, encoding: Encoding, instructions: List[str], token: str, port: int):
        self._collection = collection
        self._encoding = encoding
        self._instructions = instructions
        self._token = token
        self._cookies = {
            name: f'{name}-{port}' for name in ('token', 'name')
        }  # all ports of a host share their cookies
        self.app = flask.Flask(__name__, template_folder='page', static_folder='page/static', static_url_path='/static')
        self.app.config['MAX_CONTENT_LENGTH'] = 1 << 16
        self.app.before_request(self._admit)
        self.app.after_request(self._secure)
        self.app.register_error_handler(OSError, self._disk_failed)
        self.app.add_url_rule('/', 'show', self._show, methods=['GET'])
        for name in ('name', 'answer', 'skip', 'undo'):
            self.app.add_url_rule(f'/{name}', name, getattr(self, f'_{name}'), methods=['POST'])

    def _admit(self):
        """Refuse a request without the token, and one that another site may have sent."""
        request = flask.request
        if not re.match(r'(127\.0\.0\.1|localhost|\[::1\])(:[0-9]+)?\Z', request.host):
            return self._refuse('This page works only on this machine: open it as 127.0.0.1 or localhost.')
        if request.method == 'POST' and request.headers.get('Origin', request.host_url[:-1]) != request.host_url[:-1]:
            return self._refuse('This request came from another site.')
        given = request.args.get('token')
        if given is not None and self._is_token(given):
            response = flask.redirect('/', 303)
            response.set_cookie(self._cookies['token'], self._token, httponly=True, samesite='Lax')
            return response
        if not self._is_token(request.cookies.get(self._cookies['token'], '')):
            return self._refuse(
                'Open the complete address that was printed when the page was started. It includes a token.'
            )
        request.environ[ADMIT]()
        return None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode('utf-8', 'replace'), self._token.encode())

    def _show(self):
        who = self._who()
        if who is None:
            return flask.render_template('name.html', longest=LONGEST_NAME)
        question = self._collection.next_question(who)
        progress = self._collection.progress(who)
        page = dict(
            who=who,
            form=self._collection.form,
            progress=progress,
            pace=pace(progress),
            notice=notice(flask.request.args.get('notice')),
            instructions=self._instructions,
        )
        if question is None:
            state = dict(all_asked=self._collection.all_asked(), is_complete=self._collection.is_complete)
            return flask.render_template('rest.html', **state, **page)
        return flask.render_template('question.html', question=question.number, **self._texts(question, who), **page)

    def _texts(self, question: Question, who: str) -> dict:
        order = self._collection.order(who, question.number)
        texts = [self._encoding.decode(tokens) for tokens in [question.query, *question.samples]]
        query, *samples = [text.strip('\n') or '(empty)' for text in texts]
        return dict(query=query, samples=[samples[sample] for sample in order])

    def _name(self):
        name = ' '.join(flask.request.form.get('name', '').split())
        response = flask.redirect('/', 303)
        if name.isprintable() and 0 < len(name) <= LONGEST_NAME:
            response.set_cookie(self._cookies['name'], quote(name), httponly=True, samesite='Lax')
        else:
            response.delete_cookie(self._cookies['name'])
        return response

    def _answer(self):
        who, number = self._who_and_number()
        answer = flask.request.form.get('answer', type=int)
        try:
            outcome = self._collection.answer(who, number, -1 if answer is None else answer)
        except ValueError as error:
            flask.abort(400, str(error))
        return self._next_page(outcome)

    def _skip(self):
        who, number = self._who_and_number()
        try:
            outcome = self._collection.skip(who, number)
        except ValueError as error:
            flask.abort(400, str(error))
        return self._next_page(outcome)

    def _undo(self):
        who = self._who()
        if who is None:
            flask.abort(400)
        return self._next_page(self._collection.undo(who, flask.request.form.get('last', type=int)))

    def _who(self) -> Optional[str]:
        return unquote(flask.request.cookies.get(self._cookies['name'], '')) or None

    def _who_and_number(self) -> Tuple[str, int]:
        who, number = self._who(), flask.request.form.get('question', type=int)
        if who is None or number is None:
            flask.abort(400)
        return who, number

    @staticmethod
    def _next_page(outcome: Outcome):
        return flask.redirect(f'/?notice={outcome.value}' if outcome in NOTICES else '/', 303)

    @staticmethod
    def _refuse(reason: str):
        return flask.Response(reason + '\n', 403, mimetype='text/plain')

    @staticmethod
    def _disk_failed(error: OSError):
        fault = error.strerror or error
        reason = f'Your last choice could not be saved ({fault}). All earlier choices are saved. Go back and try again.'
        return flask.Response(reason + '\n', 507, mimetype='text/plain')

    @staticmethod
    def _secure(response):
        response.headers.update(SECURITY_HEADERS)
        return response


def notice(outcome: Optional[str]) -> Optional[str]:
    """Return what to tell a person about an outcome with this value; None for nothing."""
    return next((text for known, text in NOTICES.items() if known.value == outcome), None)


def pace(progress: Progress) -> str:
    """Return a person's speed, and how long the remaining answers would take at that speed, as a text."""
    if progress.seconds is None:
        return ''
    text = f'{progress.seconds:.0f} s each'
    minutes = (progress.wanted - progress.answers) * progress.seconds / 60
    if minutes >= 90:
        return f'{text}, about {minutes / 60:.0f} h left'
    return f'{text}, about {minutes:.0f} min left' if minutes >= 1 else text


@contextlib.contextmanager
def serving(
    collection: Collection, encoding: Encoding, instructions: List[str], port: int = 0, token: Optional[str] = None
) -> Iterator[str]:
    """Serve the label page from threads of this process while the block runs. Give its address, with the token.

    `port` 0 takes any free port. OSError if the port is taken.
    """
    token = token or secrets.token_urlsafe(24)
    listening = socket.socket()
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((HOST, port))
    except OSError as error:
        listening.close()
        raise OSError(f'cannot serve on port {port} ({error.strerror}): give another --port') from error
    listening.listen(64)
    port = listening.getsockname()[1]
    app = LabelServer(collection, encoding, instructions, token, port).app
    server = BoundedServer(HOST, port, app, RequestHandler, fd=listening.fileno())
    thread = threading.Thread(target=server.serve_forever, name='label page', daemon=True)
    thread.start()
    try:
        yield f'http://{HOST}:{port}/?token={token}'
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        listening.close()
