"""``POST /predict``: takes a text and leaves a pending row."""

from flask import Blueprint, Response, current_app
from werkzeug.exceptions import TooManyRequests

from web import backlog, inserts, json_body, logs
from web.answers import answer, retry_after
from web.inserts import Row
from web.problems import Invalid
from web.schemas import Accepted, Submission
from web.settings import Settings
from web.validation import check_body

blueprint = Blueprint("predict", __name__)

FULL_RETRY_SECONDS = 10


@blueprint.post("/predict")
def predict() -> Response:
    """Accept a text: when this answers 202, the job is committed."""
    submission = check_body(Submission, json_body.read())
    eta = admit(submission.model)
    job_id = inserts.get().insert(
        Row(submission.model, submission.text, submission.priority, settings().max_attempts)
    )
    logs.info("submitted", job_id=job_id, model=submission.model)
    headers = {
        "Location": f"/jobs/{job_id}",
        "Link": f'</jobs/{job_id}/events>; rel="events", </jobs/{job_id}/cancel>; rel="cancel"',
        "Retry-After": retry_after(eta),
    }
    accepted = Accepted(job_id=job_id, status="processing")
    return answer(accepted.model_dump(mode="json"), 202, headers)


def admit(model: str) -> float | None:
    """Let a job into the queue, and say in how many seconds it should be done.

    :raises Invalid: when there was never such a model.
    :raises TooManyRequests: when the queue is full.
    """
    queue = backlog.get()
    snapshot = queue.now(model)
    if model not in snapshot.crews:
        raise Invalid([{"pointer": "/model", "detail": "is not a model that is served here"}])
    if queue.full(snapshot):
        raise TooManyRequests("The queue is full. Try again later.", retry_after=FULL_RETRY_SECONDS)
    return snapshot.crew(model).eta(snapshot.pending.get(model, 0))


def settings() -> Settings:
    """The settings of the current app."""
    found: Settings = current_app.extensions["settings"]
    return found
