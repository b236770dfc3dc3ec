"""Connections to PostgreSQL that can't hang.

A statement that gets no answer in time closes its connection: a server that is stopped, or
a network that swallows packets, gives an error like any lost connection.
"""

from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import Any, LiteralString, NoReturn, TypeVar

import psycopg
from psycopg import generators, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult
from psycopg.waiting import WAIT_R, Ready, Wait

from jobrunner.errors import (
    DatabaseError,
    DatabaseNotFound,
    DatabaseRefused,
    DatabaseUnavailable,
    SchemaMissing,
)
from jobrunner.polling import readable
from jobrunner.settings import Settings

ANSWER_SECONDS = 10.0
CONNECT_SECONDS = 3
# How often to look whether to wait any longer.
SLICE_SECONDS = 0.1

WHO_AND_WHERE = "select current_user, pg_backend_pid()"
SET_ROLE = sql.SQL("set role {}")
# Times in another style can't be read. And before we give up a statement of a service, the
# server does: what it has ended takes no effect later.
READABLE_TIMES = "set datestyle = iso; set intervalstyle = postgres"
STATEMENT_TIMEOUT = "set statement_timeout = '9s'"
# To compile a plan takes PostgreSQL longer than any of ours does.
NO_COMPILING = "set jit = off"
URL_FILE = "database_url"
# Somebody may hold rows, or a table, of what is good to know: no job is to wait for that.
LOCK_SECONDS = 0.1
WAIT_BRIEFLY = "select set_config('lock_timeout', round(%s * 1000)::text, true)"

# A dead peer is noticed after 4 s: idle for 2, then a probe a second, two of them.
DEFAULTS: dict[str, Any] = {
    "connect_timeout": CONNECT_SECONDS,
    "keepalives_idle": 2,
    "keepalives_interval": 1,
    "keepalives_count": 2,
    "tcp_user_timeout": 4000,
}

# Whatever the database, the URL or the environment says: a text that another encoding has no
# letter for could not be read.
ENCODING = {"client_encoding": "utf8"}

# A connection that is gone has no sqlstate: psycopg raises these two classes for it.
Lost = (psycopg.OperationalError, psycopg.InterfaceError)

# A connection that was never made has no sqlstate either: the words have to do. Those of a server
# that says no, unless it is one that will say yes in a moment, and those of who finds no server.
REFUSED = (
    "FATAL:",
    "failed to resolve host",
    "could not translate host name",
    "no password supplied",
)
PASSING = (
    "starting up",
    "shutting down",
    "not yet accepting connections",
    "not accepting connections",
    "in recovery mode",
    "too many clients",
    "too many connections",
    "connection slots are reserved",
    "could not fork",
    "authentication due to timeout",
    "terminating connection",
    # PgBouncer's.
    "server_login_retry",
    "no more connections allowed",
    "query_wait_timeout",
    "cannot connect to server",
)

T = TypeVar("T")


class BoundedConnection(psycopg.Connection[Any]):
    """A connection that is closed if an answer takes longer than ``answer_seconds``, or if somebody
    will not wait for it any more."""

    answer_seconds = ANSWER_SECONDS
    # Asked ten times a second.
    gives_up: Callable[[], bool] = staticmethod(lambda: False)
    # Waits in our stead until this connection has an answer, for a moment at most, and may do
    # something else. For short statements: while one has still to be sent, wait() spins.
    meanwhile: Callable[["BoundedConnection"], None] | None = None
    pooled = False
    # Whether its session waits for no lock longer than LOCK_SECONDS.
    is_brief = False

    def answer(self) -> list[PGresult]:
        """Wait for the answer to what was sent at libpq's level, for as long as ``wait`` would.

        Without psycopg's generators, which go through several calls of Python before they wait,
        and as many after it.

        :raises psycopg.OperationalError: when it is gone, or closed since there was none in time.
        """
        libpq, deadline = self.pgconn, monotonic() + self.answer_seconds
        if self.meanwhile or libpq.flush():
            # Somebody has something else to do, or there is more to send.
            return self.wait(generators.execute(libpq))
        results: list[PGresult] = []
        has_failed = False
        while result := self._next_result(deadline, has_failed):
            results.append(result)
            has_failed |= result.status == ExecStatus.FATAL_ERROR
        return results

    def wait(
        self,
        gen: Generator[Wait, Ready | int, T],
        interval: float = SLICE_SECONDS,
        timeout: float | None = None,
    ) -> T:
        deadline = monotonic() + self.answer_seconds
        interval = 0.0 if self.meanwhile else interval
        return super().wait(self._bounded(gen, deadline), interval, timeout)

    def _bounded(
        self, gen: Generator[Wait, Ready | int, T], deadline: float
    ) -> Generator[Wait, Ready | int, T]:
        try:
            waits_for = next(gen)
            while True:
                if self.meanwhile and waits_for == WAIT_R:
                    self.meanwhile(self)
                ready = yield waits_for
                if not ready and (monotonic() > deadline or self.gives_up()):
                    self._give_up()
                waits_for = gen.send(ready)
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    def _next_result(self, deadline: float, has_failed: bool) -> PGresult | None:
        libpq = self.pgconn
        while libpq.is_busy():
            if readable([libpq.socket], SLICE_SECONDS):
                try:
                    libpq.consume_input()
                except psycopg.OperationalError:
                    if not has_failed:
                        raise
                    return None  # Its last words say more than that it is gone.
            elif monotonic() > deadline or self.gives_up():
                self._give_up()
            elif self.closed:
                raise psycopg.OperationalError("the connection was lost meanwhile")
        while note := libpq.notifies():
            if libpq.notify_handler:
                libpq.notify_handler(note)
        return libpq.get_result()

    def _give_up(self) -> NoReturn:
        self.pgconn.finish()
        raise psycopg.OperationalError("no answer from the database in time")


def url_of(settings: Settings) -> str:
    """Say where the database is: DATABASE_URL, else the running embedded one.

    :raises DatabaseNotFound: when neither is there.
    """
    if settings.database_url:
        return settings.database_url
    try:
        return (settings.home / URL_FILE).read_text().strip()
    except FileNotFoundError:
        raise DatabaseNotFound(
            "DATABASE_URL is not set and no embedded PostgreSQL runs in"
            f" {display(settings.home)}: set it, or start one with `jobrunner up`"
        ) from None
    except OSError as error:
        raise DatabaseNotFound(
            f"{display(settings.home / URL_FILE)} can not be read: {error.strerror}"
        ) from None


def connect(
    url: str,
    *,
    role: str | None = None,
    name: str = "jobrunner",
    session: LiteralString | sql.Composed | None = None,
    gives_up: Callable[[], bool] | None = None,
    answer_seconds: float = ANSWER_SECONDS,
) -> BoundedConnection:
    """Open an autocommit connection that acts as ``role``.

    The role is taken only if the login does not have it already (``alter role … set role``).
    ``session`` is what else to set, where no pooler stands between. ``gives_up`` tells whether to
    wait no longer for an answer that is waited for, and which may take ``answer_seconds``.

    :raises DatabaseUnavailable: when the server does not answer.
    :raises DatabaseRefused: when it does not let us in, or there is none.
    :raises DatabaseError: when the login may not act as the role.
    """
    try:
        defaults = DEFAULTS | {"application_name": name}
        conninfo = make_conninfo(**(defaults | conninfo_to_dict(url) | ENCODING))
    except psycopg.ProgrammingError:
        raise DatabaseRefused("DATABASE_URL is not a PostgreSQL URL") from None
    try:
        connection = BoundedConnection.connect(conninfo, autocommit=True)
    except psycopg.Error as error:
        said = first_line(error)
        kind = DatabaseRefused if is_refusal(said) else DatabaseUnavailable
        raise kind(f"the database does not answer: {said}") from None
    connection.answer_seconds = answer_seconds
    if gives_up:
        connection.gives_up = gives_up
    try:
        _set_up(connection, role, session)
    except BaseException:
        connection.close()
        raise
    return connection


def is_refusal(said: str) -> bool:
    """Whether it does not help to try again, by what is said of a connection that was not made."""
    refused = any(words in said for words in REFUSED)
    return refused and not any(words in said for words in PASSING)


def _set_up(
    connection: BoundedConnection, role: str | None, session: LiteralString | sql.Composed | None
) -> None:
    """Act as the role, and see whether a pooler stands between.

    A pooler answers for the server with a process id of its own. Through one, nothing may be
    left in the session: no role, no prepared statement.
    """
    try:
        [(user, pid)] = connection.execute(WHO_AND_WHERE).fetchall()
        connection.pooled = pid != connection.info.backend_pid
        if connection.pooled:
            connection.prepare_threshold = None
        else:
            connection.execute(READABLE_TIMES)
            connection.execute(NO_COMPILING)
        if role and user != role:
            _take_role(connection, role)
        if role and not connection.pooled:
            connection.execute(STATEMENT_TIMEOUT)
        if session and not connection.pooled:
            connection.execute(session)
    except psycopg.Error as error:
        raise DatabaseUnavailable(f"the database does not answer: {first_line(error)}") from None


def _take_role(connection: BoundedConnection, role: str) -> None:
    if connection.pooled:
        raise DatabaseError(
            f"through a pooler the login has to act as {role} by itself:"
            f" run `alter role <login> set role {role}`"
        )
    try:
        connection.execute(SET_ROLE.format(sql.Identifier(role)))
    except psycopg.errors.InvalidParameterValue:
        raise SchemaMissing(f"there is no role {role}: run `jobrunner migrate`") from None
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            f"the login may not act as {role}: run `grant {role} to <login>` as its owner"
        ) from None


@contextmanager
def brief(
    connection: psycopg.Connection[Any], lock_seconds: float = LOCK_SECONDS
) -> Iterator[None]:
    """Do not wait longer than that for a lock: in a transaction, unless the session is brief.

    :raises psycopg.errors.LockNotAvailable: when it would have to.
    """
    if isinstance(connection, BoundedConnection) and connection.is_brief:
        yield
        return
    with connection.transaction():
        connection.execute(WAIT_BRIEFLY, [lock_seconds])
        yield


def first_line(error: BaseException) -> str:
    """Give the first line of an error: psycopg's further lines may quote a row."""
    primary = getattr(getattr(error, "diag", None), "message_primary", None)
    text = primary or str(error) or type(error).__name__
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    return lines[0].rstrip(":") if lines else type(error).__name__


def display(path: Path) -> str:
    """Write a path as a person would look for it: in full."""
    return str(path.absolute())
