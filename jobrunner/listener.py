"""The second connection of a runner, which shows that the runner lives; work does not wait for it.

It is a direct one. It holds the advisory lock of the runner, and carries what is said beside the
work: beats, counts, how long the queues and how far the jobs are. While an answer is waited for,
work goes on over the first connection; and while one is waited for there, this one keeps its lock.

Each session that listens is woken up by every notification, whatever it listens for, and wants a
processor just when a job is to be claimed. So this one listens only where the first one, through a
pooler, hears nothing.

It comes back by itself. Until then all is said over the first one, and a death shows by the lease.
To connect may take 3 s in which nothing else is done (and 3 more where the first answer does not
come): a long pause comes after a try that did.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any, TypeVar

import psycopg

from jobrunner import log
from jobrunner.database import BoundedConnection, Lost, first_line
from jobrunner.errors import DatabaseUnavailable, JobrunnerError
from jobrunner.links import PLANNING, Link, Note
from jobrunner.polling import hung_up

# A try takes seconds in which the runner does nothing else, and it can do without.
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

TAKEN = "holds no lock: a connection that was lost has it still"

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
        meanwhile: Callable[[BoundedConnection], None] | None = None,
        gives_up: Callable[[], bool] | None = None,
    ) -> None:
        # Whether the row of the runner does not tell yet how it stands.
        self.has_news = False
        self._away_because: str | None = None
        self._has_lock = False
        self._is_seen = False
        self._hears = False
        # Whether an answer is waited for; then nothing else may be asked.
        self._is_asked = False
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
        self._away_because, self.has_news = None, False
        self._runner = runner
        self._own = self._new_link()

    @property
    def holds_lock(self) -> bool:
        """Whether the lock is held where the link leads."""
        return self._has_lock and self._is_seen

    @property
    def trouble(self) -> str | None:
        """Why the runner holds no lock, or is not told of anything."""
        if self.connected and not self._has_lock:
            return self._away_because or TAKEN
        return self._away_because

    @property
    def hears(self) -> bool:
        """Whether it listens, for a link that hears nothing."""
        return self.connected and self._hears

    @property
    def has_heard(self) -> bool:
        """Whether there is something that ``hear`` has not given yet."""
        return self._own.has_heard

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
        if not self._connect():
            return False
        try:
            self.keep_lock(link)
        except psycopg.Error:
            self.lose()
            raise
        return self.connected

    def keep_up(self) -> bool:
        """See to connection and lock while the link is waited for: who has told of a lock is found
        dead seconds after that has gone. Where it leads is looked at when the link has time.

        Whether that was done: not where this connection has gone and is waited for as well.
        """
        if self._is_asked:
            # To take what has arrived off the socket would keep it from who waits for it.
            return not hung_up(self._own.fileno())
        try:
            self._own.look()
        except Lost as error:
            self._give_up(error)
        self._connect()
        self._take_lock()
        return True

    def retry_soon(self) -> None:
        """Try again soon: the database has just come back."""
        self._own.works()

    def keep_lock(self, link: Connection) -> None:
        """Make sure of the lock: a lost connection of ours may still hold it on the server.

        :raises psycopg.Error: of the link.
        """
        self._take_lock()
        require(link)
        self._listen()
        require(link)
        if not self._is_seen:
            self.check(link)

    def check(self, link: Connection) -> None:
        """Make sure that it leads where the link does: there its lock is seen.

        :raises psycopg.Error: of the link.
        """
        if not self._has_lock:
            return
        looked_at = self._connection
        [(is_seen,)] = link.execute(SEE_LOCK, [self._runner]).fetchall()
        # Meanwhile there may have come another, which is not known to lead there.
        if self._connection is not looked_at:
            return
        if is_seen:
            self._is_seen = True
        else:
            self._give_up(self._lost() or DatabaseUnavailable(ELSEWHERE))
            require(link)

    def hear(self) -> list[Note]:
        """Take the notifications that have arrived."""
        try:
            return self._own.hear()
        except Lost as error:
            self._give_up(error)
            return []

    def say(self, act: Callable[[Connection], T], link: Connection, *, must: bool = False) -> T:
        """Have something said over this connection, and over the link where this holds no lock;
        where it ``must`` be said, also where it is refused for another reason than NOT_NOW. Only
        that shows that this connection is well again: what else it takes may be taken all the time.

        :raises psycopg.Error: when the database refuses it, or the link was lost meanwhile.
        """
        said = self._say(act, link, must)
        require(link)
        return said

    def lose(self, took: float = 0.0) -> None:
        """Close the connection, and with it the lock; see ``Link.lose``."""
        self._connection = None
        self._has_lock = self._is_seen = self._hears = False
        self._own.lose(took)

    def _say(self, act: Callable[[Connection], T], link: Connection, must: bool) -> T:
        # Of another database it would be told that the runner is dead.
        if (connection := self._connection) is None or not self.holds_lock:
            return act(link)
        try:
            with self._asking():
                said = act(connection)
        except psycopg.Error as error:
            if not connection.closed and (not must or isinstance(error, NOT_NOW)):
                raise
            if connection.closed:
                self._give_up(error)
                return act(link)
            # If it is refused there as well, this connection is as good as the other. If not, it is
            # given up, and the lock with it: nobody is to be told that we hold it.
            seen, self._is_seen = self._is_seen, False
            try:
                said = act(link)
            except psycopg.Error:
                self._is_seen = seen and self._connection is connection
                raise
            if self._connection is connection:
                self._give_up(error)
            return said
        if must:
            self._own.works()
            if self._away_because is not None:
                self._away_because, self.has_news = None, True
        return said

    def _new_link(self) -> Link:
        name = f"jobrunner listener {self._runner}"
        return Link(self._url, name, SESSION, MAX_PAUSE_SECONDS, self._gives_up, ANSWER_SECONDS)

    def _connect(self) -> bool:
        """Connect, where it is time to try; whether that was done."""
        if self.connected or not self._own.due:
            return False
        began = monotonic()
        try:
            connection = self._own.open()
            if connection.pooled:
                raise DatabaseUnavailable(POOLED)
        except (JobrunnerError, psycopg.Error) as error:
            self._give_up(error, monotonic() - began)
            return False
        connection.meanwhile = self._meanwhile
        connection.is_brief = True
        self._connection = connection
        self.has_news = True
        return True

    def _take_lock(self) -> None:
        if self._connection is None or self._has_lock:
            return
        began = monotonic()
        try:
            with self._asking():
                [(self._has_lock,)] = self._connection.execute(HOLD_LOCK, [self._runner]).fetchall()
        except psycopg.Error as error:
            self._give_up(error, monotonic() - began)
        self.has_news = self.has_news or self._has_lock

    def _lost(self) -> psycopg.Error | None:
        """Ask whether its session is still there; what became of it."""
        assert self._connection is not None
        try:
            with self._asking():
                self._connection.execute("select")
        except psycopg.Error as error:
            return error
        return None

    def _listen(self) -> None:
        """Listen, where the link hears nothing."""
        if self._connection is None or self._hears or self._link.listens:
            return
        try:
            with self._asking():
                self._connection.execute(self._link.hearing)
        except psycopg.Error as error:
            self._give_up(error)
        self._hears = self.connected

    @contextmanager
    def _asking(self) -> Iterator[None]:
        self._is_asked = True
        try:
            yield
        finally:
            self._is_asked = False

    def _give_up(self, error: Exception, took: float = 0.0) -> None:
        """Close it and say why, once."""
        self.has_news = self.has_news or self.holds_lock
        self.lose(took)
        reason = str(error) if isinstance(error, JobrunnerError) else first_line(error)
        if self._away_because is None:
            log.warning("listener_lost", runner=self._runner, reason=reason)
            lacks = "is not told of anything, polls" if self._link.pooled else "holds no lock"
            self._away_because, self.has_news = f"{lacks}: {reason}", True


def require(link: Connection) -> None:
    """Go on only if the link was not lost while something else was waited for.

    :raises psycopg.OperationalError: when it was.
    """
    if link.closed:
        raise psycopg.OperationalError("the connection was lost meanwhile")
