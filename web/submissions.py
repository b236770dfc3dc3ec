"""Inserts what must be inserted by a statement of its own: a batch, a job with a key, or with an
input that is no text.
"""

import json
from collections.abc import Sequence
from uuid import UUID

from web import database
from web.errors import DatabaseUnavailable
from web.idempotency import Key
from web.inserts import NewJob

# All or nothing. Of several jobs the first one has the key.
INSERT_ALL = """
    insert into job (
        model, input, priority, max_attempts, client_id, traceparent,
        batch_id, batch_position, idempotency_key, input_hash
    )
    select
        item.model,
        coalesce(item.input, jsonb_build_object('text', item.text)),
        item.priority,
        item.max_attempts,
        item.client_id,
        item.traceparent,
        %(batch_id)s::uuid,
        case when %(batch_id)s::uuid is not null then item.position - 1 end,
        case when item.position = 1 then %(key)s::text end,
        case when item.position = 1 then %(hash)s::bytea end
    from
        rows from (
            jsonb_to_recordset(%(items)s::jsonb) as (
                model text,
                text text,
                priority smallint,
                max_attempts smallint,
                client_id text,
                traceparent text,
                input jsonb
            )
        ) with ordinality as item (
            model, text, priority, max_attempts, client_id, traceparent, input, position
        )
    where (select clock_timestamp() < to_timestamp(%(until)s))
    returning
        id,
        batch_position
"""


def insert(items: Sequence[NewJob], key: Key | None, batch_id: UUID | None = None) -> list[UUID]:
    """Insert jobs in one transaction; when this returns their ids, in order, it is committed.

    :raises UniqueViolation: when the key is taken; nothing was inserted.
    :raises DatabaseUnavailable: when it may not have been.
    """
    values = {
        "items": json.dumps([item._asdict() for item in items]),
        "batch_id": batch_id,
        "key": key.text if key else None,
        "hash": key.hash if key else None,
    }
    with database.get().connection() as connection:
        rows = connection.execute(INSERT_ALL, values | {"until": connection.until}).fetchall()
        if not rows:
            connection.close()
            raise DatabaseUnavailable
    return [job_id for job_id, _ in sorted(rows, key=lambda row: row[1] or 0)]
