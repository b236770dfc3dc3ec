"""``GET /jobs/<id>``: a job as it stands."""

from collections.abc import Mapping

from flask import Blueprint, Response

from web import backlog, database, waiting
from web.answers import answer, conditional, retry_after
from web.rows import Row, parse_id, read
from web.schemas import Job, Place

blueprint = Blueprint("jobs", __name__)

POSITIONS = 1000
# What is final never changes again.
FINAL = "private, max-age=86400, immutable"

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
    """Show a job, once it is final where the client waits for that."""
    wait = waiting.wanted()
    row = waiting.until_final(read(parse_id(job_id)), wait)
    kept = {"Cache-Control": FINAL} if row["finished_at"] is not None else {}
    return conditional(answer_job(row, headers=wait.headers | kept))


def answer_job(row: Row, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    """Write a job; until it is final, ``Retry-After`` says when to look again."""
    job = shown(row)
    headers = {"Cache-Control": "private, no-cache", **(headers or {})}
    if row["finished_at"] is None:
        seconds = job.queue.eta_seconds if job.queue else remaining(row)
        headers["Retry-After"] = retry_after(seconds)
    return answer(job, status, headers)


def shown(row: Row, placed: bool = True) -> Job:
    """Make of a row what clients see, with its place in the queue while it is pending."""
    place = place_of(row) if placed and row["status"] == "pending" else None
    return Job.model_construct(**row, queue=place)


def place_of(row: Row) -> Place:
    """Count who is ahead of a pending job, and estimate when it is done."""
    with database.get().connection() as connection:
        counted = connection.execute(COUNT_AHEAD, row | {"limit": POSITIONS}).fetchone()
    position: int = counted[0] if counted else 0
    crew = backlog.get().now().crew(row["model"])
    eta = crew.eta(position, due_in=row["due_in"])
    return Place(position=position, at_least=position == POSITIONS, eta_seconds=eta)


def remaining(row: Row) -> float | None:
    """Seconds that a job in work should still take; None where nobody can tell."""
    seconds = backlog.get().now().crew(row["model"]).seconds
    return None if seconds is None else seconds - row["running_for"]
