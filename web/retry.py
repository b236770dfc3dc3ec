"""``POST /jobs/<id>/retry``: a failed job once more, as a new one."""

from uuid import UUID

from flask import Blueprint, Response
from werkzeug.exceptions import Conflict, NotFound

from web import admission, database, logs, settings
from web.answers import answer
from web.errors import DatabaseUnavailable
from web.jobs import answer_job
from web.rows import Row, parse_id, read
from web.schemas import Job

blueprint = Blueprint("retry", __name__)

# What a new job is in, as far as that is known without reading it.
NEW: Row = {"status": "pending", "error": None, "errors": [], "attempt": 0, "started_at": None,
       "finished_at": None, "batch_id": None}  # fmt: skip

# A cancel or the deletion of the old job does not matter any more when this has read it.
INSERT_RETRY = """
    insert into job (model, input, priority, max_attempts, retry_of, client_id)
    select
        model,
        input,
        priority,
        %(max_attempts)s::smallint,
        id,
        client_id
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
    admission.admit({"": old["model"]})
    new_id = insert(old)
    logs.info("submitted", job_id=new_id, model=old["model"], retry_of=old["job_id"])
    headers = {"Location": f"/jobs/{new_id}"}
    try:
        return answer_job(read(new_id), 202, headers)
    except (DatabaseUnavailable, NotFound):
        # It is committed: who is told otherwise would do it again.
        new = old | NEW | {"job_id": new_id, "retry_of": old["job_id"]}
        return answer(Job.model_construct(**new, queue=None), 202, headers)


def insert(old: Row) -> UUID:
    """Insert the new job; when this returns its id, it is committed.

    :raises DatabaseUnavailable: when it may not be.
    """
    values = {"job_id": old["job_id"], "max_attempts": settings.get().max_attempts}
    with database.get().connection() as connection:
        row = connection.execute(INSERT_RETRY, values | {"until": connection.until}).fetchone()
        if row is None:
            connection.close()
            raise DatabaseUnavailable
    new_id: UUID = row[0]
    return new_id
