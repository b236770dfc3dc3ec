"""How many jobs of a client may wait, where its API key says so.

A process counts what a client has pending, and may then let in its share of what is left, as
the other processes do; when that is used up, it counts anew. Where nothing is left, a pause
follows, since to count many takes long. What was let in is remembered until its insert has
ended: a count does not see it before. (Another process does not see it at all, so several may
let in a few too many between them.)
"""

from math import ceil
from threading import Lock
from time import monotonic

from flask import current_app

from web import budget
from web.access import Caller
from web.database import Database
from web.errors import DatabaseUnavailable

FRESH_SECONDS = 1.0
PAUSE_FACTOR = 20
MAX_PAUSE_SECONDS = 10.0
TURN_SECONDS = 1.5

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


class Quota:
    """What a client may still submit here. Times by the monotonic clock."""

    def __init__(self) -> None:
        self.lock = Lock()
        self.left = 0
        # Let in, and not inserted yet.
        self.under_way = 0
        # For that alone, and never held while the database is asked.
        self.under_way_lock = Lock()
        self.fresh_until = 0.0
        self.not_before = 0.0


class Quotas:
    """The quotas of one process, by client and limit; each process is one of so many."""

    def __init__(self, database: Database, processes: int) -> None:
        self._database = database
        self._processes = processes
        self._quotas: dict[tuple[str, int], Quota] = {}

    def admits(self, caller: Caller, jobs: int) -> bool:
        """Whether so many more jobs of the caller may wait; if so, settle when they do.

        :raises DatabaseUnavailable: when that can't be told.
        """
        if caller.client_id is None or caller.max_pending is None:
            return True
        quota = self._quotas.setdefault((caller.client_id, caller.max_pending), Quota())
        if not quota.lock.acquire(timeout=max(0.0, min(TURN_SECONDS, budget.remaining()))):
            raise DatabaseUnavailable
        try:
            now = monotonic()
            if now >= quota.fresh_until or (quota.left < jobs and now >= quota.not_before):
                self._count(quota, caller.client_id, caller.max_pending, jobs)
            if quota.left < jobs:
                return False
            quota.left -= jobs
            with quota.under_way_lock:
                quota.under_way += jobs
            return True
        finally:
            quota.lock.release()

    def settle(self, caller: Caller, jobs: int) -> None:
        """Say that so many jobs that were let in were inserted, or will not be."""
        if caller.client_id is not None and caller.max_pending is not None:
            quota = self._quotas[caller.client_id, caller.max_pending]
            with quota.under_way_lock:
                quota.under_way -= jobs

    def _count(self, quota: Quota, client_id: str, limit: int, jobs: int) -> None:
        """Count what is pending, and take what is wanted just now or a share of what is left."""
        # Before the count: what is inserted meanwhile is counted twice, and never not at all.
        under_way, began = quota.under_way, monotonic()
        with self._database.connection() as connection:
            values = {"client": client_id, "limit": limit}
            [(pending,)] = connection.execute(COUNT_PENDING, values).fetchall()
        now, left = monotonic(), limit - pending - under_way
        pause = min((now - began) * PAUSE_FACTOR, MAX_PAUSE_SECONDS)
        quota.fresh_until = now + max(FRESH_SECONDS, pause)
        quota.not_before = now + pause if left < jobs else now
        quota.left = min(max(left, 0), max(jobs, ceil(left / self._processes)))


def get() -> Quotas:
    """The quotas of the current app."""
    quotas: Quotas = current_app.extensions["quotas"]
    return quotas
