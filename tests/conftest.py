"""One embedded PostgreSQL for the whole run, migrated by the real migrations.

Tests connect as a deployment's services do: a login a service, each with its role.
"""

import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from deploy_files import need
from helpers import RUNNER, Jobs, create_logins, login_url, wait_for
from jobrunner import database, embedded, migrations
from jobrunner.database import BoundedConnection
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Workers
from pools import LIMITS, Start, settle
from processes import System, system
from web import create_app
from web_server import WebServer, web_settings

if TYPE_CHECKING:
    from playwright.sync_api import Page

    from browsers import Chromium

CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")

OWNER_TABLES = """
    truncate
        job, job_claim, job_progress, cancel_request, runner, runner_model, model, model_version,
        roll_call, api_key, activity
"""
SEED = "insert into model (name) values ('sentiment')"


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[embedded.Server]:
    server = embedded.Server(tmp_path_factory.mktemp("postgres"), options={"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="session")
def owner_url(server: embedded.Server) -> str:
    with database.connect(server.url) as connection:
        migrations.migrate(connection)
        create_logins(connection)
    return server.url


@pytest.fixture(scope="module")
def owner(owner_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner of the tables for all tests of a chapter."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def db(owner_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner of the tables, who finds them empty."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        wait_for(lambda: emptied(connection), "the tables are empty")
        connection.execute(SEED)
        yield connection


def emptied(connection: psycopg.Connection[Any]) -> bool:
    """Empty the tables, if no web that is looking at them has met it in a deadlock."""
    try:
        connection.execute(OWNER_TABLES)
    except psycopg.errors.DeadlockDetected:
        return False
    return True


@pytest.fixture
def jobs(db: psycopg.Connection[Any]) -> Jobs:
    return Jobs(db)


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    """For what is done meanwhile; there are as many as have something to do at once."""
    with ThreadPoolExecutor(150) as threads:
        yield threads


@pytest.fixture
def web_url(owner_url: str, db: psycopg.Connection[Any]) -> str:
    return login_url(owner_url, "web_login")


@pytest.fixture
def runner_url(owner_url: str, db: psycopg.Connection[Any]) -> str:
    return login_url(owner_url, "runner_login")


@pytest.fixture
def runner(runner_url: str, jobs: Jobs) -> Iterator[BoundedConnection]:
    """A connection of the role job_runner, for the runner RUNNER, which is registered."""
    jobs.add_runner(RUNNER)
    with database.connect(runner_url) as connection:
        yield connection


# A server of a test's own, for the chapters that stop and spoil it.


@pytest.fixture
def postgres_options() -> dict[str, str]:
    """What a chapter wants to be set beside the defaults."""
    return {}


@pytest.fixture
def own_server(tmp_path: Path, postgres_options: dict[str, str]) -> Iterator[embedded.Server]:
    options = {"fsync": "off"} | postgres_options
    server = embedded.Server(tmp_path / "postgres", options=options)
    with database.connect(server.start()) as connection:
        migrations.migrate(connection)
        create_logins(connection)
    yield server
    server.stop()


@pytest.fixture
def admin(own_server: embedded.Server) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the superuser of a test's own server."""
    with psycopg.connect(own_server.url, autocommit=True) as connection:
        yield connection


@pytest.fixture
def services(own_server: embedded.Server, tmp_path: Path) -> Iterator[System]:
    """Runners and webs on a test's own server."""
    with system(login_url(own_server.url, "runner_login"), tmp_path) as started:
        yield started


# The web.


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody gives up while who holds a lock stands still for seconds."""
    monkeypatch.setattr("web.inserts.TURN_SECONDS", 60)
    monkeypatch.setattr("web.quotas.TURN_SECONDS", 60)
    monkeypatch.setattr("web.budget.REQUEST_SECONDS", 60)
    monkeypatch.setattr("web.database.POOL_SECONDS", 60)
    monkeypatch.setattr("web.database.ANSWER_SECONDS", 60)
    monkeypatch.setattr("web.database.STATEMENT_TIMEOUT", "set statement_timeout = '60s'")


@pytest.fixture
def app(web_url: str) -> Iterator[Flask]:
    app = create_app(web_settings(web_url))
    yield app
    app.extensions["viewers"].close()
    app.extensions["database"].close()


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    return app.test_client()


@pytest.fixture
def predict(client: FlaskClient) -> Callable[..., TestResponse]:
    """Post a text, or any other fields."""
    return lambda text="I love it", **fields: client.post("/predict", json={"text": text, **fields})


@pytest.fixture(scope="session")
def gunicorn(owner_url: str) -> Iterator[WebServer]:
    """The web as it is deployed, for the whole run."""
    with WebServer(login_url(owner_url, "web_login")) as server:
        yield server


# A person in front of it.


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> "Iterator[Chromium]":
    pytest.importorskip("playwright.sync_api")
    import browsers

    executable = next(filter(None, map(shutil.which, CHROMIUMS)), None)
    if not executable:
        need("chromium")
    with browsers.chromium(executable, tmp_path_factory.mktemp("chromium")) as started:
        yield started


@pytest.fixture
def open_page(chromium: "Chromium") -> "Iterator[Callable[..., Page]]":
    """Opens pages, each with a browser's memory of its own."""
    opened: list[Page] = []

    def open_page(**options: Any) -> "Page":
        page = chromium.browser.new_page(**options)
        opened.append(page)
        return page

    yield open_page
    for page in opened:
        chromium.close(page)


@pytest.fixture
def page(open_page: "Callable[..., Page]") -> "Page":
    return open_page()


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Starts workers with a model of the tests' own and waits until they are ready."""
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parent))
    started: list[Workers] = []

    def start(
        model: str = "Told",
        *,
        count: int = 1,
        name: str = "sentiment",
        module: str = "strange_models",
        limits: WorkerLimits | None = None,
    ) -> Workers:
        spec = ModelSpec(name, f"{module}:{model}")
        workers = Workers(spec, count, limits or LIMITS)
        started.append(workers)
        settle(workers, lambda: workers.ready == count)
        return workers

    yield start
    for workers in started:
        workers.end()
