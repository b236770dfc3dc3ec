"""Statements at libpq's level do what those of psycopg do: the runner's, and those of the web."""

from collections.abc import Callable, Iterator
from time import monotonic
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, generators
from psycopg.pq.abc import PGconn, PGresult

import jobrunner.database
import jobrunner.statement
import web.database
import web.statement

Words = Callable[[], list[tuple[Any, ...]]]
Db = psycopg.Connection[Any]
Make = Callable[[str, LiteralString], Any]

TEXT: LiteralString = "select %(word)s || %(other)s, %(word)s, null::text"
PREPARED = "select count(*) from pg_prepared_statements where name = 'words'"


@pytest.fixture(params=["jobrunner", "web"])
def package(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def connection(package: str, owner_url: str) -> Iterator[Db]:
    if package == "jobrunner":
        opened: Db = jobrunner.database.connect(owner_url)
    else:
        opened = web.database.BoundedConnection.connect(owner_url, autocommit=True)
    with opened:
        yield opened


@pytest.fixture
def make(package: str) -> Make:
    return jobrunner.statement.Statement if package == "jobrunner" else web.statement.Statement


@pytest.fixture
def words(make: Make, connection: Db) -> Words:
    statement = make("words", TEXT)
    return lambda: statement.rows(connection, {"word": "grün", "other": "'\"%"})


def test_it_gives_rows(words: Words) -> None:
    assert words() == [("grün'\"%", "grün", None)]


def test_a_text_that_postgresql_can_not_hold_is_refused_and_not_cut(
    connection: Db, make: Make
) -> None:
    with pytest.raises(psycopg.DataError):
        make("words", TEXT).rows(connection, {"word": "a\0b", "other": ""})


def test_it_is_prepared_once_a_connection(connection: Db, words: Words) -> None:
    words()
    words()

    assert connection.execute(PREPARED).fetchone() == (1,)


def test_it_leaves_nothing_in_a_session_where_nothing_may_be_left(
    connection: Db, words: Words
) -> None:
    connection.prepare_threshold = None

    assert words()
    assert connection.execute(PREPARED).fetchone() == (0,)


def test_it_is_prepared_anew_when_it_was_deallocated(connection: Db, words: Words) -> None:
    words()
    connection.execute("deallocate all")

    assert words()


def test_it_speaks_utf_8_whatever_was_set_in_its_session(connection: Db, words: Words) -> None:
    connection.execute("set client_encoding = 'latin1'")

    assert words() == [("grün'\"%", "grün", None)]


def test_its_errors_are_those_of_psycopg(connection: Db, make: Make) -> None:
    ratio = make("ratio", "select 1 / %(divisor)s")

    with pytest.raises(errors.DivisionByZero) as raised:
        ratio.rows(connection, {"divisor": 0})
    with pytest.raises(errors.InvalidTextRepresentation):
        ratio.rows(connection, {"divisor": "none"})

    assert raised.value.diag.message_primary == "division by zero"
    assert ratio.rows(connection, {"divisor": 1}) == [(1,)]


def test_what_the_socket_can_not_take_at_once_is_sent_in_parts(connection: Db, make: Make) -> None:
    [(joined, _, _)] = make("words", TEXT).rows(
        connection, {"word": "a" * 20_000_000, "other": "b"}
    )

    assert (len(joined), joined[-1]) == (20_000_001, "b")


def test_of_a_connection_that_the_server_has_ended_it_says_so(
    connection: Db, words: Words, owner_url: str
) -> None:
    words()
    with psycopg.connect(owner_url, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 5000)", [connection.info.backend_pid])

    with pytest.raises(errors.AdminShutdown):
        words()

    assert connection.closed


def test_it_is_given_up_like_any_other_when_no_answer_comes(
    connection: Db, make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connection, "answer_seconds", 0.1, raising=False)
    monkeypatch.setattr(connection, "give_up_at", monotonic() + 0.1, raising=False)

    with pytest.raises(psycopg.OperationalError, match="no answer"):
        make("sleep", "select pg_sleep(%(seconds)s)").rows(connection, {"seconds": 60})

    assert connection.closed


def test_it_is_not_waited_for_when_its_connection_is_lost_meanwhile(owner_url: str) -> None:
    with jobrunner.database.connect(owner_url) as connection:
        connection.gives_up = lambda: bool(connection.close())

        with pytest.raises(psycopg.OperationalError, match="lost meanwhile"):
            jobrunner.statement.Statement("sleep", "select pg_sleep(60)").rows(connection, {})


def test_an_error_without_an_end_is_given_up_like_silence(owner_url: str) -> None:
    """PostgreSQL sends an error before it has ended the transaction, and may stand still there."""
    with jobrunner.database.connect(owner_url) as connection:
        real = connection.pgconn
        [error] = connection.wait(generators.execute(sent(real, b"select 1/0")))
        connection.pgconn = Endless(real, error)
        connection.answer_seconds = 0.1

        with pytest.raises(psycopg.OperationalError, match="no answer"):
            connection.answer()

        connection.pgconn = real
        assert connection.closed


def sent(pgconn: PGconn, query: bytes) -> PGconn:
    pgconn.send_query(query)
    return pgconn


class Endless:
    """A server's connection that has brought one result, and brings nothing else."""

    def __init__(self, real: PGconn, result: PGresult) -> None:
        self._real = real
        self._results = [result]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    def is_busy(self) -> bool:
        return not self._results

    def get_result(self) -> PGresult:
        return self._results.pop()


def test_a_lost_connection_is_an_operational_error(connection: Db, words: Words) -> None:
    words()
    connection.pgconn.finish()

    with pytest.raises(psycopg.OperationalError):
        words()


def test_for_the_web_nothing_is_null(owner_url: str) -> None:
    statement = web.statement.Statement("given", "select %(given)s::text is null")

    with web.database.BoundedConnection.connect(owner_url, autocommit=True) as connection:
        assert statement.rows(connection, {"given": None}) == [(True,)]
        assert statement.rows(connection, {"given": ""}) == [(False,)]
