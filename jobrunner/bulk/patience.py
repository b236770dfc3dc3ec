"""A connection that outlives a restart of the database."""

from collections.abc import Callable
from time import monotonic, sleep
from typing import Any, TypeVar

import psycopg

from jobrunner import database
from jobrunner.errors import DatabaseUnavailable

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
        self._connection: Connection = self._connect()

    def ask(self, question: Callable[[Connection], T]) -> T:
        """Do what is asked, which may be done twice where an answer is lost.

        :raises DatabaseUnavailable: when there is no answer for PATIENCE_SECONDS.
        """
        deadline: float | None = None
        while True:
            try:
                if self._connection.closed:
                    self._connection = self._connect()
                return question(self._connection)
            except Away as error:
                self._connection.close()
                if deadline is None:
                    deadline = monotonic() + PATIENCE_SECONDS
                    self._tell(f"The database is away: waiting for it, {PATIENCE_SECONDS:g} s.")
                if monotonic() > deadline:
                    raise DatabaseUnavailable(_words(error)) from None
                sleep(AGAIN_SECONDS)

    def close(self) -> None:
        """Close it for good."""
        self._connection.close()

    def _connect(self) -> Connection:
        return database.connect(self._url, role=ROLE, name=NAME)


def _words(error: BaseException) -> str:
    said = database.first_line(error)
    return said if isinstance(error, DatabaseUnavailable) else f"the database: {said}"
