"""What the web may do to the database is what the database lets it: INSERT and SELECT."""

from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from helpers import Jobs
from web import create_app
from web.database import Database
from web_server import web_settings

Connection = psycopg.Connection[Any]

FORBIDDEN = [
    "update job set status = 'failed'",
    "update job set priority = 100",
    "delete from job",
    "truncate job",
    "insert into job (input, status) values ('{}', 'completed')",
    "insert into job (input, status) values ('{}', 'pending')",
    "insert into job (input, status, finished_at, result) values ('{}', 'completed', now(), '{}')",
    "insert into job (input, attempt) values ('{}', 3)",
    "insert into job (input, run_at) values ('{}', now())",
    "insert into job (input, created_at) values ('{}', now())",
    "insert into job (input, claimed_by) values ('{}', 'me')",
    "insert into job (id, input) values (gen_random_uuid(), '{}')",
    "insert into runner (id) values ('me')",
    "update runner set stop_requested_at = now()",
    "delete from runner",
    "insert into model (name) values ('mine')",
    "delete from model",
    "insert into migration (version, name, sha256) values (9999, 'x', 'x')",
    "delete from migration",
    "alter table job disable trigger all",
    "drop table job",
    "create table mine (id integer)",
]


@pytest.fixture(params=["web_login", "a mightier login"])
def web(request: pytest.FixtureRequest, web_url: str, owner_url: str) -> Iterator[Connection]:
    """A connection of the web's own pool."""
    database = Database(web_url if request.param == "web_login" else owner_url)
    with database.connection() as connection:
        yield connection
    database.close()


def test_the_web_acts_as_job_web_whoever_logged_in(web: Connection) -> None:
    assert web.execute("select current_user").fetchone() == ("job_web",)


@pytest.mark.parametrize("statement", FORBIDDEN)
def test_the_database_refuses_the_web(statement: str, web: Connection, jobs: Jobs) -> None:
    jobs.add()

    with pytest.raises(InsufficientPrivilege):
        web.execute(statement)


def test_the_web_may_insert_what_a_client_may_set(web: Connection, jobs: Jobs) -> None:
    web.execute("insert into job (model, input, priority, max_attempts) values ('m', '{}', 1, 2)")

    assert jobs.count("pending") == 1


@pytest.mark.parametrize("table", ["job", "runner", "model", "migration", "queue_health"])
def test_the_web_may_read(table: str, web: Connection) -> None:
    web.execute(f"select count(*) from {table}")


def test_a_mightier_login_serves_as_well(owner_url: str, jobs: Jobs) -> None:
    app = create_app(web_settings(owner_url))

    response = app.test_client().post("/predict", json={"text": "I love it"})

    assert response.status_code == 202
    assert jobs.count("pending") == 1
    app.extensions["database"].close()
