"""The connection over which a runner moves jobs, which comes back by itself.

It hears notifications as well: to pass one on wakes its session up on the server, and the claim
that comes at once finds it awake. For what need not be waited for there is another: listener.py.
"""

import random
import secrets
from collections.abc import Callable
from time import monotonic
from typing import Any, LiteralString

import psycopg
from psycopg import sql
from psycopg.pq import TransactionStatus

from jobrunner.database import ANSWER_SECONDS, BoundedConnection, connect

ROLE = "job_runner"
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0

# On the channel of its own a runner is told of jobs where it alone is to look for them.
HEAR = """
    listen {own};
    listen job_submitted;
    listen runner_stop_requested;
    listen cancel_requested
"""
# The pause after a try that failed is so many times as long as that took, if not longer.
PAUSE_FACTOR = 10
# Every statement of a runner is to find its rows by an index, one after the other, whatever
# the statistics say: then a plan that was made once is good for ever, and planning is half of
# the time that a claim of one job takes.
PLANNING = """
    set plan_cache_mode = force_generic_plan;
    set enable_seqscan = off;
    set enable_bitmapscan = off;
    set enable_hashjoin = off;
    set enable_mergejoin = off
"""
SESSION = f"{PLANNING}; {HEAR}"

RENAME = "select set_config('application_name', %s, false)"

Note = tuple[str, str]  # channel and payload


class Link:
    """A connection that is opened again when it was lost, after a short jittered pause.

    It hears what it listens for: ``session`` is executed where no pooler stands between, with
    ``channel``, one of its own, for ``{own}``.
    ``gives_up`` tells whether to wait no longer for an answer, which may take ``answer_seconds``.
    """

    def __init__(
        self,
        url: str,
        name: str,
        session: LiteralString = SESSION,
        max_pause: float = MAX_PAUSE_SECONDS,
        gives_up: Callable[[], bool] | None = None,
        answer_seconds: float = ANSWER_SECONDS,
    ) -> None:
        self.retry_at = 0.0
        # What the server's list of connections shows of the next one.
        self.name = name
        self.answer_seconds = answer_seconds
        self.channel = f"runner_{secrets.token_hex(8)}"
        # Whether a pooler stands between, as far as we know.
        self.pooled = False
        self._url = url
        self._gives_up = gives_up
        self._session = self._with_channel(session)
        self._max_pause = max_pause
        self._pause = FIRST_PAUSE_SECONDS
        self._connection: BoundedConnection | None = None
        # What has come with the answer to a statement.
        self._heard: list[Note] = []

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._connection is not None and not self._connection.closed

    @property
    def due(self) -> bool:
        """Whether it is time to try to connect again."""
        return not self.connected and monotonic() >= self.retry_at

    @property
    def listens(self) -> bool:
        """Whether notifications can come."""
        return self.connected and not self.pooled

    @property
    def hearing(self) -> sql.Composed:
        """What lets another connection hear all that this one would."""
        return self._with_channel(HEAR)

    @property
    def busy(self) -> bool:
        """Whether an answer is being waited for: then nothing else may be asked."""
        return self._connection is not None and (
            self._connection.pgconn.transaction_status == TransactionStatus.ACTIVE
        )

    def fileno(self) -> int:
        """The socket to wait for; only while connected."""
        assert self._connection is not None
        return self._connection.pgconn.socket

    def open(self) -> BoundedConnection:
        """Give the connection, made now if need be.

        :raises JobrunnerError: when the database can't be had; ``lose`` sets the next try.
        """
        if self._connection is None or self._connection.closed:
            connection = connect(
                self._url,
                role=ROLE,
                name=self.name,
                session=self._session,
                gives_up=self._gives_up,
                answer_seconds=self.answer_seconds,
            )
            self._heard.clear()
            connection.add_notify_handler(self._note)
            self.pooled = connection.pooled
            self._connection = connection
        return self._connection

    def show_name(self) -> None:
        """Let the server's list of connections show another name than at first.

        :raises psycopg.Error: when the connection is gone.
        """
        if self._connection is not None and self.listens:
            self._connection.execute(RENAME, [self.name])

    def has(self, connection: psycopg.Connection[Any] | None) -> bool:
        """Whether this is the connection that it has now."""
        return connection is not None and connection is self._connection

    @property
    def has_heard(self) -> bool:
        """Whether notifications were taken off the socket that ``hear`` has not given yet."""
        return bool(self._heard)

    def look(self) -> None:
        """Look whether it is still there, and what has arrived.

        At libpq's level: ``Connection.notifies`` takes ten times as long.

        :raises psycopg.OperationalError: when the connection is gone.
        """
        if self._connection is not None:
            libpq = self._connection.pgconn
            libpq.consume_input()
            while note := libpq.notifies():
                self._heard.append((note.relname.decode(), note.extra.decode()))

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived.

        :raises psycopg.OperationalError: when the connection is gone.
        """
        self.look()
        heard = [*self._heard]
        self._heard.clear()
        return heard

    def works(self) -> None:
        """Note that the database answers: the next try is soon."""
        self._pause = FIRST_PAUSE_SECONDS
        self.retry_at = min(self.retry_at, monotonic() + self._pause)

    def lose(self, took: float = 0.0) -> None:
        """Close it and set the time of the next try: the more seconds the last took, the later."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self._heard.clear()
        pause = self._pause * random.uniform(0.5, 1.0)
        self.retry_at = monotonic() + max(pause, min(self._max_pause, took * PAUSE_FACTOR))
        self._pause = min(self._max_pause, self._pause * 2)

    def _with_channel(self, statements: LiteralString) -> sql.Composed:
        return sql.SQL(statements).format(own=sql.Identifier(self.channel))

    def _note(self, note: psycopg.Notify) -> None:
        self._heard.append((note.channel, note.payload))
