"""The database goes away, freezes, and comes back: a 503 in seconds, never a hang."""

import os
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from helpers import Jobs, login_url, wait_for
from jobrunner import database, embedded, migrations
from web import create_app
from web.database import POOL_CONNECTIONS, Database
from web_server import WebServer, web_settings

LIMIT_SECONDS = 10

# What an answer must not say: where the database is, who we are there, what we use.
INSIDE = ("127.0.0.1", "web_login", "job_web", "psycopg", "Operational", "Pool", "connection")

CALLS: list[tuple[str, str]] = [
    ("POST", "/predict"),
    ("GET", "/jobs"),
    ("GET", "/jobs/0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"),
    ("GET", "/readyz"),
]


@pytest.fixture(scope="module")
def own_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    """A server of this chapter alone, which may break it."""
    server = embedded.Server(tmp_path_factory.mktemp("own"), options={"fsync": "off"})
    server.start()
    with database.connect(server.url) as connection:
        migrations.migrate(connection)
        connection.execute("create role web_login login password 'web_login' in role job_web")
        connection.execute("alter role web_login set role job_web")
    yield server
    server.stop()


@pytest.fixture
def own_app(own_server: embedded.Server) -> Iterator[Flask]:
    app = create_app(web_settings(login_url(own_server.url, "web_login")))
    yield app
    app.extensions["database"].close()


@pytest.fixture
def call(own_app: Flask) -> Callable[[str, str], TestResponse]:
    def call(method: str, path: str) -> TestResponse:
        return FlaskClient(own_app).open(path, method=method, json={"text": "I love it"})

    return call


def statuses(call: Callable[[str, str], TestResponse], copies: int = 1) -> list[int]:
    """What all the calls at once are answered, each within the limit."""

    def timed(wanted: tuple[str, str]) -> int:
        began = monotonic()
        response = call(*wanted)
        assert monotonic() - began < LIMIT_SECONDS
        if response.status_code == 503:
            assert response.content_type == "application/problem+json"
            assert int(response.headers["Retry-After"]) >= 1
            assert not any(word in response.get_data(as_text=True) for word in INSIDE)
        return response.status_code

    with ThreadPoolExecutor(len(CALLS) * copies) as threads:
        return list(threads.map(timed, CALLS * copies))


def processes_of(server: embedded.Server) -> list[int]:
    postmaster = int((server.data / "postmaster.pid").read_text().splitlines()[0])
    with database.connect(server.url) as owner:
        query = "select pid from pg_stat_activity where pid <> pg_backend_pid()"
        return [postmaster, *(pid for (pid,) in owner.execute(query).fetchall())]


SERVED = [202, 200, 404, 200]
AWAY = [503, 503, 503, 503]


def test_a_stopped_database_is_a_503_and_the_first_request_after_it_is_served(
    own_server: embedded.Server, call: Callable[[str, str], TestResponse]
) -> None:
    assert statuses(call, copies=4) == SERVED * 4

    own_server.stop()
    away = statuses(call)
    own_server.start()

    assert away == AWAY
    assert statuses(call) == SERVED


def test_a_restart_that_nobody_saw_costs_no_request(
    own_server: embedded.Server, call: Callable[[str, str], TestResponse]
) -> None:
    assert statuses(call, copies=4) == SERVED * 4

    own_server.stop()
    own_server.start()

    assert statuses(call, copies=4) == SERVED * 4


def test_a_frozen_database_is_a_503_in_seconds_and_serves_when_it_thaws(
    own_server: embedded.Server, own_app: Flask, call: Callable[[str, str], TestResponse]
) -> None:
    web: Database = own_app.extensions["database"]
    web.warm_up()
    # Of a connection that is only being made the process would be missed.
    size = "pool_available"
    wait_for(lambda: web._pool.get_stats()[size] == POOL_CONNECTIONS, "all connections are there")
    assert statuses(call) == SERVED
    frozen = processes_of(own_server)

    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        # More than the pool holds, so that some wait for a connection and some for an answer.
        away = statuses(call, copies=4)
    finally:
        for pid in frozen:
            os.kill(pid, signal.SIGCONT)

    assert away == AWAY * 4
    assert statuses(call) == SERVED


def test_the_pool_is_opened_at_its_first_use_and_not_before(web_url: str, jobs: Jobs) -> None:
    # By their pids: those of tests before may be on their way out.
    query = "select pid from pg_stat_activity where application_name = 'jobrunner web'"
    before = jobs.db.execute(query).fetchall()
    app = create_app(web_settings(web_url))

    made = jobs.db.execute(query).fetchall()
    app.test_client().get("/readyz")
    used = jobs.db.execute(query).fetchall()
    app.extensions["database"].close()

    assert set(made) <= set(before)
    assert not set(used) <= set(before)


def test_threads_share_a_pool_of_8_connections(app: Flask) -> None:
    web: Database = app.extensions["database"]

    def backend(_: int) -> Any:
        with web.connection() as connection:
            return connection.execute("select pg_backend_pid()").fetchone()

    with ThreadPoolExecutor(32) as threads:
        used = list(threads.map(backend, range(200)))

    assert len(used) == 200
    assert len(set(used)) <= POOL_CONNECTIONS == 8


def test_a_503_for_want_of_a_lock_is_not_committed_later(app: Flask, jobs: Jobs) -> None:
    client = app.test_client()
    client.get("/readyz")

    with jobs.db.transaction():
        jobs.db.execute("lock table job in share mode")
        refused = client.post("/predict", json={"text": "I love it"})

    assert refused.status_code == 503
    assert client.post("/predict", json={"text": "I hate it"}).status_code == 202
    assert jobs.count() == 1


def test_nothing_but_a_time_limit_a_style_of_times_and_no_compiling_is_left_in_a_session(
    web_url: str, jobs: Jobs
) -> None:
    web = Database(web_url)

    with web.connection() as connection:
        connection.execute("select 1")
        prepared = connection.execute("select count(*) from pg_prepared_statements").fetchone()
        settings = connection.execute(
            "select name from pg_settings where source = 'session' and name <> 'client_encoding'"
        ).fetchall()
    web.close()

    assert prepared == (0,)
    assert {name for (name,) in settings} == {"DateStyle", "jit", "statement_timeout"}


@pytest.mark.process
def test_an_error_of_ours_is_logged_by_its_place_and_without_a_word_of_the_user(
    own_server: embedded.Server, tmp_path: Path
) -> None:
    with (
        database.connect(own_server.url) as owner,
        WebServer(login_url(own_server.url, "web_login")) as server,
    ):
        owner.execute("alter table job add constraint nothing_is_good check (false) not valid")
        answer = server.predict(text="my-secret-diary")
        owner.execute("alter table job drop constraint nothing_is_good")
        recovered = server.predict(text="my-secret-diary")
        log = server.stop()

    assert answer.status == 500
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert (recovered.status, recovered.json["status"]) == (202, "processing")
    failed = [line for line in log.splitlines() if " error request_failed " in line]
    assert len(failed) == 1
    assert "error=CheckViolation sqlstate=23514" in failed[0]
    assert "predict.py" in failed[0]
    assert "my-secret-diary" not in log + answer.body.decode()
    assert "nothing_is_good" not in log + answer.body.decode()


@pytest.mark.process
def test_the_log_has_a_line_a_move(own_server: embedded.Server) -> None:
    with WebServer(login_url(own_server.url, "web_login")) as server:
        job_id = server.predict(text="my-secret-diary").json["job_id"]
        server.send("GET", "/jobs?status=pending&limit=7")
        server.send("GET", "/no%0Asuch%1b[31m%22place")
        log = server.stop()

    assert f" info submitted job_id={job_id} model=sentiment request_id=" in log
    assert " info request method=GET path=/jobs status=200 seconds=" in log
    assert "limit=7" not in log
    assert "my-secret-diary" not in log
    assert "Traceback" not in log
    assert all(line.isprintable() and line.startswith("20") for line in log.splitlines())


@pytest.mark.process
def test_it_stops_when_it_is_asked_to_and_leaves_no_session(own_server: embedded.Server) -> None:
    with WebServer(login_url(own_server.url, "web_login")) as server:
        server.predict()
        server.process.terminate()
        assert server.process.wait(LIMIT_SECONDS) == 0

    def sessions() -> Any:
        query = "select count(*) from pg_stat_activity where application_name = 'jobrunner web'"
        with database.connect(own_server.url) as owner:
            return owner.execute(query).fetchone()

    wait_for(lambda: sessions() == (0,), "the sessions are gone")
