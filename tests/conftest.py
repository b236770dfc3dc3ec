"""One embedded PostgreSQL for the whole run, migrated by the real migrations.

Tests connect as a deployment's services do: a login a service, each with its role.
"""

from collections.abc import Callable, Iterator
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from helpers import LOGINS, Jobs, login_url
from jobrunner import database, embedded, migrations
from web import create_app
from web_server import WebServer, web_settings

OWNER_TABLES = "truncate job, runner, model, cancel_request"
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
        for login, roles in LOGINS.items():
            connection.execute(f"create role {login} login password '{login}'")
            connection.execute(f"grant {', '.join(roles)} to {login}")
            connection.execute(f"alter role {login} set role {roles[0]}")
    return server.url


@pytest.fixture
def db(owner_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the owner of the tables, who finds them empty."""
    with psycopg.connect(owner_url, autocommit=True) as connection:
        connection.execute(OWNER_TABLES)
        connection.execute(SEED)
        yield connection


@pytest.fixture
def jobs(db: psycopg.Connection[Any]) -> Jobs:
    return Jobs(db)


@pytest.fixture
def web_url(owner_url: str, db: psycopg.Connection[Any]) -> str:
    return login_url(owner_url, "web_login")


@pytest.fixture
def runner_url(owner_url: str, db: psycopg.Connection[Any]) -> str:
    return login_url(owner_url, "runner_login")


# The web.


@pytest.fixture
def app(web_url: str) -> Iterator[Flask]:
    app = create_app(web_settings(web_url))
    yield app
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
