"""``POST /predict``: takes a text and leaves a pending row."""

from collections.abc import Iterable
from uuid import UUID

from flask import Blueprint, Response
from werkzeug.exceptions import NotFound

from web import (
    access,
    admission,
    idempotency,
    inputs,
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
from web.inputs import Input
from web.inserts import NewJob
from web.jobs import answer_job
from web.rows import Row, read, unread
from web.schemas import Accepted, Submission
from web.validation import check_body
from web.waiting import Wait

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
            inputs.get().require([Input((), submission.model, {"text": submission.text})])
            [new_job] = new_jobs([submission])
            job_id = submit(new_job, key)
    return accepted(job_id, wait, eta, is_new=key is None)


def accepted(job_id: UUID, wait: Wait, eta: float | None, is_new: bool) -> Response:
    """Answer whose job is committed: 202, or 200 with the job where he waits and it gets final."""
    if wait.seconds and (job := final(job_id, wait, is_new)):
        return answer_job(job, headers=wait.headers | {"Location": f"/jobs/{job_id}"})
    address = f"/jobs/{job_id}"
    headers = {
        "Location": address,
        "Link": f'<{address}/events>; rel="events", <{address}/cancel>; rel="cancel"',
        "Retry-After": retry_after(eta),
    }
    body = Accepted(job_id=job_id, status="processing")
    return answer(body.model_dump(mode="json"), 202, headers)


def final(job_id: UUID, wait: Wait, is_new: bool) -> Row | None:
    """Wait for a job that was accepted; None if it is not final in time, or can't be read.

    A new one is read by those who watch, together with others.
    """
    tracing.log_now()
    try:
        row = waiting.until_final(unread(job_id) if is_new else read(job_id), wait)
    except (DatabaseUnavailable, NotFound):
        return None
    return row if row["finished_at"] is not None else None


def submit(job: NewJob, key: Key | None) -> UUID:
    """Insert a job; with a key, unless that was done before."""
    if key is None:
        return insert(job, None).job_id
    return idempotency.once(key, lambda: insert(job, key)).job_id


def insert(job: NewJob, key: Key | None) -> Found:
    """Insert a job, and log that it was; a text without a key with others that come."""
    by_itself = key is not None or job.input is not None
    job_id = submissions.insert([job], key)[0] if by_itself else inserts.get().insert(job)
    tracing.log_submitted("submitted", job_id=job_id, model=job.model)
    return Found(job_id, None)


def new_jobs(submissions: Iterable[Submission]) -> list[NewJob]:
    """Say what is to be inserted for what the current request has submitted."""
    attempts = settings.get().max_attempts
    client_id, traceparent = access.caller().client_id, tracing.traceparent()
    return [
        NewJob(each.model, each.text, each.priority, attempts, client_id, traceparent)
        for each in submissions
    ]
