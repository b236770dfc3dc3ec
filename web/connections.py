"""How a web process serves its connections: gunicorn's threads, and what they lack.

A client that goes on at once keeps its thread: two hand-offs between threads cost more than
the wait. The process with the fewest connections takes the next one: otherwise one process
may get 12 of 16, and be at its limit while the other idles. No client can hold up the others
by what it does not do: the head of a request has a deadline, and a connection is closed by
its own thread, since closing may mean to wait for the client.
"""

import errno
import select
import socket
from concurrent.futures import Future
from datetime import datetime
from time import monotonic, sleep
from typing import Any

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.http import wsgi  # type: ignore[import-untyped]
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from gunicorn.workers.gthread import (  # type: ignore[import-untyped]
    _DEFER,
    TConn,
    ThreadWorker,
)

from web import logs
from web.deadlines import deadlines
from web.loads import loads
from web.packets import Response

# How long a process waits for one with fewer connections to take the next one.
COURTESY_SECONDS = 0.001
COURTESY_TRIES = 4

# A client that pauses for longer gives its thread back, and is waited for by the main one.
PAUSE_MILLISECONDS = 200

# From the first byte that is waited for to the last of the head.
HEAD_SECONDS = 10.0

# For the rest of a body that the app did not want to read.
DRAIN_SECONDS = 0.05
# For a client that is still sending, to read its answer before the connection is closed.
LINGER_SECONDS = 1.0

# What accept() says when the process or the machine is at its limit: it will pass.
AT_THE_LIMIT = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)
LIMIT_SECONDS = 0.05


class Worker(ThreadWorker):  # type: ignore[misc]
    """A gthread worker whose threads finish what they begin."""

    alive: bool

    def accept(self, listener: socket.socket) -> None:
        """Take a new connection, unless a process that has fewer does so at once."""
        for _ in range(COURTESY_TRIES):
            if self.nr_conns <= loads.least():
                break
            sleep(COURTESY_SECONDS)
        try:
            super().accept(listener)
        except OSError as error:
            if error.errno not in AT_THE_LIMIT:
                raise
            self.log.warning("no connection can be accepted: %s", error.strerror)
            sleep(LIMIT_SECONDS)
        loads.set(self.age, self.nr_conns)

    def set_accept_enabled(self, enabled: bool) -> None:
        """Begin to take connections, or cease to."""
        super().set_accept_enabled(enabled)
        if enabled:
            loads.set(self.age, self.nr_conns)
            return
        loads.clear(self.age)
        if not self.alive:
            # Who waits would hold up the end.
            self.wsgi.extensions["changes"].close()
            self.wsgi.extensions["viewers"].close()
            self._close_listeners()

    def wait_for_and_dispatch_events(self, timeout: float) -> None:
        """Do what there is to do in the main thread."""
        super().wait_for_and_dispatch_events(timeout)
        if self._accepting:
            loads.set(self.age, self.nr_conns)

    def handle(self, conn: TConn) -> object:
        """Serve a connection for as long as its client goes on; in a thread of the pool."""
        if not (conn.initialized or conn.data_ready):
            conn.data_ready = readable(conn.sock, PAUSE_MILLISECONDS)
            if not conn.data_ready:
                return _DEFER
        kept = self._serve(conn)
        while kept is True and self._goes_on(conn):
            kept = self._serve(conn)
        if kept is False:
            close(conn)
        return kept

    def handle_request(self, req: Any, conn: TConn) -> bool:
        """Answer a request, whose head has been read; whether the connection can go on.

        As gunicorn does, but with a Response of ours. No hooks are called: there are none.
        """
        deadlines.clear(conn.sock)
        resp, environ = wsgi.create(
            req, conn.sock, conn.client, conn.server, self.cfg, response_class=Response
        )
        environ["wsgi.multithread"] = True
        if self._is_last():
            resp.force_close()
        try:
            self._answer(req, resp, environ)
        except OSError:
            raise
        except Exception:
            if not resp.begun:
                raise
            # The client has a part of the answer: another one would be taken for the rest of it.
            self.log.exception("Error handling request")
            return False
        finally:
            logs.tell_submitted(environ)
        return not resp.should_close()

    def _answer(self, req: Any, resp: Response, environ: dict[str, Any]) -> None:
        began = datetime.now()
        body = self.wsgi(environ, resp.start_response)
        try:
            if isinstance(body, environ["wsgi.file_wrapper"]):
                resp.write_file(body)
            else:
                for part in body:
                    resp.write(part)
            resp.close()
        finally:
            self.log.access(resp, req, environ, datetime.now() - began)
            if hasattr(body, "close"):
                body.close()

    def finish_request(self, conn: TConn, fs: Future[object]) -> None:
        """Take back a connection from its thread; in the main thread."""
        if conn.sock.fileno() < 0:
            self.nr_conns -= 1
        else:
            super().finish_request(conn, fs)

    def murder_pending(self) -> None:
        """Cut the connections whose time is over; gunicorn calls this about every second."""
        super().murder_pending()
        deadlines.enforce()

    def _close_listeners(self) -> None:
        """Serve who is waiting already; who comes now is refused, not left to wait."""
        for listener in self.sockets:
            before = -1
            while self.nr_conns != before:
                before = self.nr_conns
                super().accept(listener)
            listener.close()

    def _is_last(self) -> bool:
        """Count a request, and tell whether its connection is to be closed after it."""
        self.nr += 1
        if self.nr >= self.max_requests and self.alive:
            self.log.info("Autorestarting worker after current request.")
            self.alive = False
        full = len(self.keepalived_conns) >= self.max_keepalived
        return not self.alive or not self.cfg.keepalive or full

    def _keepalive_after(self, conn: TConn, keepalive: bool) -> bool:
        """Whether the connection can go on: a body that was not wanted is not waited for, and one
        that makes no sense has no end. (The request has had its answer, and gets no second one.)
        """
        return keepalive and _read_to_end(conn)

    def _serve(self, conn: TConn) -> object:
        deadlines.set(conn.sock, HEAD_SECONDS)
        try:
            return super().handle(conn)
        finally:
            deadlines.clear(conn.sock)

    def _goes_on(self, conn: TConn) -> bool:
        """Whether the next request is there, waiting for it unless threads are scarce."""
        if conn.parser.unreader.buf.getvalue():
            return True
        if not self.alive or self.nr_conns > self.cfg.threads // 2:
            return False
        return readable(conn.sock, PAUSE_MILLISECONDS)


def close(conn: TConn) -> None:
    """Close a connection: at once, unless the client may still be sending.

    To close on unread bytes resets the connection, and the client would lose the answer
    (RFC 9112, section 9.6).
    """
    if conn.sock.fileno() < 0:
        return
    if _took_all(conn):
        util.close(conn.sock)
    else:
        util.close_graceful(conn.sock, LINGER_SECONDS)


def readable(sock: socket.socket, milliseconds: int) -> bool:
    """Wait until there is something to read, or the other side has closed."""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(milliseconds))


def _took_all(conn: TConn) -> bool:
    """Whether a request was read to its end, and nothing came after it."""
    if not (conn.parser and conn.parser.mesg):
        return False
    return _read_to_end(conn) and not readable(conn.sock, 0)


def _read_to_end(conn: TConn) -> bool:
    """Read what the app has not, if it comes soon; whether that was all."""
    try:
        return bool(conn.parser.finish_body(deadline=monotonic() + DRAIN_SECONDS))
    except (OSError, ParseException):
        return False
