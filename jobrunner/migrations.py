"""Applies the files of ``sql/`` in order, each once, each in a transaction of its own.

The ledger is the table ``migration``: version, name, SHA-256 of the file, time. A file that
was edited after it was applied is refused. An advisory lock lets one migrator work at a
time; others wait for it and then find nothing to do. ``lock_timeout`` keeps a migration from
standing in the way of a busy table for long.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from importlib import resources

import psycopg

from jobrunner.database import BoundedConnection, first_line
from jobrunner.errors import MigrationError, SchemaMissing

LOCK_KEY = 7_063_851_204
LOCK_TIMEOUT = "10s"
LOCK_WAIT_SECONDS = 120.0
MIGRATE_SECONDS = 3600.0

FILE_NAME = re.compile(r"(\d{4})_([a-z0-9]+(?:_[a-z0-9]+)+)\.sql")

CREATE_LEDGER = """
    create table if not exists migration (
        version integer primary key,
        name text not null,
        sha256 text not null,
        applied_at timestamptz not null default clock_timestamp()
    );
    comment on table migration is 'Which files of sql/ were applied here, and when.'
"""

LEDGER_EXISTS = "select to_regclass('migration') is not null"

READ_LEDGER = "select version, name, sha256, applied_at from migration order by version"

RECORD = "insert into migration (version, name, sha256) values (%(version)s, %(name)s, %(sha256)s)"

WAIT_AT_MOST = "select set_config('lock_timeout', %s, false)"
LOCK = "select pg_advisory_lock(%s)"
UNLOCK = "select pg_advisory_unlock(%s)"
SERVER_VERSION = "select current_setting('server_version_num')::integer"


@dataclass(frozen=True)
class Migration:
    """A file of ``sql/``, and when it was applied (None: pending)."""

    version: int
    name: str
    sql: str
    sha256: str
    applied_at: datetime | None = None


def available() -> list[Migration]:
    """Read the files of ``sql/`` in order."""
    found = []
    for file in resources.files("jobrunner_sql").iterdir():
        if match := FILE_NAME.fullmatch(file.name):
            text = file.read_text(encoding="utf-8")
            digest = hashlib.sha256(text.encode()).hexdigest()
            found.append(Migration(int(match[1]), match[2], text, digest))
    return sorted(found, key=lambda migration: migration.version)


def status(connection: BoundedConnection, *, allow_newer: bool = False) -> list[Migration]:
    """Pair each file with the ledger, of which what is newer than all files may be left out.

    :raises MigrationError: when an applied file was edited or is missing here.
    """
    files = {migration.version: migration for migration in available()}
    paired = dict(files)
    for version, name, sha256, applied_at in _ledger(connection):
        file = files.get(version)
        if file is None:
            if allow_newer and version > max(files):
                continue
            raise MigrationError(
                f"migration {version:04d}_{name} was applied here but this program"
                " does not have it: the database is newer than the program"
            )
        if file.sha256 != sha256:
            raise MigrationError(
                f"migration {version:04d}_{name} was edited after it was applied:"
                " restore the file and put the change into a new one"
            )
        paired[version] = Migration(version, name, file.sql, sha256, applied_at)
    return [paired[version] for version in sorted(paired)]


def migrate(
    connection: BoundedConnection, report: Callable[[Migration], None] = lambda _: None
) -> list[Migration]:
    """Apply what is pending and return it; each file and its ledger row commit together.

    :raises MigrationError: naming the file and PostgreSQL's first line.
    """
    _require_version(connection)
    connection.answer_seconds = MIGRATE_SECONDS
    _lock(connection)
    try:
        connection.execute(CREATE_LEDGER)
        pending = [migration for migration in status(connection) if not migration.applied_at]
        for migration in pending:
            _apply(connection, migration)
            report(migration)
        return pending
    except psycopg.Error as error:
        raise MigrationError(f"the migration failed: {first_line(error)}") from error
    finally:
        if not connection.broken:
            connection.execute(UNLOCK, [LOCK_KEY])


def count_pending(connection: BoundedConnection) -> int:
    """Count what is not applied yet.

    :raises MigrationError: when an applied file was edited or is missing here.
    """
    return sum(not migration.applied_at for migration in status(connection))


def count_newer(connection: BoundedConnection) -> int:
    """Count what is applied and newer than all that this program has."""
    newest = max(migration.version for migration in available())
    return sum(version > newest for version, *_ in _ledger(connection))


def require_applied(connection: BoundedConnection) -> None:
    """Make sure that the tables are as new as this program; newer ones serve it as well.

    :raises SchemaMissing: when they are older.
    :raises MigrationError: when an applied file was edited.
    """
    if not all(migration.applied_at for migration in status(connection, allow_newer=True)):
        raise SchemaMissing


def _ledger(connection: BoundedConnection) -> list[tuple[int, str, str, datetime]]:
    row = connection.execute(LEDGER_EXISTS).fetchone()
    return connection.execute(READ_LEDGER).fetchall() if row and row[0] else []


def _require_version(connection: BoundedConnection) -> None:
    row = connection.execute(SERVER_VERSION).fetchone()
    if row and row[0] < 150000:
        raise MigrationError(f"PostgreSQL 15 or newer is needed; this is {row[0] // 10000}")


def _lock(connection: BoundedConnection) -> None:
    try:
        connection.execute(WAIT_AT_MOST, [f"{int(LOCK_WAIT_SECONDS)}s"])
        connection.execute(LOCK, [LOCK_KEY])
        connection.execute(WAIT_AT_MOST, [LOCK_TIMEOUT])
    except psycopg.errors.LockNotAvailable:
        raise MigrationError("another migration has been running for 2 minutes") from None


def _apply(connection: BoundedConnection, migration: Migration) -> None:
    try:
        with connection.transaction():
            connection.execute(migration.sql.encode())
            connection.execute(
                RECORD,
                {
                    "version": migration.version,
                    "name": migration.name,
                    "sha256": migration.sha256,
                },
            )
    except psycopg.Error as error:
        said = f"{migration.version:04d}_{migration.name} was not applied: {first_line(error)}"
        if isinstance(error, psycopg.errors.UntranslatableCharacter):
            said += ": make a database with `encoding 'UTF8' template template0`"
        raise MigrationError(said) from error
