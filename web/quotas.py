"""How many jobs of a client may wait, where its API key says so.

A process counts what a client has pending, and adds what it lets in itself. It counts anew
when that is old, or when it would have to refuse; but a count of many takes long, so it is
followed by a pause.
"""

from dataclasses import dataclass
from threading import Lock
from time import monotonic

from flask import current_app

from web import budget
from web.access import Caller
from web.database import Database
from web.errors import DatabaseUnavailable

FRESH_SECONDS = 1.0
TURN_SECONDS = 1.5
PAUSE_FACTOR = 20

# Counted no further than needed, on job_client_unfinished_idx.
COUNT_PENDING = """
    select count(*)
    from (
        select
        from job
        where
            client_id = %(client)s
            and finished_at is null
            and status = 'pending'
        limit %(limit)s
    ) as pending
"""


@dataclass
class Count:
    """What a client has pending: as counted, and let in since. Times by the monotonic clock."""

    pending: int
    fresh_until: float
    not_before: float


class Quotas:
    """The counts of one process."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._counts: dict[tuple[str, int], Count] = {}
        self._lock = Lock()

    def admits(self, caller: Caller, jobs: int) -> bool:
        """Whether so many more jobs of the caller may wait; if so, they are counted in.

        :raises DatabaseUnavailable: when that can't be told.
        """
        if caller.client_id is None or caller.max_pending is None:
            return True
        if not self._lock.acquire(timeout=max(0.0, min(TURN_SECONDS, budget.remaining()))):
            raise DatabaseUnavailable
        try:
            return self._takes(caller.client_id, caller.max_pending, jobs)
        finally:
            self._lock.release()

    def _takes(self, client_id: str, limit: int, jobs: int) -> bool:
        now, count = monotonic(), self._counts.get((client_id, limit))
        full = count is not None and count.pending + jobs > limit
        if count is None or now >= (count.not_before if full else count.fresh_until):
            count = self._count(client_id, limit)
        if count.pending + jobs > limit:
            return False
        count.pending += jobs
        return True

    def _count(self, client_id: str, limit: int) -> Count:
        began = monotonic()
        with self._database.connection() as connection:
            values = {"client": client_id, "limit": limit}
            [(pending,)] = connection.execute(COUNT_PENDING, values).fetchall()
        now = monotonic()
        pause = (now - began) * PAUSE_FACTOR
        count = Count(pending, now + max(FRESH_SECONDS, pause), now + pause)
        self._counts[client_id, limit] = count
        return count


def get() -> Quotas:
    """The quotas of the current app."""
    quotas: Quotas = current_app.extensions["quotas"]
    return quotas
