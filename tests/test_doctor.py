"""`jobrunner doctor` finds what is wrong, says how to mend it, and nothing where all is well."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from helpers import Jobs, login_url
from jobrunner import doctor as doctor_module
from jobrunner.cli import main

Db = psycopg.Connection[Any]
Doctor = Callable[..., Result]

RUNNER = "here-1-abcd"
AGE_TRANSACTIONS = """
    create or replace view horizon_holder as
    select
        'transaction' as kind,
        '4711' collate "C" as holder,
        interval '2 hours' as held_for,
        'select * from  job' as query
"""


@pytest.fixture
def doctor(owner_url: str, tmp_path: Path) -> Doctor:
    def doctor(*arguments: str, **changes: str) -> Result:
        env = {"DATABASE_URL": owner_url, "JOBRUNNER_HOME": str(tmp_path)} | changes
        return CliRunner().invoke(main, ["doctor", *arguments], env=env, prog_name="jobrunner")

    return doctor


@pytest.fixture(autouse=True)
def quick_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests does without fsync, which is no finding here."""
    monkeypatch.setattr(doctor_module, "DURABLE", ("full_page_writes",))


@pytest.fixture
def healthy(jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)


@pytest.fixture
def pinned(db: Db) -> Iterator[None]:
    """A transaction that has been open for two hours: the view is made to say so."""
    row = db.execute("select pg_get_viewdef('horizon_holder'::regclass)").fetchone()
    assert row
    db.execute(AGE_TRANSACTIONS)
    yield
    db.execute("create or replace view horizon_holder as " + row[0])


def bad(result: Result) -> list[tuple[str, str]]:
    """What is wrong, each with its advice."""
    assert result.exit_code == 1
    lines = result.stdout.splitlines()
    return [
        (line.removeprefix("BAD  "), advice.removeprefix("     → "))
        for line, advice in pairwise(lines)
        if line.startswith("BAD")
    ]


@pytest.mark.usefixtures("healthy")
def test_where_all_is_well_it_says_so(doctor: Doctor) -> None:
    result = doctor()

    assert result.exit_code == 0, result.stdout
    assert "BAD" not in result.stdout
    assert f"ok   runner {RUNNER} is idle, 2 of 2 workers ready" in result.stdout


@pytest.mark.usefixtures("healthy")
def test_it_says_the_same_as_json(doctor: Doctor) -> None:
    result = doctor("--json")

    findings = json.loads(result.stdout)
    assert {"what": "model sentiment: 0 pending, 0 in work", "advice": None} in findings


@pytest.mark.usefixtures("jobs")
def test_no_runner_is_missed(doctor: Doctor) -> None:
    assert ("no runner", "start one with `jobrunner start`") in bad(doctor())


def test_jobs_of_a_model_that_nobody_serves_are_found(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add()

    [found, *_] = [what for what, _ in bad(doctor()) if "model" in what]

    assert found == "1 jobs wait for model sentiment, which no runner serves"


@pytest.mark.usefixtures("healthy")
def test_jobs_of_a_model_that_was_never_registered_are_found(doctor: Doctor, db: Db) -> None:
    db.execute("insert into job (model, input) values ('sentimnet', '{}')")

    assert [what for what, _ in bad(doctor())] == [
        "1 jobs wait for model sentimnet, which no runner serves"
    ]


@pytest.mark.usefixtures("healthy")
def test_an_old_job_that_waits_for_its_time_is_not_late(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add(created="1 h", due_in="50 s")
    jobs.add()

    assert doctor().exit_code == 0


@pytest.mark.usefixtures("healthy")
def test_a_login_that_does_not_inherit_its_role_sees_as_much(
    doctor: Doctor, db: Db, owner_url: str
) -> None:
    db.execute("create role app login noinherit password 'app'")
    db.execute("grant job_runner to app")
    try:
        url = login_url(owner_url, "app")
        assert doctor(DATABASE_URL=url).exit_code == 0
    finally:
        db.execute("drop role app")


def test_a_login_without_any_role_is_told_so(doctor: Doctor, db: Db, owner_url: str) -> None:
    db.execute("create role stranger login password 'stranger'")
    try:
        url = login_url(owner_url, "stranger")
        assert [what for what, _ in bad(doctor(DATABASE_URL=url))] == [
            "this login may act as none of the roles"
        ]
    finally:
        db.execute("drop role stranger")


@pytest.mark.usefixtures("healthy")
def test_a_slot_that_holds_nothing_is_not_blamed(doctor: Doctor, db: Db) -> None:
    db.execute("select pg_create_physical_replication_slot('standby', true)")
    try:
        assert doctor().exit_code == 0
    finally:
        db.execute("select pg_drop_replication_slot('standby')")


@pytest.mark.usefixtures("healthy")
def test_jobs_that_wait_for_long_are_found(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add(created="10 min", due_in="-10 min")

    [(what, advice)] = bad(doctor())

    assert re.fullmatch("1 jobs wait for model sentiment, the oldest for 60[0-9] s", what)
    assert "more workers" in advice


def test_a_silent_runner_is_found_with_the_place_to_look(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER, heartbeat_ago="5 min")

    [(what, advice), *_] = bad(doctor())

    assert what.startswith(f"runner {RUNNER} is silent, last heard of 300 s ago")
    assert "process" in advice


@pytest.mark.usefixtures("healthy")
def test_what_a_runner_says_of_itself_is_found(doctor: Doctor, db: Db) -> None:
    db.execute("update runner set trouble = 'is not told of anything, polls'")

    [(what, _)] = bad(doctor())

    assert what == f"runner {RUNNER}: is not told of anything, polls"


@pytest.mark.usefixtures("healthy", "pinned")
def test_who_keeps_dead_rows_is_named_with_what_to_do(doctor: Doctor) -> None:
    [(what, advice)] = bad(doctor())

    assert what.endswith("; transaction 4711 keeps them for 2:00:00: select * from job")
    assert advice.endswith("select pg_terminate_backend(4711)")


@pytest.mark.usefixtures("healthy", "pinned")
def test_queue_health_names_it_as_well(db: Db) -> None:
    query = "select held_by, held_by_query, advice from queue_health where model = 'sentiment'"

    row = db.execute(query).fetchone()

    assert row
    assert row[:2] == ("transaction 4711", "select * from  job")
    assert "pg_terminate_backend(4711)" in row[2]


def test_an_open_transaction_is_seen(db: Db, owner_url: str) -> None:
    with psycopg.connect(owner_url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select from job")
        query = "select kind, query from horizon_holder where holder = %s"

        found = db.execute(query, [str(reader.info.backend_pid)]).fetchall()

    assert found == [("transaction", "select from job")]


@pytest.mark.usefixtures("healthy")
def test_a_server_that_may_lose_what_it_has_committed_is_found(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(doctor_module, "DURABLE", ("fsync",))

    [(what, advice)] = bad(doctor())

    assert what == "fsync is off"
    assert advice == "accepted jobs can be lost in a crash: set fsync on"


def test_a_database_that_is_away_is_one_finding(doctor: Doctor) -> None:
    result = doctor(DATABASE_URL="postgresql://127.0.0.1:1/x")

    [(what, advice)] = bad(result)

    assert what.startswith("the database does not answer")
    assert "see to it first" in advice


def test_without_a_database_it_says_how_to_get_one(doctor: Doctor) -> None:
    [(what, _)] = bad(doctor(DATABASE_URL=""))

    assert "jobrunner up" in what


def test_tables_that_are_too_old_are_found(doctor: Doctor, owner_url: str, db: Db) -> None:
    db.execute("create database never_migrated")
    try:
        found = bad(doctor(DATABASE_URL=owner_url.replace("/jobrunner", "/never_migrated")))
    finally:
        db.execute("drop database never_migrated with (force)")

    assert [advice for _, advice in found] == ["run `jobrunner migrate`"]


@pytest.mark.usefixtures("healthy")
def test_a_listener_that_can_not_connect_is_found(doctor: Doctor) -> None:
    [(what, _)] = bad(doctor(JOBRUNNER_LISTEN_URL="postgresql://127.0.0.1:1/x"))

    assert what.startswith("JOBRUNNER_LISTEN_URL: ")
