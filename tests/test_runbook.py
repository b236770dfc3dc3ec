"""The runbook is true: each query in it runs, each command is there, each link leads somewhere."""

import re
import shlex
from pathlib import Path
from typing import Any

import psycopg
import pytest

from benchmarks import views
from helpers import Jobs
from jobrunner.cli import main
from jobrunner.shortcuts import SHORTCUTS
from test_docs import COMMANDS

Db = psycopg.Connection[Any]

RUNBOOK = (Path(__file__).parent.parent / "docs" / "operations.md").read_text()
QUERIES = dict(views.blocks(RUNBOOK))
# What stands for something of the reader's.
PLACEHOLDERS = {"JOB": "01a20cb8-4fcc-7cce-9018-66bb635f7e86", "KEY": "1f0c9a7b"}
CODE = re.compile(r"`jobrunner ([^`]+)`")
LINES = re.compile(r"^jobrunner (.*)$", re.MULTILINE)


def slug(heading: str) -> str:
    """The anchor of a heading, as GitHub makes it."""
    return re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-")


def commands() -> list[str]:
    prose = re.sub(r"```.*?```", "", RUNBOOK, flags=re.DOTALL)
    typed = [line for block in re.findall(r"```sh\n(.*?)```", RUNBOOK, re.DOTALL)
             for line in LINES.findall(block)]  # fmt: skip
    return sorted({*CODE.findall(prose), *typed})


@pytest.fixture
def values(db: Db, jobs: Jobs) -> dict[str, str]:
    """A little of everything; what is to be put for psql's variables."""
    failed = jobs.add(status="failed", finished="1 min")
    jobs.add(status="completed", finished="1 min")
    jobs.add(status="processing", claimed_by="here-1-abcd")
    jobs.add(attempt=1, due_in="30 s")
    jobs.add(due_in="1 h")
    jobs.add_runner("here-1-abcd")
    for _ in range(3):
        db.execute("insert into job (input, client_id) values ('{}', 'shop')")
    db.execute("insert into api_key values ('1f0c9a7b', 'shop', sha256('x'))")
    return {"job": failed, "client": "shop"}


@pytest.mark.parametrize("name", QUERIES)
def test_each_query_runs(db: Db, values: dict[str, str], name: str) -> None:
    query = views.filled(QUERIES[name], values)

    db.execute(query.encode())


@pytest.mark.parametrize(
    ("name", "column"),
    [
        ("Jobs pile up, 1", "pending"),
        ("Jobs pile up, 3", "waits_for"),
        ("Nothing is processed", "runner"),
        ("Jobs fail, 1", "last_job"),
        ("Jobs fail, 2", "runner"),
        ("Jobs fail, 3", "retry_job"),
        ("Jobs fail, 4", "retry_failed"),
        ("A job is stuck in processing, 1", "runs_for"),
        ("Runners come and go, 1", "up_for"),
        ("The API says 429", "key"),
        ("The API says 503, 1", "connections"),
        ("The database grows, or is slow, 1", "live_rows"),
        ("The database grows, or is slow, 2", "rows"),
        ("The disk is full, 2", "failed_count"),
        ("A bad version of a model was deployed, 1", "jobs"),
        ("One client floods the queue, 1", "jobs"),
        ("One client floods the queue, 3", "became"),
        ("Pausing or emptying a queue", "became"),
        ("Deleting the data of a client, 1", "unfinished"),
        ("Backup and restore", "pending"),
        ("A key has leaked", "id"),
        ("The clock is wrong, 1", "due_in"),
    ],
)
def test_a_query_finds_what_is_there(
    db: Db, values: dict[str, str], name: str, column: str
) -> None:
    found = db.execute(views.filled(QUERIES[name], values).encode())

    assert found.description
    place = [each.name for each in found.description].index(column)
    assert any(row[place] is not None for row in found.fetchall())


def test_what_is_to_be_done_does_it(db: Db, jobs: Jobs, values: dict[str, str]) -> None:
    def do(name: str) -> int:
        return db.execute(views.filled(QUERIES[name], values).encode()).rowcount

    def of_the_client(condition: str) -> int:
        query = f"select from job where client_id = 'shop' and {condition}"
        return db.execute(query.encode()).rowcount

    assert do("The clock is wrong, 2") == 1
    assert do("The clock is wrong, 1") == 0
    assert do("One client floods the queue, 2") == 3
    assert of_the_client("priority = -100") == 3
    with pytest.raises(psycopg.errors.RestrictViolation):
        db.execute("delete from job where client_id = 'shop'")
    assert do("Deleting the data of a client, 2") == 0
    assert do("One client floods the queue, 3") == 1
    assert do("One client floods the queue, 3") == 0
    assert do("Deleting the data of a client, 2") == 3
    assert of_the_client("true") == 0
    assert do("Pausing or emptying a queue") == 1
    assert (jobs.count("pending"), jobs.count("processing")) == (0, 1)


def test_there_are_queries_in_it() -> None:
    assert len(QUERIES) >= 30


@pytest.mark.parametrize("command", commands())
def test_each_command_is_there_with_these_options(command: str) -> None:
    words = [PLACEHOLDERS.get(word, word) for word in shlex.split(command)]
    name = next(
        name for name in sorted(COMMANDS, key=len, reverse=True) if command.startswith(name)
    )
    arguments = words[len(name.split()) :]

    if arguments or command in ("migrate", "doctor", "status", "psql"):
        COMMANDS[name].make_context(name, arguments)
    else:
        assert name.split()[0] in main.commands


def test_each_link_within_it_leads_to_a_heading() -> None:
    anchors = {slug(heading) for heading in re.findall(r"^#+ (.*)$", RUNBOOK, re.MULTILINE)}

    links = re.findall(r"\]\(#([^)]+)\)", RUNBOOK)

    assert links
    assert set(links) <= anchors


def test_the_shortcuts_that_it_names_are_there() -> None:
    first = RUNBOOK.split("\n## ")[0]

    assert set(re.findall(r"`:(\w+)`", first)) == set(SHORTCUTS)


def test_each_view_of_the_schema_is_measured(db: Db) -> None:
    query = "select viewname from pg_views where schemaname = current_schema()"

    assert sorted(name for (name,) in db.execute(query)) == sorted(views.VIEWS)


def test_the_shortcut_for_locks_is_the_query_of_the_runbook() -> None:
    written = " ".join(QUERIES["The API says 503, 2"].split())

    assert written == " ".join(SHORTCUTS["locks"].split()).removesuffix(";")


def test_each_view_and_each_query_that_only_looks_is_in_the_table_of_figures() -> None:
    section = RUNBOOK.split("## How long the queries take")[1]

    named = re.findall(r"^\| (?!view|---)([^|]+?) \|", section, re.MULTILINE)
    assert sorted(named) == sorted([*views.VIEWS, *views.looks(RUNBOOK)])
