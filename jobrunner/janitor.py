"""Deletes old final jobs, in batches, as the role that may delete nothing else."""

from datetime import timedelta
from typing import Any

import psycopg

from jobrunner import heartbeat, queue
from jobrunner.errors import DatabaseError

BATCH = 1000
JANITOR_LOCK = 7_063_851_205

# One janitor at a time: two would wait for each other's rows.
TAKE_TURN = "select pg_try_advisory_xact_lock(%s)"


def clean(connection: psycopg.Connection[Any], older_than: timedelta) -> int:
    """Delete one batch of final jobs that finished longer ago than that; return how many.

    Opens its own transaction; 0 also when another janitor is at work.

    :raises DatabaseError: when the login may not act as ``job_janitor``.
    """
    try:
        with connection.transaction():
            connection.execute("set local role job_janitor")
            turn = connection.execute(TAKE_TURN, [JANITOR_LOCK]).fetchone()
            if not turn or not turn[0]:
                return 0
            heartbeat.delete_lost(connection)
            return queue.delete_finished(connection, older_than=older_than, limit=BATCH)
    except psycopg.errors.InsufficientPrivilege:
        raise DatabaseError(
            "the login may not act as job_janitor: run `grant job_janitor to <login>`"
        ) from None
