"""The two connections of a runner, which come back by themselves.

``Link`` is for what moves jobs, and hears notifications: to pass one on wakes its session up on
the server, and the claim that comes at once finds it awake. ``Listener`` has a connection of its
own, a direct one, which holds the advisory lock that shows that the runner lives. What is said
beside the work goes over that as well: while its answer is waited for, jobs are claimed.

Each session that listens is woken up by every notification, whatever it listens for, and wants a
processor just when a job is to be claimed. So the listener listens only where the link, through a
pooler, hears nothing.
"""

import random
from collections.abc import Callable
from time import monotonic
from typing import LiteralString, TypeVar

import psycopg

from jobrunner.database import BoundedConnection, Lost, connect, first_line
from jobrunner.errors import DatabaseUnavailable, JobrunnerError

ROLE = "job_runner"
FIRST_PAUSE_SECONDS = 0.1
MAX_PAUSE_SECONDS = 1.0
# A try takes up to 3 s in which the runner does nothing else, and it can poll meanwhile.
MAX_LISTENER_PAUSE_SECONDS = 30.0

HEAR = """
    listen job_submitted;
    listen runner_stop_requested;
    listen cancel_requested
"""
# It would be told of nothing, and its lock would stay with the pooler.
POOLED = "a pooler stands between: polling; set JOBRUNNER_LISTEN_URL to a direct way to be notified"
ANSWER_SECONDS = 3.0
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
# A beat does not wait for who holds the row of a runner: it is not to be given up with the lock.
# Nor does it wait for the disk: what a crash of the server forgets of it, the next one says.
# The rest are limits of the server: a host that vanished must not hold its lock for hours. (While
# something is under way to it, no keepalives are sent, but the same thing again and again.)
BESIDE = f"""
    {PLANNING};
    set statement_timeout = '2s';
    set lock_timeout = '100ms';
    set synchronous_commit = off;
    set tcp_keepalives_idle = 4;
    set tcp_keepalives_interval = 2;
    set tcp_keepalives_count = 3;
    set tcp_user_timeout = 10000
"""
# Where the row of the runner can't be written, its beats can't, nor would the lock be seen.
HOLD_LOCK = """
    select
        pg_try_advisory_lock(runner_lock_key(%(id)s)),
        exists (select from runner where id = %(id)s) and not pg_is_in_recovery()
"""
ELSEWHERE = "it leads to another database, or to a standby"


Note = tuple[str, str]  # channel and payload
T = TypeVar("T")


class Link:
    """A connection that is opened again when it was lost, after a short jittered pause.

    It hears what it listens for: ``session`` is executed where no pooler stands between.
    ``gives_up`` tells whether to wait no longer for an answer.
    """

    def __init__(
        self,
        url: str,
        name: str,
        session: LiteralString = SESSION,
        max_pause: float = MAX_PAUSE_SECONDS,
        gives_up: Callable[[], bool] | None = None,
    ) -> None:
        self.retry_at = 0.0
        self._url = url
        self._name = name
        self._gives_up = gives_up
        self._session = session
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
        return self._connection is not None and self.connected and not self._connection.pooled

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
                name=self._name,
                session=self._session,
                gives_up=self._gives_up,
            )
            self._heard.clear()
            connection.add_notify_handler(self._note)
            self._connection = connection
        return self._connection

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived.

        At libpq's level: ``Connection.notifies`` takes ten times as long.

        :raises psycopg.OperationalError: when the connection is gone.
        """
        if self._connection is None:
            return []
        libpq = self._connection.pgconn
        libpq.consume_input()
        heard = [*self._heard]
        self._heard.clear()
        while note := libpq.notifies():
            heard.append((note.relname.decode(), note.extra.decode()))
        return heard

    def works(self) -> None:
        """Note that the database answers: the next try is soon."""
        self._pause = FIRST_PAUSE_SECONDS
        self.retry_at = min(self.retry_at, monotonic() + self._pause)

    def lose(self) -> None:
        """Close it and set the time of the next try."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None
        self.retry_at = monotonic() + self._pause * random.uniform(0.5, 1.0)
        self._pause = min(self._max_pause, self._pause * 2)

    def _note(self, note: psycopg.Notify) -> None:
        self._heard.append((note.channel, note.payload))


class Listener:
    """Holds the lock, carries what is said beside the work, and hears what a link through a
    pooler can't. ``meanwhile`` is what is done while an answer is waited for."""

    def __init__(
        self,
        url: str,
        runner: str,
        gives_up: Callable[[], bool] | None = None,
        meanwhile: Callable[[int], None] | None = None,
    ) -> None:
        self.holds_lock = False
        name = f"jobrunner listener {runner}"
        self._link = Link(url, name, BESIDE, MAX_LISTENER_PAUSE_SECONDS, gives_up)
        self._connection: BoundedConnection | None = None
        self._runner = runner
        self._meanwhile = meanwhile

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._connection is not None

    @property
    def due(self) -> bool:
        """Whether it is time to try to connect again."""
        return not self.connected and self._link.due

    @property
    def retry_at(self) -> float:
        """When to try to connect again, by the monotonic clock; while not connected."""
        return self._link.retry_at

    def fileno(self) -> int:
        """The socket to wait for; only while connected."""
        return self._link.fileno()

    def connect(self, listens: bool) -> None:
        """Connect, listen where that is asked for, and take the lock.

        :raises DatabaseUnavailable: when that can't be had now.
        """
        try:
            connection = self._link.open()
            if connection.pooled:
                raise DatabaseUnavailable(POOLED)
            if listens:
                connection.execute(HEAR)
        except JobrunnerError as error:
            self.lose()
            raise DatabaseUnavailable(str(error)) from None
        except psycopg.Error as error:
            self.lose()
            raise DatabaseUnavailable(first_line(error)) from None
        connection.answer_seconds = ANSWER_SECONDS
        connection.meanwhile = self._meanwhile
        self._connection = connection
        self._link.works()
        self.keep_lock()

    def retry_soon(self) -> None:
        """Try again soon: the database has just come back."""
        self._link.works()

    def keep_lock(self) -> None:
        """Make sure of the lock: a lost connection of ours may still hold it on the server.

        :raises DatabaseUnavailable: when that can't be; the connection is closed then.
        """
        if self._connection is None or self.holds_lock:
            return
        try:
            values = {"id": self._runner}
            [(self.holds_lock, is_ours)] = self._connection.execute(HOLD_LOCK, values).fetchall()
        except psycopg.Error as error:
            self.lose()
            raise DatabaseUnavailable(first_line(error)) from None
        if not is_ours:
            self.lose()
            raise DatabaseUnavailable(ELSEWHERE)

    def say(self, act: Callable[[BoundedConnection], T]) -> T:
        """Have something said over this connection; only while connected.

        :raises DatabaseUnavailable: when that is lost; it is closed then.
        :raises psycopg.Error: when the database refuses it.
        """
        assert self._connection is not None
        try:
            return act(self._connection)
        except psycopg.Error as error:
            if not self._connection.closed:
                raise
            self.lose()
            raise DatabaseUnavailable(first_line(error)) from None

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived.

        :raises DatabaseUnavailable: when the connection is gone; it is closed then.
        """
        try:
            return self._link.hear()
        except Lost as error:
            self.lose()
            raise DatabaseUnavailable(first_line(error)) from None

    def lose(self) -> None:
        """Close the connection, and with it the lock."""
        self._connection = None
        self.holds_lock = False
        self._link.lose()
