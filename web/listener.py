"""The connection on which a process hears that jobs have changed, and reads them.

It has nothing to do with the pool: it stays, it holds a lock that says that somebody waits,
and through a pooler it would hear nothing. There, and while it is deaf, jobs are read often.
"""

import select
import socket
from collections.abc import Mapping
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.rows import dict_row

from web.database import (
    ACT_AS_WEB,
    DEFAULTS,
    ENCODING,
    PREPARE_AFTER,
    READABLE_TIMES,
    STATEMENT_TIMEOUT,
    BoundedConnection,
)
from web.rows import READ_JOBS, Row

WHO_AND_WHERE = "select current_user, pg_backend_pid()"
WATCH = "listen job_changed; select watch_jobs()"
UNWATCH = "unlisten job_changed; select unwatch_jobs()"


class Listener:
    """Hears of changes while it watches; not for several threads at once."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._connection: BoundedConnection | None = None
        self._deaf = False
        self._watching = False
        self._told = False

    @property
    def deaf(self) -> bool:
        """Whether nothing is heard: a pooler stands between."""
        return self._deaf

    def watch(self) -> bool:
        """Be told of changes from now on; whether that has just begun.

        :raises psycopg.Error: when the database can't be had.
        """
        if self._connection is None or self._connection.closed:
            self._connect()
        if self._watching:
            return False
        if not self._deaf:
            self._execute(WATCH)
        self._watching = True
        return True

    def unwatch(self) -> None:
        """Let nobody take the trouble to tell.

        :raises psycopg.Error: when the database can't be had.
        """
        if self._watching and not self._deaf:
            self._execute(UNWATCH)
        self._watching = False

    def read(self, known: Mapping[UUID, str]) -> list[Row]:
        """Read the jobs that have another version by now than is known of them.

        :raises psycopg.Error: when the database can't be had.
        """
        assert self._connection is not None
        with self._connection.cursor(row_factory=dict_row) as cursor:
            values = {"ids": [*known], "versions": [*known.values()], "client": None}
            return cursor.execute(READ_JOBS, values).fetchall()

    def wait(self, bell: socket.socket, seconds: float) -> bool:
        """Wait until jobs have changed, the bell is rung, or the time is over; whether the first.

        :raises psycopg.Error: when the connection is lost.
        """
        poll, deadline = select.poll(), monotonic() + seconds
        poll.register(bell, select.POLLIN)
        if self._connection is not None and not self._connection.closed:
            poll.register(self._connection.fileno(), select.POLLIN)
        while not self._told and (left := deadline - monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left * 1000)}
            if self._connection and ready - {bell.fileno()}:
                self._hear(self._connection)
            if bell.fileno() in ready:
                bell.recv(4096)
                break
        # What is told from now on, while somebody reads, makes the next wait short.
        told, self._told = self._told, False
        return told

    def lose(self) -> None:
        """Close the connection; the next watch opens another."""
        self._watching = False
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _connect(self) -> None:
        self.lose()
        given = DEFAULTS | {"application_name": "jobrunner web listener"}
        conninfo = make_conninfo(**(given | conninfo_to_dict(self._url) | ENCODING))
        connection = BoundedConnection.connect(conninfo, autocommit=True, prepare_threshold=None)
        try:
            [(user, pid)] = connection.execute(WHO_AND_WHERE).fetchall()
            self._deaf = pid != connection.info.backend_pid
            if not self._deaf:
                if user != "job_web":
                    connection.execute(ACT_AS_WEB)
                connection.execute(STATEMENT_TIMEOUT)
                connection.execute(READABLE_TIMES)
                connection.add_notify_handler(self._note)
                connection.prepare_threshold = PREPARE_AFTER
        except BaseException:
            connection.close()
            raise
        self._connection = connection

    def _execute(self, statement: Any) -> None:
        assert self._connection is not None
        self._connection.execute(statement)

    def _hear(self, connection: BoundedConnection) -> None:
        libpq = connection.pgconn
        libpq.consume_input()
        while libpq.notifies():
            self._told = True

    def _note(self, _: psycopg.Notify) -> None:
        """A notification that came with an answer."""
        self._told = True
