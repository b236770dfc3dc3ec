"""What an operator asks, beside many jobs: each view, and each query of docs/operations.md."""

import re
from collections.abc import Iterator
from pathlib import Path
from time import monotonic, perf_counter

import psycopg
from psycopg import sql

from benchmarks.queues.backlog import Backlog
from benchmarks.system import worked_by

RUNBOOK = Path("docs/operations.md")
VIEWS = (
    "queue_health", "runner_overview", "model_crew", "serving_version", "model_queue",
    "waiting_job", "claimed_job", "running_job", "recent_failure", "failure_summary",
    "throughput", "client_backlog", "table_health", "horizon_holder", "missing_runner",
    "sleeping_runner",
)  # fmt: skip
BLOCK = re.compile(r"```sql\n(.*?);?\n```", re.DOTALL)
VARIABLE = re.compile(r":'(\w+)'")
HEADING = re.compile(r"^## (.*)$", re.MULTILINE)

BAR_MS = 50
REQUESTS = 100
# What takes seconds is asked less often.
CASE_SECONDS = 10.0

TABLE = sql.SQL("table {}")
# What does something is no look.
ACTS = re.compile(r"update|delete|select (cancel|retry|enqueue)_")
LOOK_ONLY = "set default_transaction_read_only = on"
# What a person would say with \set.
VALUES = {
    "client": "select client_id from job where client_id is not null order by id limit 1",
    "job": "select id::text from job where finished_at is null and lease_token is not null limit 1",
}


def blocks(text: str) -> Iterator[tuple[str, str]]:
    """Give each query of the runbook, with a name: its chapter, numbered where it has several."""
    for chapter in re.split(r"^(?=## )", text, flags=re.MULTILINE):
        title = HEADING.match(chapter)
        found = BLOCK.findall(chapter)
        for number, query in enumerate(found, 1):
            assert title
            yield f"{title[1]}{f', {number}' if len(found) > 1 else ''}", query


def filled(query: str, values: dict[str, str]) -> str:
    """Put values for psql's variables into a query."""
    return VARIABLE.sub(lambda found: f"'{values[found[1]]}'", query)


def looks(text: str) -> dict[str, str]:
    """Give those that only look."""
    return {name: query for name, query in blocks(text) if not ACTS.match(query)}


def cases(backlog: Backlog) -> Iterator[tuple[str, str | sql.Composed]]:
    """Give all that is to be asked."""
    with psycopg.connect(backlog.url, autocommit=True) as connection:
        values = {name: _value(connection, query) for name, query in VALUES.items()}
    for view in VIEWS:
        yield view, TABLE.format(sql.Identifier(view))
    for name, query in looks(RUNBOOK.read_text()).items():
        yield name, filled(query, values)


def measure(backlog: Backlog, query: str | sql.Composed) -> tuple[list[float], list[float]]:
    """Give the seconds that it takes, again and again, from the question to the last row.

    And those that a processor of the server had to do with it, which neighbours do not change.
    """
    seconds: list[float] = []
    worked: list[float] = []
    until = monotonic() + CASE_SECONDS
    with psycopg.connect(backlog.url, autocommit=True) as connection:
        connection.execute(LOOK_ONLY)
        pid = connection.info.backend_pid
        while len(seconds) < 2 or (len(seconds) < REQUESTS and monotonic() < until):
            began, work = perf_counter(), worked_by(pid)
            connection.execute(query.encode() if isinstance(query, str) else query).fetchall()
            seconds.append(perf_counter() - began)
            worked.append(worked_by(pid) - work)
    return seconds, worked


def _value(connection: psycopg.Connection, query: str) -> str:
    row = connection.execute(query.encode()).fetchone()
    assert row
    return str(row[0])
