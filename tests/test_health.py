"""Is the process up, can it serve, and does every address answer as HTTP wants it?"""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from web import create_app
from web_server import web_settings


@pytest.fixture
def unmigrated(owner_url: str) -> Iterator[FlaskClient]:
    """The web on a database that was never migrated."""
    with psycopg.connect(owner_url, autocommit=True) as owner:
        owner.execute("create database unmigrated")
        app = create_app(web_settings(owner_url.rsplit("/", 1)[0] + "/unmigrated"))
        yield app.test_client()
        app.extensions["database"].close()
        owner.execute("drop database unmigrated with (force)")


def test_the_process_is_alive_without_asking_the_database() -> None:
    app = create_app(web_settings("postgresql://nobody@127.0.0.1:1/nowhere"))

    response = app.test_client().get("/livez")

    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_it_is_ready_when_the_database_has_the_schema(client: FlaskClient) -> None:
    response = client.get("/readyz")

    assert (response.status_code, response.get_json()) == (200, {"status": "ok"})


def test_a_missing_runner_does_not_make_it_unready(
    client: FlaskClient, db: psycopg.Connection[Any]
) -> None:
    db.execute("delete from runner")

    assert client.get("/readyz").status_code == 200


def test_it_is_not_ready_while_the_schema_is_too_old(
    client: FlaskClient, db: psycopg.Connection[Any]
) -> None:
    newest = db.execute(
        "delete from migration where version = (select max(version) from migration)"
        " returning version, name, sha256"
    ).fetchone()

    response = client.get("/readyz")
    db.execute("insert into migration (version, name, sha256) values (%s, %s, %s)", newest)

    assert response.status_code == 503
    assert response.content_type == "application/problem+json"
    assert "jobrunner migrate" in response.get_json()["detail"]
    assert client.get("/readyz").status_code == 200


def test_a_newer_schema_does_no_harm(client: FlaskClient, db: psycopg.Connection[Any]) -> None:
    db.execute("insert into migration (version, name, sha256) values (9999, 'x', 'x')")

    response = client.get("/readyz")
    db.execute("delete from migration where version = 9999")

    assert response.status_code == 200


def test_it_is_not_ready_and_serves_nothing_before_the_first_migration(
    unmigrated: FlaskClient,
) -> None:
    ready = unmigrated.get("/readyz")
    predict = unmigrated.post("/predict", json={"text": "I love it"})

    assert ready.status_code == 503
    assert "jobrunner migrate" in ready.get_json()["detail"]
    assert predict.status_code == 503
    assert "tables" in predict.get_json()["detail"]
    assert int(predict.headers["Retry-After"]) >= 1


@pytest.mark.parametrize(
    "path", ["/nothing", "/predict/", "/jobs/", "/jobs//x", "/jobs/a/b", "/livez/x", "/%ff"]
)
def test_an_unknown_address_is_a_problem_too(path: str, client: FlaskClient) -> None:
    response = client.get(path)

    assert response.status_code == 404
    assert response.content_type == "application/problem+json"
    assert response.get_json()["status"] == 404


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", "/predict", {"POST", "OPTIONS"}),
        ("DELETE", "/predict", {"POST", "OPTIONS"}),
        ("POST", "/jobs", {"GET", "HEAD", "OPTIONS"}),
        ("PATCH", "/jobs/x", {"GET", "HEAD", "OPTIONS"}),
        ("TRACE", "/livez", {"GET", "HEAD", "OPTIONS"}),
        ("BREW", "/readyz", {"GET", "HEAD", "OPTIONS"}),
    ],
)
def test_another_method_is_refused_with_those_that_are_allowed(
    method: str, path: str, allowed: set[str], client: FlaskClient
) -> None:
    response = client.open(path, method=method)

    assert response.status_code == 405
    assert response.content_type == "application/problem+json"
    assert set(response.headers["Allow"].split(", ")) == allowed


@pytest.mark.parametrize("path", ["/jobs", "/livez", "/readyz", "/docs", "/openapi.json"])
def test_head_gives_the_headers_of_get(path: str, client: FlaskClient) -> None:
    head, get = client.head(path), client.get(path)

    assert (head.status_code, head.data) == (200, b"")
    assert head.content_type == get.content_type
    assert head.content_length == get.content_length


def test_options_tells_the_methods(client: FlaskClient) -> None:
    response = client.options("/predict")

    assert (response.status_code, response.data) == (204, b"")
    assert "Content-Type" not in response.headers
    assert set(response.headers["Allow"].split(", ")) == {"POST", "OPTIONS"}


@pytest.mark.parametrize("path", ["/livez", "/jobs", "/nothing", "/docs", "/openapi.json"])
def test_no_answer_is_kept_or_taken_for_another_type(path: str, client: FlaskClient) -> None:
    response = client.get(path)

    assert response.headers["X-Content-Type-Options"] == "nosniff"
    assert response.headers["Content-Security-Policy"].startswith("default-src 'none'")
    assert response.headers["X-Frame-Options"] == "DENY"
    assert response.headers["Referrer-Policy"] == "no-referrer"
    assert {"no-store", "no-cache"} & set(response.headers["Cache-Control"].split(", "))
