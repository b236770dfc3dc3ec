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
# A beat does not wait for who holds the row of a runner: it is not to be given up with the lock.
# Nor does it wait for the disk: what a crash of the server forgets of it, the next one says.
# The rest are limits of the server: a host that vanished must not hold its lock for hours. (While
# something is under way to it, no keepalives are sent, but the same thing again and again.)
SESSION = f"""
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
# It would be told of nothing, and its lock would stay with the pooler.
POOLED = "a pooler stands between: polling; set JOBRUNNER_LISTEN_URL to a direct way to be notified"

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
        self._runner = runner
        self._link = link
        self._meanwhile = meanwhile
        name = f"jobrunner listener {runner}"
        self._own = Link(url, name, SESSION, MAX_PAUSE_SECONDS, gives_up)
        self._connection: BoundedConnection | None = None

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

    def tend(self) -> bool:
        """Connect and take the lock, where it is time to try; whether that was done."""
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
        self._connection = connection
        self._own.works()
        self.keep_lock()
        if self.connected:
            self.trouble, self.has_news = None, True
        return self.connected

    def retry_soon(self) -> None:
        """Try again soon: the database has just come back."""
        self._own.works()

    def keep_lock(self) -> None:
        """Make sure of the lock: a lost connection of ours may still hold it on the server."""
        if self._connection is None or self.holds_lock:
            return
        try:
            values = {"id": self._runner}
            [(holds_lock, is_ours)] = self._connection.execute(HOLD_LOCK, values).fetchall()
            if not is_ours:
                raise DatabaseUnavailable(ELSEWHERE)
            self.holds_lock = holds_lock
        except (JobrunnerError, psycopg.Error) as error:
            self._give_up(error)

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived."""
        try:
            return self._own.hear()
        except Lost as error:
            self._give_up(error)
            return []

    def say(
        self, act: Callable[[psycopg.Connection[Any]], T], otherwise: psycopg.Connection[Any]
    ) -> T:
        """Have something said over this connection, and over the other one where it is lost.

        :raises psycopg.Error: when the database refuses it.
        """
        if self._connection is not None:
            try:
                return act(self._connection)
            except psycopg.Error as error:
                if not self._connection.closed:
                    raise
                self._give_up(error)
        return act(otherwise)

    def lose(self) -> None:
        """Close the connection, and with it the lock."""
        self._connection = None
        self.holds_lock = False
        self._own.lose()

    def _give_up(self, error: Exception) -> None:
        """Close it and say why, once."""
        self.lose()
        reason = str(error) if isinstance(error, JobrunnerError) else first_line(error)
        if self.trouble is None:
            log.warning("listener_lost", runner=self._runner, reason=reason)
            lacks = "holds no lock" if self._link.listens else "is not told of anything, polls"
            self.trouble, self.has_news = f"{lacks}: {reason}", True
