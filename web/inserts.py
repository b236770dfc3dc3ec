"""Inserts jobs, those of requests that come together in one statement (group commit).

A request that finds no insert under way inserts at once. Those that come meanwhile wait
for it to end, and then go together: one statement and one flush to disk for all of them.
So a busy web costs the database less a job, and a lone request waits for nobody.
"""

from collections import defaultdict
from threading import Lock
from typing import NamedTuple
from uuid import UUID

import psycopg
from flask import current_app

from web.database import Database
from web.errors import DatabaseUnavailable

GROUP_ROWS = 100

# With the limits in database.py, a request has its answer within 10 s whatever happens.
TURN_SECONDS = 1.5

# The rows come back with what they hold: nothing promises their order.
INSERT_JOBS = """
    insert into job (model, input, priority, max_attempts)
    select
        model,
        jsonb_build_object('text', text),
        priority,
        max_attempts
    from unnest(
        %(models)s::text[],
        %(texts)s::text[],
        %(priorities)s::smallint[],
        %(max_attempts)s::smallint[]
    ) as row (model, text, priority, max_attempts)
    returning
        id,
        model,
        input ->> 'text',
        priority,
        max_attempts
"""


class Row(NamedTuple):
    """What a client may set of a job. Jobs of equal rows differ in nothing but their id."""

    model: str
    text: str
    priority: int
    max_attempts: int


class Entry:
    """A row on its way, and what became of it."""

    def __init__(self, row: Row) -> None:
        self.row = row
        self.id: UUID | None = None
        self.error: Exception | None = None
        # The group that this entry's thread is to insert, when its turn comes.
        self.group: list[Entry] = []
        self.turn = Lock()
        self.turn.acquire()

    def result(self) -> UUID:
        """The id of the committed job; raises what kept it from being inserted."""
        if self.error:
            raise self.error
        assert self.id
        return self.id


class Inserts:
    """The inserts of one process, one group at a time."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._lock = Lock()
        self._waiting: list[Entry] = []
        self._busy = False

    def insert(self, row: Row) -> UUID:
        """Insert a pending job; when this returns its id, the job is committed.

        :raises DatabaseUnavailable: when it may not be.
        """
        entry = Entry(row)
        if not self._starts(entry):
            self._wait(entry)
        if entry.group:
            try:
                self._insert(entry.group)
            finally:
                self._hand_over(entry.group)
        return entry.result()

    def _starts(self, entry: Entry) -> bool:
        """Make the entry a group of its own if nobody is inserting; else let it wait."""
        with self._lock:
            if self._busy:
                self._waiting.append(entry)
                return False
            self._busy = True
        entry.group = [entry]
        return True

    def _wait(self, entry: Entry) -> None:
        """Wait until the entry has its result, or its thread is to insert a group."""
        if entry.turn.acquire(timeout=TURN_SECONDS):
            return
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
                raise DatabaseUnavailable
        entry.turn.acquire()

    def _hand_over(self, group: list[Entry]) -> None:
        """Let the next group go, and those of the last one know their results."""
        with self._lock:
            following, self._waiting = self._waiting[:GROUP_ROWS], self._waiting[GROUP_ROWS:]
            self._busy = bool(following)
        if following:
            following[0].group = following
            following[0].turn.release()
        for entry in group[1:]:
            entry.turn.release()

    def _insert(self, group: list[Entry]) -> None:
        """Insert a group. If the database refuses it, one row must not spoil the others."""
        try:
            ids = self._execute([entry.row for entry in group])
            for entry in group:
                entry.id = ids[entry.row].pop()
        except psycopg.Error as error:
            if len(group) == 1:
                group[0].error = error
            else:
                for entry in group:
                    self._insert([entry])
        except Exception as error:
            for entry in group:
                entry.error = error

    def _execute(self, rows: list[Row]) -> dict[Row, list[UUID]]:
        models, texts, priorities, max_attempts = zip(*rows, strict=True)
        parameters = {
            "models": list(models),
            "texts": list(texts),
            "priorities": list(priorities),
            "max_attempts": list(max_attempts),
        }
        ids: dict[Row, list[UUID]] = defaultdict(list)
        with self._database.connection() as connection:
            for job_id, *fields in connection.execute(INSERT_JOBS, parameters):
                ids[Row(*fields)].append(job_id)
        return ids


def get() -> Inserts:
    """The inserts of the current app."""
    inserts: Inserts = current_app.extensions["inserts"]
    return inserts
