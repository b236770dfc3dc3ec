"""Looks for what is wrong here, and says how to mend it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg.rows import dict_row

from jobrunner import database, heartbeat, jobs, migrations
from jobrunner.errors import DatabaseUnavailable, JobrunnerError
from jobrunner.settings import Settings

OLDEST_SUPPORTED, NEWEST_TRIED = 15, 18
ROLES = ("job_web", "job_runner", "job_janitor")
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
# A pending job that a free worker has not taken for so long is not just unlucky.
LATE_SECONDS = 60

READ_SETTINGS = """
    select
        name,
        setting
    from pg_settings
    where name in ('server_version_num', 'autovacuum') or name = any(%(names)s)
"""
READ_ROLES = """
    select
        wanted.name,
        pg_roles.oid is not null as exists,
        pg_roles.oid is not null and pg_has_role(current_user, pg_roles.oid, 'member') as may
    from unnest(%(names)s::text[]) as wanted (name)
    left join pg_roles on wanted.name = pg_roles.rolname
"""
READ_TABLE = """
    select
        dead_percent,
        held_by,
        held_for,
        held_by_query,
        advice
    from table_health
"""


@dataclass(frozen=True)
class Finding:
    """What was looked at; ``advice`` says how to mend it, None where nothing is wrong."""

    what: str
    advice: str | None = None

    def to_row(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def examine(settings: Settings) -> Iterator[Finding]:
    """Look at everything that can be seen from here, as far as one can get."""
    try:
        url = database.url_of(settings)
        connection = database.connect(url, name="jobrunner doctor")
    except JobrunnerError as error:
        yield Finding(str(error), "without the database nothing works: see to it first")
        return
    with connection:
        yield from _server(connection)
        yield from _roles(connection)
        applied = list(_schema(connection))
        yield from applied
        if not any(finding.advice for finding in applied):
            yield from _runners(connection)
            yield from _queues(connection)
            yield from _table(connection)
    yield from _listening(settings, url)


def _server(connection: database.BoundedConnection) -> Iterator[Finding]:
    found = dict(connection.execute(READ_SETTINGS, {"names": list(DURABLE)}).fetchall())
    major = int(found["server_version_num"]) // 10000
    if major < OLDEST_SUPPORTED:
        yield Finding(f"PostgreSQL {major}", f"too old: upgrade to {OLDEST_SUPPORTED} or newer")
    else:
        tried = "" if major <= NEWEST_TRIED else f" (tried up to {NEWEST_TRIED})"
        yield Finding(f"PostgreSQL {major}{tried}")
    for name in DURABLE:
        if found[name] == "off":
            yield Finding(f"{name} is off", f"accepted jobs can be lost in a crash: set {name} on")
    if found["autovacuum"] == "off":
        yield Finding("autovacuum is off", "dead rows slow everything down: set autovacuum on")
    if connection.pooled:
        yield Finding("DATABASE_URL goes through a pooler")


def _roles(connection: database.BoundedConnection) -> Iterator[Finding]:
    rows = connection.execute(READ_ROLES, {"names": list(ROLES)}).fetchall()
    missing = [name for name, exists, _ in rows if not exists]
    refused = [name for name, exists, may in rows if exists and not may]
    if missing:
        yield Finding(f"no role {', '.join(missing)}", "run `jobrunner migrate`")
    if len(refused) == len(ROLES):
        advice = f"run `grant {refused[0]} to <login>` as the owner, for what this login is to do"
        yield Finding("this login may act as none of the roles", advice)


def _schema(connection: database.BoundedConnection) -> Iterator[Finding]:
    try:
        found = migrations.status(connection)
    except (JobrunnerError, psycopg.Error) as error:
        said = str(error) if isinstance(error, JobrunnerError) else database.first_line(error)
        yield Finding(said, "start programs and tables of the same version")
        return
    pending = [migration for migration in found if not migration.applied_at]
    if pending:
        yield Finding(f"{len(pending)} of {len(found)} migrations are not applied",
                      "run `jobrunner migrate`")  # fmt: skip
    else:
        yield Finding(f"all {len(found)} migrations are applied")


def _runners(connection: database.BoundedConnection) -> Iterator[Finding]:
    runners = heartbeat.overview(connection)
    for runner in runners:
        name = f"runner {runner['runner']}"
        if runner["state"] in ("lost", "silent"):
            seconds = int(runner["last_heartbeat_ago"].total_seconds())
            advice = f"look at process {runner['pid']} on {runner['host']} and its log"
            yield Finding(f"{name} is {runner['state']}, last heard of {seconds} s ago", advice)
        elif runner["trouble"]:
            yield Finding(f"{name}: {runner['trouble']}", "see its log for more")
        else:
            ready = f"{runner['ready']} of {runner['workers']} workers ready"
            yield Finding(f"{name} is {runner['state']}, {ready}")
    if not runners:
        yield Finding("no runner", "start one with `jobrunner start`")


def _queues(connection: database.BoundedConnection) -> Iterator[Finding]:
    for queue in jobs.health(connection):
        name, pending = queue["model"], queue["pending"]
        due = pending - queue["waiting_to_retry"]
        if due and not queue["runners"]:
            advice = f"start a runner with `jobrunner start --model {name}=module:Class`"
            yield Finding(f"{due} jobs wait for the model {name}, which no runner serves", advice)
        elif due and queue["oldest_pending_age"].total_seconds() > LATE_SECONDS:
            age = int(queue["oldest_pending_age"].total_seconds())
            yield Finding(f"model {name}: {due} jobs wait, the oldest for {age} s",
                          "start more workers, or look why they are slow")  # fmt: skip
        else:
            yield Finding(f"model {name}: {pending} pending, {queue['processing']} in work")


def _table(connection: database.BoundedConnection) -> Iterator[Finding]:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(READ_TABLE).fetchone()
    if row is None:
        return
    said = f"{row['dead_percent']}% of the rows of job are dead"
    if row["held_by"]:
        held_for = f" for {row['held_for']}" if row["held_for"] is not None else ""
        query = f": {' '.join(row['held_by_query'].split())}" if row["held_by_query"] else ""
        said += f"; {row['held_by']} keeps them{held_for}{query}"
    yield Finding(said, row["advice"])


def _listening(settings: Settings, url: str) -> Iterator[Finding]:
    """Runners want to be notified, which a pooler in transaction mode keeps from them."""
    try:
        with database.connect(settings.listen_url or url, name="jobrunner doctor") as connection:
            pooled = connection.pooled
    except DatabaseUnavailable as error:
        yield Finding(f"JOBRUNNER_LISTEN_URL: {error}", "runners poll: set it to a direct way")
        return
    if pooled:
        yield Finding("runners listen through a pooler, and hear nothing",
                      "they poll: set JOBRUNNER_LISTEN_URL to a direct way")  # fmt: skip
