"""What the board shows: queues, runners, what is in work, what failed, as it is now.

All of it is read in a few statements that change nothing.
"""

from dataclasses import asdict, dataclass
from datetime import datetime
from typing import Any

import psycopg
from psycopg.rows import dict_row

from jobrunner import heartbeat, jobs

Connection = psycopg.Connection[Any]
Rows = list[dict[str, Any]]

MINUTES = 20

NOW = "select clock_timestamp()"

# What runners add with each beat, so the last minute grows while it is looked at.
ACTIVITY = """
    select
        activity.model,
        (extract(epoch from date_trunc('minute', now()) - activity.minute) / 60)::integer as ago,
        activity.completed
    from activity
    where
        activity.minute > now() - make_interval(mins => %(minutes)s)
        and activity.completed > 0
"""

FAILURES = """
    select
        job,
        model,
        code,
        message,
        attempt,
        finished_at
    from recent_failure
    limit %(limit)s
"""


@dataclass(frozen=True)
class Board:
    """One look, with the time of the database."""

    at: datetime
    queues: Rows
    runners: Rows
    progress: Rows
    failures: Rows

    def to_row(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


def read(connection: Connection, *, failures: int) -> Board:
    """Take a look, at so many of the last failures."""
    [(at,)] = connection.execute(NOW).fetchall()
    by_minute = _by_minute(connection)
    none = [0] * MINUTES
    queues = [
        {**queue, "completed_by_minute": by_minute.get(queue["model"], none)}
        for queue in jobs.health(connection)
    ]
    runners, progress = heartbeat.overview(connection), jobs.in_progress(connection)
    with connection.cursor(row_factory=dict_row) as cursor:
        failed = cursor.execute(FAILURES, {"limit": failures}).fetchall()
    return Board(at, queues, runners, progress, failed)


def _by_minute(connection: Connection) -> dict[str, list[int]]:
    """How many jobs of each model were completed in the last minutes, the oldest first."""
    counts: dict[str, list[int]] = {}
    for model, ago, completed in connection.execute(ACTIVITY, {"minutes": MINUTES}):
        if 0 <= ago < MINUTES:
            counts.setdefault(model, [0] * MINUTES)[MINUTES - 1 - ago] = completed
    return counts
