"""The jobs of one file, in the database: inserted once, and read in their order."""

import hashlib
from collections.abc import Sequence
from typing import Any, NamedTuple
from uuid import UUID

import psycopg

from jobrunner.bulk.patience import Connection, PatientConnection
from jobrunner.bulk.rows import Outcome
from jobrunner.errors import InputError

MODELS = "select name from model order by name"

# One JSON text: psycopg takes ten times as long to write arrays, and COPY wins nothing, since
# the time goes into the rows. The first job has a key that is unique: a chunk whose answer was
# lost is not inserted again, and one that is still being inserted is waited for.
INSERT = """
    insert into job (
        model, input, priority, batch_id, batch_position, idempotency_key, input_hash
    )
    select
        %(model)s,
        item.i,
        %(priority)s,
        %(batch_id)s,
        item.p,
        case when item.p = %(first)s then %(key)s end,
        case when item.p = %(first)s then %(hash)s::bytea end
    from jsonb_to_recordset(%(items)s::jsonb) as item (p integer, i jsonb)
"""

LAST = """
    select batch_position
    from job
    where batch_id = %(batch_id)s
    order by batch_position desc
    limit 1
"""

# The columns of an Outcome.
OUTCOMES = """
    select
        batch_position,
        status,
        id::text,
        result::text,
        error::text,
        result ->> 'sentiment',
        result ->> 'confidence',
        error ->> 'code',
        error ->> 'message'
    from job
    where
        batch_id = %(batch_id)s
        and batch_position >= %(first)s
        and batch_position < %(end)s
    order by batch_position
    limit %(limit)s
"""

SCHEMA = """
    select input_schema
    from serving_version
    where model = %(model)s
"""

SERVED = """
    select exists (
        select
        from runner
        where
            %(model)s = any(models)
            and lost_at is null
            and heartbeat_at + lease > now()
    )
"""


class Item(NamedTuple):
    """A job to be: its place in the batch, and its input as JSON."""

    position: int
    input: str


class Batch:
    """One batch of jobs for one model."""

    def __init__(
        self, connection: PatientConnection, batch_id: UUID, model: str, priority: int
    ) -> None:
        self._connection = connection
        self._values = {"batch_id": batch_id, "model": model, "priority": priority}

    def insert(self, items: Sequence[Item]) -> int:
        """Insert jobs in one transaction, except those that are there; return the last position.

        :raises InputError: when the database refuses what they hold.
        """
        try:
            self._insert(items)
        except psycopg.errors.UniqueViolation:
            last = self.last_position()
            if last < items[0].position:
                raise
            left = [item for item in items if item.position > last]
            return self.insert(left) if left else last
        except psycopg.DataError as error:
            rows = f"{items[0].position + 1} to {items[-1].position + 1}"
            said = error.diag.message_primary
            raise InputError(f"the database refuses one of the rows {rows}: {said}") from None
        return items[-1].position

    def last_position(self) -> int:
        """Tell the position of the last job that was inserted; -1 where none was."""
        rows = self._read(LAST)
        return int(rows[0][0]) if rows else -1

    def outcomes(self, first: int, end: int, limit: int) -> list[Outcome]:
        """Read how the jobs stand from a position on, in their order."""
        rows = self._read(OUTCOMES, first=first, end=end, limit=limit)
        return [Outcome._make(row) for row in rows]

    def input_schema(self) -> dict[str, Any] | None:
        """Read what the model takes, as the web checks it; None where it does not say."""
        rows = self._read(SCHEMA)
        return rows[0][0] if rows else None

    def is_served(self) -> bool:
        """Tell whether there is a live runner for the model."""
        return bool(self._read(SERVED)[0][0])

    def _insert(self, items: Sequence[Item]) -> None:
        first = items[0].position
        written = ",".join(f'{{"p":{item.position},"i":{item.input}}}' for item in items)
        values = self._values | {
            "items": f"[{written}]",
            "first": first,
            "key": f"submit {self._values['batch_id']} {first}",
            "hash": hashlib.sha256(written.encode()).digest(),
        }
        self._connection.ask(lambda connection: connection.execute(INSERT, values))

    def _read(self, statement: Any, **values: int) -> list[Any]:
        parameters = self._values | values
        return self._connection.ask(
            lambda connection: connection.execute(statement, parameters).fetchall()
        )


def check_model(connection: PatientConnection, model: str) -> None:
    """Let a model pass that was ever registered.

    :raises InputError: naming those that were.
    """
    names = connection.ask(_models)
    if model not in names:
        known = f"there are {', '.join(names)}" if names else "there is none"
        raise InputError(f"no model {model} is registered, {known}: start a runner that serves it")


def _models(connection: Connection) -> list[str]:
    return [name for (name,) in connection.execute(MODELS)]
