"""Deletes old final jobs, in batches, as the role that may delete nothing else."""

from datetime import timedelta
from typing import Any

import psycopg

from jobrunner import queue
from jobrunner.errors import DatabaseError, SchemaMissing

BATCH = 1000
JANITOR_LOCK = 7_063_851_205

# More than that are not counted.
MANY = 1_000_000

# On job_finished_idx.
COUNT_OLD = """
    select count(*)
    from (
        select
        from job
        where finished_at < now() - %(age)s
        limit %(limit)s
    ) as old
"""

ACT_AS_JANITOR = "set local role job_janitor"
# One janitor at a time: two would wait for each other's rows.
TAKE_TURN = "select pg_try_advisory_xact_lock(%s)"
AWAIT_TURN = "select true from pg_advisory_xact_lock(%s)"


def clean(connection: psycopg.Connection[Any], older_than: timedelta, *, wait: bool = False) -> int:
    """Delete one batch of final jobs that finished longer ago than that; return how many.

    Opens its own transaction. While another janitor is at work: 0, or ``wait`` for it.

    :raises SchemaMissing: when the role is not there yet.
    :raises DatabaseError: when the login may not act as ``job_janitor``.
    """
    try:
        with connection.transaction():
            connection.execute(ACT_AS_JANITOR)
            take_turn = AWAIT_TURN if wait else TAKE_TURN
            turn = connection.execute(take_turn, [JANITOR_LOCK]).fetchone()
            if not turn or not turn[0]:
                return 0
            return queue.delete_finished(connection, older_than=older_than, limit=BATCH)
    except psycopg.errors.InvalidParameterValue:
        raise SchemaMissing("there is no role job_janitor: run `jobrunner migrate`") from None
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            "the login may not act as job_janitor: run `grant job_janitor to <login>`"
        ) from None


def count_old(connection: psycopg.Connection[Any], older_than: timedelta) -> int | None:
    """Count the jobs that are to be deleted; None where they are too many for that."""
    values = {"age": older_than, "limit": MANY}
    [(count,)] = connection.execute(COUNT_OLD, values).fetchall()
    return count if count < MANY else None
