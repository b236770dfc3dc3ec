"""The queue as it stood a moment ago: what is waiting, and who works at it.

One copy a process, so that a POST costs one statement. It tells which models there are,
whether the queue is full, and when a new job should be done. It is a second old at most,
or twenty times as old as it takes to make: to count a long queue takes long. So nobody waits
for that while requests come in all the time: when it has grown rather old, a thread makes the
next one.
"""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from threading import Lock, Thread
from time import monotonic

from flask import current_app

from web.database import Database
from web.errors import DatabaseUnavailable

FRESH_SECONDS = 1.0
FRESH_FACTOR = 20
MAX_FRESH_SECONDS = 10.0
LOOK_SECONDS = 1.0
# At which share of the age that it may reach the next one is made.
AGEING = 0.75

# Counted no further than needed to see that the queue is full.
COUNT_PENDING = """
    select
        model,
        count(*)
    from (
        select model
        from job
        where
            finished_at is null
            and status = 'pending'
        limit %(limit)s
    ) as pending
    group by model
"""

# A runner that is asked to stop claims nothing any more.
READ_CREWS = """
    select
        model.name,
        coalesce(crew.workers, 0)::integer,
        crew.seconds,
        crew.batch_size,
        serving_version.version
    from model
    left join serving_version on model.name = serving_version.model
    left join (
        select
            model,
            sum(workers) as workers,
            (
                sum(workers * inference_seconds)
                / sum(workers) filter (where inference_seconds is not null)
            )::float8 as seconds,
            (
                sum(workers * batch_size)
                / sum(workers) filter (where batch_size is not null)
            )::float8 as batch_size
        from model_crew
        where not stopping
        group by model
    ) as crew
        on model.name = crew.model
"""


@dataclass(frozen=True)
class Crew:
    """The workers of the live runners that serve a model, and how long they take for a job."""

    workers: int = 0
    # Of a call of the model, which may have several jobs.
    seconds: float | None = None
    batch_size: float | None = None
    # Which version takes what is submitted; None where nobody has ever said.
    version: str | None = None

    def eta(self, ahead: int, due_in: float = 0) -> float | None:
        """Seconds until a job should be done that has so many ahead and is not claimed earlier.

        None where nobody can tell: no live runner, or one that has not run a job yet.
        """
        if self.workers == 0 or self.seconds is None:
            return None
        at_once = self.workers * (self.batch_size or 1)
        wait = max(self.seconds * ahead / at_once, due_in)
        return round(wait + self.seconds, 1)


@dataclass(frozen=True)
class Snapshot:
    """How the queue stood: pending jobs by model, and the crew of each model there is."""

    pending: Mapping[str, int]
    crews: Mapping[str, Crew]
    taken_at: float = field(default_factory=monotonic)
    fresh_seconds: float = FRESH_SECONDS

    @property
    def depth(self) -> int:
        """Pending jobs of all models, counted to the limit."""
        return sum(self.pending.values())

    @property
    def fresh(self) -> bool:
        """Whether it is new enough to be relied on."""
        return monotonic() < self.taken_at + self.fresh_seconds

    @property
    def ageing(self) -> bool:
        """Whether it will soon not be fresh."""
        return monotonic() > self.taken_at + AGEING * self.fresh_seconds

    @property
    def new(self) -> bool:
        """Whether it would be a waste to take another one, whatever is asked."""
        return monotonic() < self.taken_at + FRESH_SECONDS

    def crew(self, model: str) -> Crew:
        """Who serves the model; nobody, where it is unknown."""
        return self.crews.get(model, Crew())


class Backlog:
    """Takes a snapshot when the last one has grown old, one thread at a time."""

    def __init__(self, database: Database, max_pending: int) -> None:
        self._database = database
        self._max_pending = max_pending
        self._snapshot: Snapshot | None = None
        self._lock = Lock()

    def now(self, model: str | None = None) -> Snapshot:
        """Give a snapshot, fresh unless another thread is just taking one.

        A ``model`` that the old one does not know is worth waiting for the new one.

        :raises DatabaseUnavailable: when the database does not answer.
        """
        old = self._snapshot
        good = old is not None and (model is None or model in old.crews)
        if old and (old.fresh if good else old.new):
            if old.ageing:
                self._look_ahead(old)
            return old
        if self._lock.acquire(timeout=0 if good else LOOK_SECONDS):
            try:
                return self._look()
            except DatabaseUnavailable:
                if not good:
                    raise
            finally:
                self._lock.release()
        if old and good:
            return old
        raise DatabaseUnavailable

    def full(self, snapshot: Snapshot) -> bool:
        """Whether no more jobs are taken."""
        return snapshot.depth >= self._max_pending

    def _look_ahead(self, old: Snapshot) -> None:
        """Have the next snapshot taken, unless that is being done."""
        if not self._lock.acquire(blocking=False):
            return
        try:
            Thread(target=self._renew, args=[old], daemon=True).start()
        except RuntimeError:
            # There are too many threads: who comes when this one is too old looks himself.
            self._lock.release()

    def _renew(self, old: Snapshot) -> None:
        """Take the next one; what goes wrong is told to who comes when the old one is too old."""
        try:
            if self._snapshot is old:
                with suppress(Exception):
                    self._take()
        finally:
            self._lock.release()

    def _look(self) -> Snapshot:
        if self._snapshot and self._snapshot.new:
            return self._snapshot
        return self._take()

    def _take(self) -> Snapshot:
        with self._database.connection() as connection:
            began = monotonic()
            limit = {"limit": self._max_pending}
            pending = dict(connection.execute(COUNT_PENDING, limit).fetchall())
            crews = connection.execute(READ_CREWS).fetchall()
            took = monotonic() - began
        named = {name: Crew(*crew) for name, *crew in crews}
        fresh = min(max(FRESH_SECONDS, FRESH_FACTOR * took), MAX_FRESH_SECONDS)
        self._snapshot = taken = Snapshot(pending, named, fresh_seconds=fresh)
        return taken


def get() -> Backlog:
    """The backlog of the current app."""
    backlog: Backlog = current_app.extensions["backlog"]
    return backlog
