"""``POST /jobs/<id>/cancel``: leaves a request, and the database or the runner acts on it."""

from uuid import UUID

from flask import Blueprint, Response

from web import database
from web.jobs import answer_job
from web.rows import parse_id, read

blueprint = Blueprint("cancel", __name__)

REQUEST_CANCEL = """
    insert into cancel_request (job_id)
    values (%(job_id)s)
    on conflict (job_id) do nothing
"""


@blueprint.post("/jobs/<job_id>/cancel")
def cancel(job_id: str) -> Response:
    """Ask for a job to be cancelled: 202, or 200 where it was final before."""
    wanted = parse_id(job_id)
    row = read(wanted)
    if row["finished_at"] is not None:
        return answer_job(row)
    request_cancel(wanted)
    return answer_job(read(wanted), 202)


def request_cancel(job_id: UUID) -> None:
    """Insert the request; a pending job has failed when this returns."""
    with database.get().connection() as connection:
        connection.execute(REQUEST_CANCEL, {"job_id": job_id})
