"""The second connection of a runner: it shows that the runner lives, and no job waits for it.

It is a direct one. It holds the advisory lock of the runner, and carries what is said beside the
work: beats, counts, how long the queues and how far the jobs are. While an answer is waited for,
jobs are claimed over the first connection.

Each session that listens is woken up by every notification, whatever it listens for, and wants a
processor just when a job is to be claimed. So this one listens only where the first one, through a
pooler, hears nothing.

It comes back by itself. Until then all is said over the first one, and a death shows by the lease.
"""

from collections.abc import Callable
from typing import Any, TypeVar

import psycopg

from jobrunner import log
from jobrunner.database import BoundedConnection, Lost, first_line
from jobrunner.errors import DatabaseUnavailable, JobrunnerError
from jobrunner.links import HEAR, PLANNING, Link, Note

# A try takes up to 3 s in which the runner does nothing else, and it can poll meanwhile.
MAX_PAUSE_SECONDS = 30.0
ANSWER_SECONDS = 3.0
# What is said here does not wait for who holds a row: it is not to be given up with the lock.
# The rest are limits of the server: a host that vanished must not hold its locks for hours. (While
# something is under way to it, no keepalives are sent, but the same thing again and again.) And
# within a transaction a claim over the link may be waited for, for 10 s.
SESSION = f"""
    {PLANNING};
    set statement_timeout = '2s';
    set lock_timeout = '100ms';
    set idle_in_transaction_session_timeout = '15s';
    set tcp_keepalives_idle = 4;
    set tcp_keepalives_interval = 2;
    set tcp_keepalives_count = 3;
    set tcp_user_timeout = 10000
"""
HOLD_LOCK = "select pg_try_advisory_lock(runner_lock_key(%s))"
SEE_LOCK = "select runner_holds_lock(%s)"
ELSEWHERE = "it leads to another database, or to a standby"
# It would be told of nothing, and its lock would stay with the pooler.
POOLED = "a pooler stands between: polling; set JOBRUNNER_LISTEN_URL to a direct way to be notified"

# Somebody holds a row, or the server is slow: it may be said later.
NOT_NOW = (psycopg.errors.LockNotAvailable, psycopg.errors.QueryCanceled)

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class Listener:
    """The connection of a runner, which has the other one as ``link``.

    ``meanwhile`` is what is done while an answer is waited for; ``gives_up`` tells whether to wait
    no longer.
    """

    def __init__(
        self,
        url: str,
        runner: str,
        link: Link,
        meanwhile: Callable[[int], None] | None = None,
        gives_up: Callable[[], bool] | None = None,
    ) -> None:
        self.holds_lock = False
        # Why it is away, and whether the row of the runner does not tell yet how it stands.
        self.trouble: str | None = None
        self.has_news = False
        self._url = url
        self._runner = runner
        self._link = link
        self._meanwhile = meanwhile
        self._gives_up = gives_up
        self._own = self._new_link()
        self._connection: BoundedConnection | None = None

    def begin_anew(self, runner: str) -> None:
        """Close the connection; the next one is for a runner that has this id now."""
        self.lose()
        self.trouble, self.has_news = None, False
        self._runner = runner
        self._own = self._new_link()

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as we know."""
        return self._connection is not None

    @property
    def retry_at(self) -> float:
        """When to try to connect again, by the monotonic clock; while not connected."""
        return self._own.retry_at

    def fileno(self) -> int:
        """The socket to wait for; only while connected."""
        return self._own.fileno()

    def tend(self, link: Connection) -> bool:
        """Connect and take the lock, where it is time to try; whether that was done.

        :raises psycopg.Error: of the link.
        """
        if self.connected or not self._own.due:
            return False
        try:
            connection = self._own.open()
            if connection.pooled:
                raise DatabaseUnavailable(POOLED)
            if not self._link.listens:
                connection.execute(HEAR)
        except (JobrunnerError, psycopg.Error) as error:
            self._give_up(error)
            return False
        connection.answer_seconds = ANSWER_SECONDS
        connection.meanwhile = self._meanwhile
        connection.is_brief = True
        self._connection = connection
        try:
            self.keep_lock(link)
        except psycopg.Error:
            self.lose()
            raise
        self.has_news = self.has_news or self.connected
        return self.connected

    def retry_soon(self) -> None:
        """Try again soon: the database has just come back."""
        self._own.works()

    def keep_lock(self, link: Connection) -> None:
        """Make sure of the lock: a lost connection of ours may still hold it on the server.

        :raises psycopg.Error: of the link.
        """
        if self._connection is None or self.holds_lock:
            return
        try:
            [(self.holds_lock,)] = self._connection.execute(HOLD_LOCK, [self._runner]).fetchall()
        except psycopg.Error as error:
            self._give_up(error)
            return
        self.check(link)

    def check(self, link: Connection) -> None:
        """Make sure that it leads where the link does: there its lock is seen.

        :raises psycopg.Error: of the link.
        """
        if self.holds_lock:
            [(is_seen,)] = link.execute(SEE_LOCK, [self._runner]).fetchall()
            if not is_seen:
                self._give_up(DatabaseUnavailable(ELSEWHERE))

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived."""
        try:
            return self._own.hear()
        except Lost as error:
            self._give_up(error)
            return []

    def say(self, act: Callable[[Connection], T], link: Connection, *, must: bool = False) -> T:
        """Have something said over this connection, and over the link where it is lost; where it
        ``must`` be said, also where it is refused for another reason than NOT_NOW.

        :raises psycopg.Error: when the database refuses it.
        """
        if self._connection is None:
            return act(link)
        try:
            said = act(self._connection)
        except psycopg.Error as error:
            if not self._connection.closed and (not must or isinstance(error, NOT_NOW)):
                raise
            if self._connection.closed:
                self._give_up(error)
                return act(link)
            # If it is refused there as well, this connection is as good as the other. If not, it is
            # given up, and the lock with it: nobody is to be told that we hold it.
            held, self.holds_lock = self.holds_lock, False
            try:
                said = act(link)
            except psycopg.Error:
                self.holds_lock = held
                raise
            self._give_up(error)
            return said
        self._own.works()
        if self.trouble is not None:
            self.trouble, self.has_news = None, True
        return said

    def lose(self) -> None:
        """Close the connection, and with it the lock."""
        self._connection = None
        self.holds_lock = False
        self._own.lose()

    def _new_link(self) -> Link:
        name = f"jobrunner listener {self._runner}"
        return Link(self._url, name, SESSION, MAX_PAUSE_SECONDS, self._gives_up)

    def _give_up(self, error: Exception) -> None:
        """Close it and say why, once."""
        self.has_news = self.has_news or self.holds_lock
        self.lose()
        reason = str(error) if isinstance(error, JobrunnerError) else first_line(error)
        if self.trouble is None:
            log.warning("listener_lost", runner=self._runner, reason=reason)
            lacks = "holds no lock" if self._link.listens else "is not told of anything, polls"
            self.trouble, self.has_news = f"{lacks}: {reason}", True
