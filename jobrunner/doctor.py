"""Looks for what is wrong here, and says how to mend it."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import psycopg
from psycopg import sql
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
READ_ROLES = "select rolname from pg_roles where rolname = any(%(names)s)"
MAY_READ = "select to_regclass('job') is null or has_table_privilege('job', 'select')"
SET_ROLE = sql.SQL("set role {}")
# Of all that are due, also where no such model was ever registered.
READ_DUE = """
    select
        job.model,
        count(*) as jobs,
        extract(epoch from now() - min(job.run_at))::float8 as age
    from job
    where
        job.finished_at is null
        and job.status = 'pending'
        and job.run_at <= now()
    group by job.model
    order by job.model
"""
READ_STATE = """
    select
        pg_is_in_recovery(),
        current_setting('default_transaction_read_only') = 'on'
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
        try:
            yield from _database(connection)
        except psycopg.Error as error:
            yield Finding(f"the database: {database.first_line(error)}",
                          "what comes after this could not be looked at")  # fmt: skip
    yield from _listening(settings, url)


def _database(connection: database.BoundedConnection) -> Iterator[Finding]:
    yield from _server(connection)
    roles = list(_roles(connection))
    yield from roles
    schema = [] if any(finding.advice for finding in roles) else list(_schema(connection))
    yield from schema
    if schema and not any(finding.advice for finding in schema):
        yield from _runners(connection)
        yield from _queues(connection)
        yield from _table(connection)


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
    [(standby, read_only)] = connection.execute(READ_STATE).fetchall()
    if standby:
        yield Finding("this server is a standby", "nothing can be written: point DATABASE_URL at"
                      " the primary, or add target_session_attrs=read-write")  # fmt: skip
    elif read_only:
        yield Finding("default_transaction_read_only is on", "nothing can be written: set it off")


def _roles(connection: database.BoundedConnection) -> Iterator[Finding]:
    """Act as a role that may read, as the services do, where the login itself may not."""
    there = {row[0] for row in connection.execute(READ_ROLES, {"names": list(ROLES)})}
    if missing := [name for name in ROLES if name not in there]:
        yield Finding(f"no role {', '.join(missing)}", "run `jobrunner migrate`")
    elif not _may_read(connection) and not any(_take(connection, name) for name in ROLES):
        advice = f"run `grant {ROLES[0]} to <login>` as the owner, or whichever it needs"
        yield Finding("this login may act as none of the roles", advice)


def _may_read(connection: database.BoundedConnection) -> bool:
    row = connection.execute(MAY_READ).fetchone()
    return bool(row and row[0])


def _take(connection: database.BoundedConnection, role: str) -> bool:
    if connection.pooled:
        return False
    try:
        connection.execute(SET_ROLE.format(sql.Identifier(role)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True


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
    queues = {queue["model"]: queue for queue in jobs.health(connection)}
    due = {model: (count, age) for model, count, age in connection.execute(READ_DUE)}
    for model in sorted({*queues, *due}):
        count, age = due.get(model, (0, 0.0))
        queue = queues.get(model, {"runners": 0})
        if count and not queue["runners"]:
            advice = f"start a runner with `jobrunner start --model {model}=module:Class`"
            yield Finding(f"{count} jobs wait for model {model}, which no runner serves", advice)
        elif age > LATE_SECONDS:
            advice = "start more workers, or look why they are slow"
            yield Finding(
                f"{count} jobs wait for model {model}, the oldest for {age:.0f} s", advice
            )
        else:
            in_work = queue["processing"]
            yield Finding(f"model {model}: {queue['pending']} pending, {in_work} in work")


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
