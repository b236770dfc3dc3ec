"""The pool of connections, opened in the process that uses it.

Connections act as ``job_web``, whoever logged in. Nothing here can hang: a connection is
given within POOL_SECONDS, a statement answered within ANSWER_SECONDS, or the database
counts as unavailable.
"""

import select
from collections.abc import Generator, Iterator
from contextlib import contextmanager
from math import inf
from time import monotonic
from typing import Any, TypeVar

import psycopg
from flask import current_app
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.waiting import Ready, Wait
from psycopg_pool import ConnectionPool

from web import budget
from web.errors import DatabaseUnavailable, SchemaMissing

POOL_CONNECTIONS = 8
# Uses of a statement until it is prepared: a plan costs as much as its insert.
PREPARE_AFTER = 2
POOL_SECONDS = 3.0
ANSWER_SECONDS = 5.0
# Before we give up, the server does: what it has ended will not be committed later. (A server
# that is frozen begins to count when it thaws: see ``BoundedConnection.until``.)
STATEMENT_TIMEOUT = "set statement_timeout = '4s'"
# The pool doubles its pause with each failed try. Giving up soon makes the next request try
# at once, so that the service is back a moment after the database.
RECONNECT_SECONDS = 2.0

# How long one connection is kept for inserts before the pool gets it back, which renews what
# has grown old.
KEEP_SECONDS = 600.0

# So soon after its last use a connection is taken as alive: no server restarts that fast.
TRUST_SECONDS = 0.02

# A dead peer is noticed after 4 s: idle for 2, then a probe a second, two of them.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": 3,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
    "application_name": "jobrunner web",
}

# Whatever the database, the URL or the environment says: a text that another encoding has no
# letter for could not be written, and times in another style not be read.
ENCODING = {"client_encoding": "utf8"}
READABLE_TIMES = "set datestyle = iso"
# To compile a plan takes PostgreSQL longer than any of ours does.
NO_COMPILING = "set jit = off"

WHO_WHERE_AND_WHEN = """
    select
        current_user,
        pg_backend_pid(),
        extract(epoch from clock_timestamp())::float8
"""
POOLED = "through a pooler the login has to act by itself: alter role <login> set role job_web"
ACT_AS_WEB = "set role job_web"

# OperationalError covers a lost connection, a full pool, a server that starts or stops, a
# full disk; a read-only server is a standby that was not promoted yet.
UNAVAILABLE = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    psycopg.errors.ReadOnlySqlTransaction,
)

T = TypeVar("T")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if an answer takes longer than ANSWER_SECONDS.

    Nor does it wait past ``give_up_at``, by the monotonic clock.
    """

    used_at = 0.0
    give_up_at = inf
    # What the server's clock, in seconds since the epoch, is ahead of our monotonic one.
    clock_lead = 0.0

    @property
    def until(self) -> float:
        """When we shall have given up a statement that is sent now, by the server's clock.

        A statement that begins later, since the server was frozen, must do nothing.
        """
        return self.clock_lead + min(monotonic() + ANSWER_SECONDS, self.give_up_at)

    def wait(
        self,
        gen: Generator[Wait, Ready | int, T],
        interval: float = 0.1,
        timeout: float | None = None,
    ) -> T:
        deadline = min(monotonic() + ANSWER_SECONDS, self.give_up_at)
        return super().wait(self._bounded(gen, deadline), interval, timeout)

    def _bounded(
        self, gen: Generator[Wait, Ready | int, T], deadline: float
    ) -> Generator[Wait, Ready | int, T]:
        try:
            waits_for = next(gen)
            while True:
                ready = yield waits_for
                if not ready and monotonic() > deadline:
                    self.pgconn.finish()
                    raise psycopg.OperationalError("no answer from the database in time")
                waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]


class Database:
    """A lazily opened pool. It may be made before a fork, if it is first used after it."""

    def __init__(self, url: str) -> None:
        self._role_missing = False
        self._pool = ConnectionPool(
            make_conninfo(**(DEFAULTS | conninfo_to_dict(url) | ENCODING)),
            connection_class=BoundedConnection,
            # Nothing is prepared before it is known whom we talk to: a pooler would lose it.
            kwargs={"autocommit": True, "prepare_threshold": None},
            configure=self._configure,
            min_size=1,
            max_size=POOL_CONNECTIONS,
            timeout=POOL_SECONDS,
            reconnect_timeout=RECONNECT_SECONDS,
            name="web",
            open=False,
        )
        self._kept: BoundedConnection | None = None
        self._kept_since = 0.0

    @contextmanager
    def connection(self) -> Iterator[BoundedConnection]:
        """Lend an autocommit connection that acts as ``job_web``.

        :raises DatabaseUnavailable: when there is none, or it is lost within the block.
        :raises SchemaMissing: when the database was never migrated.
        """
        with self._translated():
            connection = self._take()
            try:
                with _judged(connection):
                    yield connection
            finally:
                self._pool.putconn(connection)

    @contextmanager
    def kept_connection(self) -> Iterator[BoundedConnection]:
        """Lend, to one thread at a time, the connection that is kept for this.

        As ``connection``; but the pool lends each of its connections in turn, and the server
        is slower with a session that has not been used for a while.
        """
        with self._translated():
            connection = self._take_kept()
            try:
                with _judged(connection):
                    yield connection
            finally:
                self._kept = connection

    def warm_up(self) -> None:
        """Open all connections now, so that a first burst of requests finds them there."""
        self._pool.open()
        self._pool.resize(POOL_CONNECTIONS)

    def close(self) -> None:
        """Close the pool and what is idle in it."""
        if kept := self._kept:
            self._kept = None
            self._give_up(kept)
        self._pool.close()

    def _take_kept(self) -> BoundedConnection:
        kept, self._kept = self._kept, None
        if kept and monotonic() < self._kept_since + KEEP_SECONDS:
            if self._is_good(kept):
                return kept
            self._give_up(kept)
        elif kept:
            self._pool.putconn(kept)
        self._kept_since = monotonic()
        return self._take()

    def _take(self) -> BoundedConnection:
        """Take a connection that was not closed by the server while it lay in the pool."""
        self._pool.open()
        deadline = monotonic() + min(POOL_SECONDS, budget.remaining())
        while True:
            connection = self._pool.getconn(deadline - monotonic())
            if self._is_good(connection):
                return connection
            self._give_up(connection)

    def _is_good(self, connection: BoundedConnection) -> bool:
        """Give it the time that the request has left, and tell whether it is still open."""
        connection.give_up_at = monotonic() + budget.remaining()
        if connection.closed:
            return False
        return monotonic() < connection.used_at + TRUST_SECONDS or not was_closed(connection)

    def _give_up(self, connection: BoundedConnection) -> None:
        """Let the pool make another one."""
        connection.close()
        self._pool.putconn(connection)

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Say in our words why the database can not be had."""
        try:
            yield
        except psycopg.errors.UndefinedTable:
            raise SchemaMissing from None
        except UNAVAILABLE as error:
            raise (SchemaMissing if self._role_missing else DatabaseUnavailable) from error

    def _configure(self, connection: BoundedConnection) -> None:
        try:
            connection.give_up_at = inf
            [(user, pid, now)] = connection.execute(WHO_WHERE_AND_WHEN).fetchall()
            connection.clock_lead = now - monotonic()
            # A pooler answers with a process id of its own; its sessions are shared.
            pooled = pid != connection.info.backend_pid
            if pooled and user != "job_web":
                raise psycopg.OperationalError(POOLED)
            if user != "job_web":
                connection.execute(ACT_AS_WEB)
            if not pooled:
                connection.execute(STATEMENT_TIMEOUT)
                connection.execute(READABLE_TIMES)
                connection.execute(NO_COMPILING)
                connection.prepare_threshold = PREPARE_AFTER
            self._role_missing = False
        except psycopg.errors.InvalidParameterValue:
            self._role_missing = True
            raise


@contextmanager
def _judged(connection: BoundedConnection) -> Iterator[None]:
    """Note when a connection was used, and close one that is not to be used again."""
    try:
        yield
    except psycopg.errors.ReadOnlySqlTransaction:
        # The session may stay so when the server has changed its mind.
        connection.close()
        raise
    finally:
        connection.used_at = monotonic()


def was_closed(connection: BoundedConnection) -> bool:
    """Tell, without asking the server, whether an idle connection has been closed by it.

    Nothing is to be read from an idle connection but the news of its end. (A notice looks
    the same; the connection is replaced without need, which harms nobody.) Takes 3 µs, where
    a ``select 1`` takes a round trip.
    """
    poll = select.poll()
    poll.register(connection.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def get() -> Database:
    """The database of the current app."""
    database: Database = current_app.extensions["database"]
    return database
