"""Statements at libpq's level do what those of psycopg do."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from jobrunner import database
from jobrunner.database import BoundedConnection
from jobrunner.statement import Statement

WORDS = Statement("words", "select %(word)s || %(other)s, %(word)s, null::text")
RATIO = Statement("ratio", "select 1 / %(divisor)s")
PREPARED = "select count(*) from pg_prepared_statements where name = 'words'"


@pytest.fixture
def connection(owner_url: str) -> Iterator[BoundedConnection]:
    with database.connect(owner_url) as connection:
        yield connection


def words(connection: psycopg.Connection) -> list[tuple[Any, ...]]:
    return WORDS.rows(connection, {"word": "grün", "other": "'\"%"})


def test_it_gives_rows(connection: BoundedConnection) -> None:
    assert words(connection) == [("grün'\"%", "grün", None)]


def test_it_is_prepared_once_a_connection(connection: BoundedConnection) -> None:
    words(connection)
    words(connection)

    assert connection.execute(PREPARED).fetchone() == (1,)


def test_it_leaves_nothing_in_a_session_where_nothing_may_be_left(
    connection: BoundedConnection,
) -> None:
    connection.prepare_threshold = None

    assert words(connection)
    assert connection.execute(PREPARED).fetchone() == (0,)


def test_it_is_prepared_anew_when_it_was_deallocated(connection: BoundedConnection) -> None:
    words(connection)
    connection.execute("deallocate all")

    assert words(connection)


def test_it_speaks_utf_8_whatever_was_set_in_its_session(connection: BoundedConnection) -> None:
    connection.execute("set client_encoding = 'latin1'")

    assert words(connection) == [("grün'\"%", "grün", None)]


def test_its_errors_are_those_of_psycopg(connection: BoundedConnection) -> None:
    with pytest.raises(errors.DivisionByZero) as raised:
        RATIO.rows(connection, {"divisor": 0})
    with pytest.raises(errors.InvalidTextRepresentation):
        RATIO.rows(connection, {"divisor": "none"})

    assert raised.value.diag.message_primary == "division by zero"
    assert RATIO.rows(connection, {"divisor": 1}) == [(1,)]


def test_what_the_socket_can_not_take_at_once_is_sent_in_parts(
    connection: BoundedConnection,
) -> None:
    [(joined, _, _)] = WORDS.rows(connection, {"word": "a" * 20_000_000, "other": "b"})

    assert (len(joined), joined[-1]) == (20_000_001, "b")


def test_of_a_connection_that_the_server_has_ended_it_says_so(
    connection: BoundedConnection, owner_url: str
) -> None:
    words(connection)
    with psycopg.connect(owner_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    with pytest.raises(errors.AdminShutdown):
        words(connection)

    assert connection.closed


def test_it_is_given_up_like_any_other_when_no_answer_comes(
    connection: BoundedConnection,
) -> None:
    connection.answer_seconds = 0.1

    with pytest.raises(psycopg.OperationalError, match="no answer"):
        Statement("sleep", "select pg_sleep(%(seconds)s)").rows(connection, {"seconds": 60})

    assert connection.closed


def test_a_lost_connection_is_an_operational_error(connection: BoundedConnection) -> None:
    words(connection)
    connection.pgconn.finish()

    with pytest.raises(psycopg.OperationalError):
        words(connection)
