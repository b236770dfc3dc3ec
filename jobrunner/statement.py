"""A statement in the path of every job, with nothing between it and libpq.

A cursor of psycopg works out for each execution how the values are to be written, by which
name the statement is prepared and how the rows are to be read: for one row that takes three
times as long as to send it and to read the answer. Here values are text, which is what they are
on the wire, and rows are read by psycopg's core.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, LiteralString
from weakref import WeakKeyDictionary

import psycopg
from psycopg import adapt, errors, generators
from psycopg.abc import Transformer
from psycopg.pq import ExecStatus
from psycopg.pq.abc import PGresult

from jobrunner.database import BoundedConnection

PARAMETER = re.compile(r"%\((\w+)\)s")
GOOD = (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK)


class Statement:
    """A statement with parameters like ``%(name)s``, whose types follow from where they stand.

    It is prepared once a connection, unless that has a ``prepare_threshold`` of None; and written
    in UTF-8, which is what our connections speak.
    """

    def __init__(self, name: str, text: LiteralString) -> None:
        self._name = name.encode()
        self._parameters = list(dict.fromkeys(PARAMETER.findall(text)))
        numbered = PARAMETER.sub(lambda found: f"${self._parameters.index(found[1]) + 1}", text)
        self._text = numbered.encode()
        # By the connections that have it prepared, what reads their rows.
        self._readers: WeakKeyDictionary[psycopg.Connection[Any], Transformer] = WeakKeyDictionary()

    def rows(
        self, connection: psycopg.Connection[Any], values: Mapping[str, object]
    ) -> list[tuple[Any, ...]]:
        """Execute it on an autocommit connection; give the rows.

        :raises psycopg.Error: as a cursor would.
        """
        return self.rows_of(connection, self.written(values))

    def written(self, values: Mapping[str, object]) -> list[bytes]:
        """Write the values as they are sent, for whoever has no time to do so later."""
        return [_written(values[name]) for name in self._parameters]

    def rows_of(
        self, connection: psycopg.Connection[Any], written: Sequence[bytes]
    ) -> list[tuple[Any, ...]]:
        """As ``rows``, with values that have been written."""
        result = self._execute(connection, written)
        reader = self._readers.get(connection) or _new_reader()
        reader.set_pgresult(result)
        rows = reader.load_rows(0, result.ntuples, tuple)
        reader.set_pgresult(None)  # which would be kept until the next one
        return rows

    def _execute(self, connection: psycopg.Connection[Any], values: Sequence[bytes]) -> PGresult:
        libpq = connection.pgconn
        if connection.prepare_threshold is None:
            libpq.send_query_params(self._text, values)
            return _answer(connection)
        if connection not in self._readers:
            libpq.send_prepare(self._name, self._text)
            _answer(connection)
            self._readers[connection] = _new_reader()
        try:
            libpq.send_query_prepared(self._name, values)
            return _answer(connection)
        except errors.InvalidSqlStatementName:
            # After a rollback psycopg deallocates all statements of a session.
            del self._readers[connection]
            return self._execute(connection, values)


def _written(value: object) -> bytes:
    written = str(value).encode()
    if b"\0" in written:
        # libpq would send what comes before it.
        raise psycopg.DataError("PostgreSQL text cannot contain the character NUL")
    return written


def _new_reader() -> Transformer:
    """One of no connection, and so of UTF-8, as the values are."""
    return adapt.Transformer()


def _answer(connection: psycopg.Connection[Any]) -> PGresult:
    """Wait for the answer to what was sent, for as long as the connection waits."""
    results: list[PGresult]
    if isinstance(connection, BoundedConnection):
        results = connection.answer()
    else:
        results = connection.wait(generators.execute(connection.pgconn))
    # A pooler may add an error of its own to the server's last words.
    for result in results:
        if result.status not in GOOD:
            raise errors.error_from_result(result, connection.info.encoding)
    return results[-1]
