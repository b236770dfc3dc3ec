"""How a runner judges the others: who is dead, and whose jobs are to be freed.

A runner is dead when the lock that it said to hold was absent throughout LOCK_SECONDS of the
judge's own unbroken contact with the database, or when its lease was over after a whole lease
of such contact. So a crash shows in seconds, and an outage of the database, which breaks the
judge's contact as well, makes nobody dead. Contact means that the judge can commit.
"""

from dataclasses import dataclass
from datetime import datetime
from math import inf
from time import monotonic
from typing import Any

import psycopg
from psycopg.rows import class_row

Connection = psycopg.Connection[Any]

LOCK_SECONDS = 3.0
# A longer pause between two looks (the judge was stopped, say) breaks its contact.
CONTACT_GAP_SECONDS = 2.0

OTHERS = """
    select
        id,
        heartbeat_at,
        has_lock and not runner_holds_lock(id) as lock_is_absent,
        heartbeat_at + lease < now() as lease_is_over,
        extract(epoch from lease)::double precision as lease_seconds
    from runner
    where
        id <> %(id)s
        and lost_at is null
"""

# Changes nothing, and shows that a change can be committed.
TOUCH = "update runner set sleeping = sleeping where id = any(%(ids)s) and lost_at is null"

# Only if it has not beaten since it was judged.
DECLARE_LOST = """
    update runner
    set
        lost_at = clock_timestamp(),
        sleeping = false
    where
        id = %(id)s
        and lost_at is null
        and heartbeat_at = %(heartbeat_at)s
    returning id
"""


@dataclass(frozen=True)
class Other:
    """Another runner, as one look finds it."""

    id: str
    heartbeat_at: datetime
    lock_is_absent: bool
    lease_is_over: bool
    lease_seconds: float


class Judge:
    """Remembers since when what looks dead has looked so, in the judge's own time."""

    def __init__(self) -> None:
        self._contact_since = monotonic()
        self._looked_at = monotonic()
        self._absent_since: dict[str, float] = {}

    @property
    def due(self) -> float:
        """When the next verdict may be ready, by the monotonic clock."""
        return min(self._absent_since.values(), default=inf) + LOCK_SECONDS

    def lose_contact(self) -> None:
        """Begin anew: what was seen before an outage proves nothing."""
        self._contact_since = monotonic()
        self._absent_since.clear()

    def sweep(self, connection: Connection, runner: str) -> list[str]:
        """Look at the others; declare the dead lost and return their ids."""
        self._keep_contact()
        suspects = self._look(connection, runner)
        if not suspects:
            return []
        # To read may go on while nobody can commit: for want of a synchronous standby, say.
        # Then those who live can't beat, and what we say takes effect when they can again.
        connection.execute(TOUCH, {"ids": [other.id for other in suspects]})
        self._keep_contact()
        dead = self._look(connection, runner)
        for other in dead:
            self._absent_since.pop(other.id, None)
        return [other.id for other in dead if declare_lost(connection, other)]

    def _look(self, connection: Connection, runner: str) -> list[Other]:
        """Read of the other runners; those that are dead by the rule."""
        with connection.cursor(row_factory=class_row(Other)) as cursor:
            others = cursor.execute(OTHERS, {"id": runner}).fetchall()
        absent = {other.id for other in others if other.lock_is_absent}
        now = monotonic()
        self._absent_since = {id: self._absent_since.get(id, now) for id in absent}
        return [other for other in others if self._is_dead(other, now)]

    def _keep_contact(self) -> None:
        now = monotonic()
        if now - self._looked_at > CONTACT_GAP_SECONDS:
            self.lose_contact()
        self._looked_at = now

    def _is_dead(self, other: Other, now: float) -> bool:
        unlocked = now - self._absent_since.get(other.id, now) >= LOCK_SECONDS
        expired = other.lease_is_over and now - self._contact_since >= other.lease_seconds
        return unlocked or expired


def declare_lost(connection: Connection, other: Other) -> bool:
    """Mark a runner as lost, unless it has beaten since it was looked at; whether it was."""
    parameters = {"id": other.id, "heartbeat_at": other.heartbeat_at}
    return connection.execute(DECLARE_LOST, parameters).rowcount == 1
