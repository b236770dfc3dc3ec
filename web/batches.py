"""``POST /predict/batch``: many texts at once. ``GET /batches/<id>``: how far they are."""

from uuid import UUID, uuid4

from flask import Blueprint, Response

from web import access, admission, database, idempotency, inputs, json_body, submissions, tracing
from web.answers import answer, conditional, retry_after
from web.idempotency import Found, Key
from web.inputs import Input
from web.predict import new_jobs
from web.rows import no_such, parse_id
from web.schemas import AcceptedBatch, Batch, BatchSubmission
from web.validation import check_body

blueprint = Blueprint("batches", __name__)

COUNT_BATCH = """
    select
        count(*),
        count(*) filter (where status = 'pending'),
        count(*) filter (where status = 'processing'),
        count(*) filter (where status = 'completed'),
        count(*) filter (where status = 'failed')
    from job
    where
        batch_id = %(batch_id)s
        and (%(client)s::text is null or client_id = %(client)s)
"""

BATCH_JOBS = """
    select id
    from job
    where batch_id = %(batch_id)s
    order by batch_position
"""


@blueprint.post("/predict/batch")
def predict_batch() -> Response:
    """Accept many texts, all or none: when this answers 202, their jobs are committed."""
    submission = check_body(BatchSubmission, json_body.read())
    key = idempotency.read_key(submission)
    eta, found = None, idempotency.find(key) if key else None
    if found and found.batch_id:
        batch_id, job_ids = found.batch_id, jobs_of(found.batch_id)
    else:
        models = {f"/items/{n}/model": item.model for n, item in enumerate(submission.items)}
        with admission.admitted(models) as eta:
            inputs.get().require(
                Input(("items", n), item.model, {"text": item.text})
                for n, item in enumerate(submission.items)
            )
            batch_id, job_ids = insert(submission, key)
    body = AcceptedBatch(batch_id=batch_id, job_ids=job_ids)
    headers = {"Location": f"/batches/{batch_id}", "Retry-After": retry_after(eta)}
    return answer(body.model_dump(mode="json"), 202, headers)


@blueprint.get("/batches/<batch_id>")
def show_batch(batch_id: str) -> Response:
    """Count the jobs of a batch by status."""
    wanted = parse_id(batch_id, "batch")
    with database.get().connection() as connection:
        values = {"batch_id": wanted, "client": access.scope()}
        [counts] = connection.execute(COUNT_BATCH, values).fetchall()
    if not counts[0]:
        raise no_such("batch")
    names = ("total", "pending", "processing", "completed", "failed")
    batch = Batch(batch_id=wanted, **dict(zip(names, counts, strict=True)))
    headers = {"Cache-Control": "private, no-cache"}
    return conditional(answer(batch, headers=headers))


def insert(submission: BatchSubmission, key: Key | None) -> tuple[UUID, list[UUID]]:
    """Insert a batch; with a key, unless that was done before. Its id and those of its jobs."""
    jobs = new_jobs(submission.items)
    batch_id, job_ids = uuid4(), list[UUID]()

    def insert_all() -> Found:
        job_ids.extend(submissions.insert(jobs, key, batch_id))
        tracing.log_submitted("submitted_batch", batch_id=batch_id, jobs=len(job_ids))
        return Found(job_ids[0], batch_id)

    found = idempotency.once(key, insert_all) if key else insert_all()
    if found.batch_id in (batch_id, None):
        return batch_id, job_ids
    return found.batch_id, jobs_of(found.batch_id)


def jobs_of(batch_id: UUID) -> list[UUID]:
    """The ids of a batch, in the order in which its items were given."""
    with database.get().connection() as connection:
        rows = connection.execute(BATCH_JOBS, {"batch_id": batch_id}).fetchall()
    return [row[0] for row in rows]
