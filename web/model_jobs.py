"""``POST /models/<name>/predict``: takes what a model takes, which need not be a text."""

from flask import Blueprint, Response

from web import access, admission, idempotency, inputs, json_body, settings, tracing, waiting
from web.inputs import Input
from web.inserts import NewJob
from web.predict import accepted, submit
from web.schemas import ModelSubmission
from web.validation import check_body

blueprint = Blueprint("model_jobs", __name__)


@blueprint.post("/models/<name>/predict")
def predict(name: str) -> Response:
    """Accept an input for a model: when this answers 202, the job is committed."""
    admission.require_model(name)
    submission, wait = check_body(ModelSubmission, json_body.read()), waiting.wanted()
    inputs.require_storable(("input",), submission.input)
    key = idempotency.read_key(submission)
    eta, found = None, idempotency.find(key) if key else None
    if found:
        job_id = found.job_id
    else:
        with admission.admitted({"": name}) as eta:
            inputs.get().require([Input(("input",), name, submission.input)])
            job_id = submit(new_job(name, submission), key)
    return accepted(job_id, wait, eta, is_new=key is None)


def new_job(name: str, submission: ModelSubmission) -> NewJob:
    """Say what is to be inserted for what the current request has submitted."""
    return NewJob(
        name,
        None,
        submission.priority,
        settings.get().max_attempts,
        access.caller().client_id,
        tracing.traceparent(),
        submission.input,
    )
