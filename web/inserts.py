"""Inserts jobs, those of requests that come together in one statement (group commit).

A request that finds no insert under way inserts at once. Those that come meanwhile wait
for it to end, and then go together: one statement and one flush to disk for all of them.
So a busy web costs the database less a job, and a lone request waits for nobody.
"""

import json
from collections import defaultdict
from collections.abc import Iterable
from itertools import chain
from threading import Lock
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from flask import current_app

from web import budget
from web.database import Database
from web.errors import DatabaseUnavailable
from web.statement import Statement

GROUP_ROWS = 100

TURN_SECONDS = 1.5
# What a group that was refused may take to be inserted in parts.
PARTS_SECONDS = 3.0

# A lone row costs the database a tenth less like this.
INSERT_JOB = Statement(
    "insert_job",
    """
    insert into job (model, input, priority, max_attempts, client_id, traceparent)
    select
        %(model)s,
        jsonb_build_object('text', %(text)s::text),
        %(priority)s::smallint,
        %(max_attempts)s::smallint,
        %(client_id)s::text,
        %(traceparent)s::text
    where clock_timestamp() < to_timestamp(%(until)s)
    returning id
""",
)

# The rows come back with what they hold: nothing promises their order.
INSERT_JOBS = Statement(
    "insert_jobs",
    """
    insert into job (model, input, priority, max_attempts, client_id, traceparent)
    select
        model,
        jsonb_build_object('text', text),
        priority,
        max_attempts,
        client_id,
        traceparent
    from jsonb_to_recordset(%(rows)s::jsonb) as row (
        model text,
        text text,
        priority smallint,
        max_attempts smallint,
        client_id text,
        traceparent text
    )
    where (select clock_timestamp() < to_timestamp(%(until)s))
    returning
        id,
        model,
        input ->> 'text',
        priority,
        max_attempts,
        client_id,
        traceparent
""",
)


class NewJob(NamedTuple):
    """What a client may set of a job. Jobs of equal rows differ in nothing but their id.

    It has a text, or an input of another kind.
    """

    model: str
    text: str | None
    priority: int
    max_attempts: int
    client_id: str | None
    traceparent: str | None
    input: dict[str, Any] | None = None


class Entry:
    """A row on its way, and what became of it."""

    def __init__(self, row: NewJob) -> None:
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

    def insert(self, row: NewJob) -> UUID:
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
        if entry.turn.acquire(timeout=min(TURN_SECONDS, budget.remaining())):
            return
        with self._lock:
            if entry in self._waiting:
                self._waiting.remove(entry)
                raise DatabaseUnavailable
        # It is being inserted by another thread, which may have more time than this one.
        if not entry.turn.acquire(timeout=budget.remaining()):
            raise DatabaseUnavailable

    def _hand_over(self, group: list[Entry]) -> None:
        """Let the next group go, and those of the last one know their results."""
        with self._lock:
            following, self._waiting = self._waiting[:GROUP_ROWS], self._waiting[GROUP_ROWS:]
            self._busy = bool(following)
            # Within the lock, where whoever gives up looks whether it is still among those
            # that wait: one that is to insert the others must not go.
            if following:
                following[0].group = following
                following[0].turn.release()
        for entry in group[1:]:
            entry.turn.release()

    def _insert(self, group: list[Entry]) -> None:
        """Insert a group; if the database refuses it, in parts: one must not spoil the others."""
        parts, deadline = [group], monotonic() + PARTS_SECONDS
        while parts:
            part = parts.pop()
            try:
                self._insert_part(part)
            except DatabaseUnavailable as error:
                # It will not do the rest either, and everybody waits.
                _fail([*part, *chain.from_iterable(parts)], error)
                return
            except Exception as error:
                middle = len(part) // 2
                if middle and monotonic() < deadline and isinstance(error, psycopg.Error):
                    parts += [part[:middle], part[middle:]]
                else:
                    _fail(part, error)

    def _insert_part(self, part: list[Entry]) -> None:
        if len(part) == 1:
            [[part[0].id]] = self._execute(INSERT_JOB, part[0].row._asdict())
            return
        # One text, of which PostgreSQL makes the rows: to write an array takes Python longer.
        rows = json.dumps([entry.row._asdict() for entry in part])
        ids: dict[NewJob, list[UUID]] = defaultdict(list)
        for job_id, *fields in self._execute(INSERT_JOBS, {"rows": rows}):
            ids[NewJob(*fields)].append(job_id)
        for entry in part:
            entry.id = ids[entry.row].pop()

    def _execute(self, statement: Statement, values: dict[str, Any]) -> list[tuple[Any, ...]]:
        with self._database.kept_connection() as connection:
            rows = statement.rows(connection, values | {"until": connection.until})
            if not rows:
                # Too late, or the server's clock was set: ask for it anew next time.
                connection.close()
                raise DatabaseUnavailable
            return rows


def _fail(entries: Iterable[Entry], error: Exception) -> None:
    for entry in entries:
        entry.error = error


def get() -> Inserts:
    """The inserts of the current app."""
    inserts: Inserts = current_app.extensions["inserts"]
    return inserts
