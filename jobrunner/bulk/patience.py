"""A connection that waits for the database, and outlives its restart."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg

from jobrunner import database
from jobrunner.errors import DatabaseRefused, DatabaseUnavailable

# Who inserts, and reads what became of it: see sql/0007_create_roles.sql.
ROLE = "job_web"
NAME = "jobrunner submit"
PATIENCE_SECONDS = 60.0
AGAIN_SECONDS = 0.5

# A failover leaves us for a moment with a server that takes no writes.
Away = (*database.Lost, psycopg.errors.ReadOnlySqlTransaction, DatabaseUnavailable)

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class PatientConnection:
    """Asks again, on a new connection, for a minute."""

    def __init__(self, url: str, tell: Callable[[str], None]) -> None:
        self._url = url
        self._tell = tell
        self._connection: Connection | None = None
        # Whether it ever was: who was let in before has the right password.
        self._let_in = False

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Do what is asked, which may be done twice where an answer is lost.

        :raises DatabaseUnavailable: when there is no answer for PATIENCE_SECONDS.
        :raises DatabaseRefused: at once, when it has not let us in the first time.
        """
        deadline: float | None = None
        while True:
            try:
                return question(self._open())
            except Away as error:
                self.close()
                if isinstance(error, DatabaseRefused) and not self._let_in:
                    raise
                if deadline is None:
                    deadline = monotonic() + PATIENCE_SECONDS
                    self._tell(f"The database is away: waiting for it, {PATIENCE_SECONDS:g} s.")
                if monotonic() > deadline:
                    raise DatabaseUnavailable(_words(error)) from None
                sleep(AGAIN_SECONDS)

    def close(self) -> None:
        """Close it, as far as it is open."""
        if self._connection is not None:
            self._connection.close()

    def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = database.connect(self._url, role=ROLE, name=NAME)
            self._let_in = True
        return self._connection


def _words(error: BaseException) -> str:
    said = database.first_line(error)
    return said if isinstance(error, DatabaseUnavailable) else f"the database: {said}"
