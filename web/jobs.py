"""``GET /jobs/<id>``: a job as it stands."""

from typing import Any
from uuid import UUID

from flask import Blueprint, Response
from psycopg.rows import dict_row
from werkzeug.exceptions import NotFound

from web import backlog, database
from web.answers import answer, retry_after
from web.schemas import Job, Place

blueprint = Blueprint("jobs", __name__)

POSITIONS = 1000

# Times are compared here, by the database's clock alone.
READ_JOB = """
    select
        id as job_id,
        status,
        result,
        error,
        errors,
        model,
        priority,
        attempt,
        created_at,
        started_at,
        finished_at,
        retry_of,
        batch_id,
        run_at,
        extract(epoch from run_at - now())::float8 as due_in,
        extract(epoch from now() - started_at)::float8 as running_for
    from job
    where id = %(job_id)s
"""

# In the order of the claim, on job_unfinished_idx.
COUNT_AHEAD = """
    select count(*)
    from (
        select
        from job
        where
            model = %(model)s
            and finished_at is null
            and status = 'pending'
            and (-priority, run_at, id) < (-(%(priority)s::smallint), %(run_at)s, %(job_id)s)
        limit %(limit)s
    ) as ahead
"""


@blueprint.get("/jobs/<job_id>")
def show(job_id: str) -> Response:
    """Show a job."""
    return answer_job(read(parse_id(job_id)))


def answer_job(row: dict[str, Any], status: int = 200) -> Response:
    """Write a job; until it is final, ``Retry-After`` says when to look again."""
    place = place_of(row) if row["status"] == "pending" else None
    headers = {"Cache-Control": "private, no-cache"}
    if row["finished_at"] is None:
        headers["Retry-After"] = retry_after(place.eta_seconds if place else remaining(row))
    return answer(Job.model_construct(**row, queue=place), status, headers)


def read(job_id: UUID) -> dict[str, Any]:
    """Read a job by column.

    :raises NotFound: when there is none.
    """
    with (
        database.get().connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        row = cursor.execute(READ_JOB, {"job_id": job_id}).fetchone()
    if row is None:
        raise no_such_job()
    return row


def place_of(row: dict[str, Any]) -> Place:
    """Count who is ahead of a pending job, and estimate when it is done."""
    with database.get().connection() as connection:
        counted = connection.execute(COUNT_AHEAD, row | {"limit": POSITIONS}).fetchone()
    position: int = counted[0] if counted else 0
    crew = backlog.get().now().crew(row["model"])
    eta = crew.eta(position, due_in=row["due_in"])
    return Place(position=position, at_least=position == POSITIONS, eta_seconds=eta)


def remaining(row: dict[str, Any]) -> float | None:
    """Seconds that a job in work should still take; None where nobody can tell."""
    seconds = backlog.get().now().crew(row["model"]).seconds
    return None if seconds is None else seconds - row["running_for"]


def parse_id(text: str) -> UUID:
    """Read an id as it was given out.

    :raises NotFound: when it can't be one.
    """
    try:
        job_id = UUID(text)
    except ValueError:
        raise no_such_job() from None
    if str(job_id) != text.lower():
        raise no_such_job()
    return job_id


def no_such_job() -> NotFound:
    """Make the answer to an id that is not there."""
    return NotFound("There is no such job.")
