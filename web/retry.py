"""``POST /jobs/<id>/retry``: a failed job once more, as a new one."""

from uuid import UUID

from flask import Blueprint, Response
from werkzeug.exceptions import Conflict, NotFound

from web import admission, database, idempotency, settings, tracing
from web.answers import answer
from web.errors import DatabaseUnavailable
from web.idempotency import Found, Key
from web.jobs import answer_job
from web.rows import Row, parse_id, read
from web.schemas import Job

blueprint = Blueprint("retry", __name__)

# What a new job is in, as far as that is known without reading it.
NEW: Row = {"status": "pending", "error": None, "errors": [], "attempt": 0, "started_at": None,
       "finished_at": None, "batch_id": None, "model_version": None, "batch_size": None,
       "inference_seconds": None, "progress": None}  # fmt: skip

# A cancel or the deletion of the old job does not matter any more when this has read it.
INSERT_RETRY = """
    insert into job (
        model, input, priority, max_attempts, retry_of, client_id, traceparent,
        idempotency_key, input_hash
    )
    select
        model,
        input,
        priority,
        %(max_attempts)s::smallint,
        id,
        client_id,
        %(traceparent)s::text,
        %(key)s::text,
        %(hash)s::bytea
    from job
    where
        id = %(job_id)s
        and status = 'failed'
        and (select clock_timestamp() < to_timestamp(%(until)s))
    returning id
"""


@blueprint.post("/jobs/<job_id>/retry")
def retry(job_id: str) -> Response:
    """Submit a failed job anew: 202 with the new job, 409 unless the old one failed."""
    old = read(parse_id(job_id))
    if old["status"] != "failed":
        raise Conflict(f"Only a failed job can be retried; this one is {old['status']}.")
    key = idempotency.read_key()
    key = key and key.for_client(old["client_id"])
    found = idempotency.find(key) if key else None
    new_id = found.job_id if found else submit(old, key)
    headers = {"Location": f"/jobs/{new_id}"}
    try:
        return answer_job(read(new_id), 202, headers)
    except (DatabaseUnavailable, NotFound):
        # It is committed: who is told otherwise would do it again.
        new = old | NEW | {"job_id": new_id, "retry_of": old["job_id"]}
        return answer(Job.model_construct(**new, queue=None), 202, headers)


def submit(old: Row, key: Key | None) -> UUID:
    """Let the new job in and insert it; with a key, unless that was done before."""
    with admission.admitted({"": old["model"]}):
        if key is None:
            return insert(old, None).job_id
        return idempotency.once(key, lambda: insert(old, key)).job_id


def insert(old: Row, key: Key | None) -> Found:
    """Insert the new job, and log that it was; when this returns its id, it is committed.

    :raises UniqueViolation: when the key is taken.
    :raises DatabaseUnavailable: when it may not be.
    """
    values = {
        "job_id": old["job_id"],
        "max_attempts": settings.get().max_attempts,
        "traceparent": tracing.traceparent(),
        "key": key.text if key else None,
        "hash": key.hash if key else None,
    }
    with database.get().connection() as connection:
        row = connection.execute(INSERT_RETRY, values | {"until": connection.until}).fetchone()
        if row is None:
            connection.close()
            raise DatabaseUnavailable
    fields = {"job_id": row[0], "model": old["model"], "retry_of": old["job_id"]}
    tracing.log_submitted("submitted", **fields)
    return Found(row[0], None)
