"""Whether there is room, and whether what is not wanted any more goes away."""

import shutil
from collections.abc import Iterator

from psycopg.rows import dict_row

from jobrunner import database
from jobrunner.doctor.finding import Finding, Patient, ok, problem, size, unseen, warning

LITTLE_SPACE, NO_SPACE = 2 * 2**30, 2**29
MUCH_WAL = 2**30
ELSEWHERE = (
    "look at it there, `df` or its provider's page, beside what the database takes:"
    " select pg_size_pretty(pg_database_size(current_database()))"
)

READ_TABLE = """
    select
        dead_percent,
        held_by,
        held_for,
        held_by_query,
        advice
    from table_health
"""
READ_SIZE = """
    select
        pg_database_size(current_database()),
        pg_total_relation_size('job')
"""
READ_SLOTS = """
    select
        slot_name,
        active,
        pg_wal_lsn_diff(pg_current_wal_lsn(), restart_lsn)::bigint as kept
    from pg_replication_slots
    order by slot_name
"""


def dead_rows(patient: Patient) -> Iterator[Finding]:
    """Look whether vacuum can clear away what jobs leave behind, and who keeps it from that."""
    with patient.connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(READ_TABLE).fetchone()
    if row is None:
        return
    share = row["dead_percent"]
    said = "few dead rows in job" if share is None else f"{share}% of the rows of job are dead"
    if row["held_by"]:
        held_for = f" for {row['held_for']}" if row["held_for"] is not None else ""
        query = f": {' '.join(row['held_by_query'].split())}" if row["held_by_query"] else ""
        said += f"; {row['held_by']} keeps them{held_for}{query}"
    yield warning(said, row["advice"]) if row["advice"] else ok(said)


def tables(patient: Patient) -> Iterator[Finding]:
    """Say how large it all is."""
    [(whole, job)] = patient.connection.execute(READ_SIZE).fetchall()
    yield ok(f"the database takes {size(whole)}, of which {size(job)} are jobs")


def slots(patient: Patient) -> Iterator[Finding]:
    """Look for write-ahead log that is kept for somebody who does not come for it."""
    if patient.on_standby():
        yield unseen("what replication slots keep", "a standby does not say: ask the primary")
        return
    found = patient.connection.execute(READ_SLOTS).fetchall()
    if not found:
        yield ok("no replication slot keeps write-ahead log")
    for name, active, kept in found:
        said = f"replication slot {name} keeps {size(kept or 0)} of write-ahead log"
        if (kept or 0) < MUCH_WAL:
            yield ok(said)
        elif active:
            yield warning(said, "its standby does not keep up: look at it")
        else:
            yield warning(said, f"nobody reads it: start who should, or drop it:"
                          f" select pg_drop_replication_slot('{name}')")  # fmt: skip


def disk(patient: Patient) -> Iterator[Finding]:
    """Look at the disk of the embedded database; another server tells nobody of its own."""
    if patient.settings.database_url:
        yield unseen(
            "how much is free on the disk of this database, which is not embedded", ELSEWHERE
        )
        return
    free = shutil.disk_usage(patient.settings.home).free
    said = f"{size(free)} are free in {database.display(patient.settings.home)}"
    if free < NO_SPACE:
        yield problem(said, "the database stops when it is full: make room")
    elif free < LITTLE_SPACE:
        yield warning(said, "make room, or keep jobs for less long (JOBRUNNER_RETENTION)")
    else:
        yield ok(said)
