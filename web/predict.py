"""``POST /predict``: takes a text and leaves a pending row."""

from uuid import UUID

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from web import (
    access,
    admission,
    idempotency,
    inserts,
    json_body,
    settings,
    submissions,
    tracing,
    waiting,
)
from web.answers import answer, retry_after
from web.errors import DatabaseUnavailable
from web.idempotency import Found, Key
from web.inserts import NewJob
from web.jobs import answer_job
from web.rows import Row, read
from web.schemas import Accepted, Submission
from web.validation import check_body

blueprint = Blueprint("predict", __name__)


@blueprint.post("/predict")
def predict() -> Response:
    """Accept a text: when this answers 202, the job is committed.

    A client that waits gets the job, 200, if it is final in time.
    """
    submission, wait = check_body(Submission, json_body.read()), waiting.wanted()
    key = idempotency.read_key(submission)
    eta, found = None, idempotency.find(key) if key else None
    if found:
        job_id = found.job_id
    else:
        with admission.admitted({"/model": submission.model}) as eta:
            job_id = insert(new_job(submission), key)
        tracing.log_submitted("submitted", job_id=job_id, model=submission.model)
    if wait.seconds and (job := final(job_id, wait.seconds)):
        return answer_job(job, headers=wait.headers | {"Location": f"/jobs/{job_id}"})
    headers = {
        "Location": f"/jobs/{job_id}",
        "Link": f'</jobs/{job_id}/events>; rel="events", </jobs/{job_id}/cancel>; rel="cancel"',
        "Retry-After": retry_after(eta),
    }
    accepted = Accepted(job_id=job_id, status="processing")
    return answer(accepted.model_dump(mode="json"), 202, headers)


def final(job_id: UUID, seconds: float) -> Row | None:
    """Wait for a job that was accepted; None if it is not final in time, or can't be read."""
    try:
        row = waiting.until_final(read(job_id), seconds)
    except (DatabaseUnavailable, NotFound):
        return None
    return row if row["finished_at"] is not None else None


def insert(job: NewJob, key: Key | None) -> UUID:
    """Insert a job; with a key, unless that was done before."""
    if key is None:
        return inserts.get().insert(job)
    return idempotency.once(key, lambda: Found(submissions.insert([job], key)[0], None)).job_id


def new_job(submission: Submission) -> NewJob:
    """Say what is to be inserted."""
    return NewJob(
        model=submission.model,
        text=submission.text,
        priority=submission.priority,
        max_attempts=settings.get().max_attempts,
        client_id=access.caller().client_id,
        traceparent=tracing.traceparent(),
    )
