"""The queues that are measured, ours and its peers, each behind the same few verbs."""

import os
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile
from threading import Event
from time import time
from typing import LiteralString

import psycopg
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

SETTLE_SECONDS = 2.0


class Queue(ABC):
    """A queue on a PostgreSQL server, or beside it. Every job of it does nothing.

    Settings are those that its own documentation recommends for speed, where it does.
    """

    name: str
    settings = "defaults"
    # Jobs of a drain: so many that it takes a second or more.
    jobs = 40_000

    def __init__(self, url: str) -> None:
        self.url = url
        self._connection: psycopg.Connection | None = None

    @property
    def connection(self) -> psycopg.Connection:
        """A connection to look with."""
        if self._connection is None:
            self._connection = psycopg.connect(self.url, autocommit=True)
        return self._connection

    @classmethod
    def missing(cls) -> str | None:
        """Say what it would need that is not there, if anything."""
        return None

    @abstractmethod
    def install(self) -> None:
        """Make its tables."""

    @abstractmethod
    def fill(self, count: int) -> None:
        """Submit so many jobs at once."""

    @abstractmethod
    def submit(self) -> float:
        """Submit one job that signals its start.

        Gives when the broker's answer was read that it is committed, in seconds since the epoch:
        what the client does after that is not the queue's.
        """

    @abstractmethod
    def left(self) -> int:
        """How many jobs are not finished yet."""

    @abstractmethod
    def commands(self, processes: int) -> list[list[str]]:
        """The commands that run its workers."""

    @property
    def environment(self) -> dict[str, str]:
        """What the commands find in their environment."""
        return os.environ | {"DATABASE_URL": self.url}

    def forget(self) -> None:  # noqa: B027 (there may be nothing)
        """Forget what was finished, so that each run finds the same tables."""

    @contextmanager
    def running(self, processes: int, **settings: str) -> Iterator[None]:
        """Run its workers, until the block ends."""
        with ExitStack() as stack, TemporaryFile() as output:
            for command in self.commands(processes):
                environment = self.environment | settings
                process = subprocess.Popen(
                    command, env=environment, stdout=output, stderr=subprocess.STDOUT
                )
                stack.callback(end, process)
            try:
                yield
            except TimeoutError:
                output.seek(0)
                print(output.read()[-4000:].decode(errors="replace"), file=sys.stderr)
                raise

    def close(self) -> None:
        """Give up the connection."""
        if self._connection:
            self._connection.close()


class Submit:
    """A statement that submits a job, prepared, at libpq's level: psycopg has more to do when it
    has read the answer."""

    def __init__(self, connection: psycopg.Connection, statement: LiteralString) -> None:
        self._libpq = connection.pgconn
        _require(self._libpq.prepare(b"submit", statement.encode()))

    def __call__(self) -> float:
        """Submit one; give when the answer was read, in seconds since the epoch.

        :raises psycopg.Error: when it is refused.
        """
        result = self._libpq.exec_prepared(b"submit", None)
        moment = time()
        _require(result)
        return moment


def _require(result: PGresult) -> None:
    if result.status not in (ExecStatus.COMMAND_OK, ExecStatus.TUPLES_OK):
        raise psycopg.errors.error_from_result(result)


class SqlQueue(Queue):
    """A queue to which jobs are submitted by SQL, as its own functions would insert them."""

    fill_statement: LiteralString  # with the number of jobs
    submit_statement: LiteralString
    left_statement: LiteralString
    _submit: Submit | None = None

    def fill(self, count: int) -> None:
        self.connection.execute(self.fill_statement, [count])

    def submit(self) -> float:
        if self._submit is None:
            self._submit = Submit(self.connection, self.submit_statement)
        return self._submit()

    def left(self) -> int:
        [(count,)] = self.connection.execute(self.left_statement).fetchall()
        return int(count)


def rest() -> None:
    """Let workers that have just been started come to rest."""
    Event().wait(SETTLE_SECONDS)


def python(module: str, *arguments: str) -> list[str]:
    """The command that runs a module."""
    return [sys.executable, "-m", module, *arguments]


def end(process: subprocess.Popen[bytes]) -> None:
    """Let a process end, or kill it."""
    process.terminate()
    try:
        process.wait(20)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def execute(url: str, statements: Sequence[LiteralString]) -> None:
    """Execute statements, each a transaction."""
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement)
