"""``GET /models``, ``/runners``, ``/stats``: what is served, by whom, and how the queue stands."""

from typing import LiteralString

from flask import Blueprint, Response
from psycopg.rows import dict_row

from web import access, database
from web.answers import answer
from web.rows import Row
from web.schemas import ModelList, ModelShown, RunnerList, RunnerShown, Stats

blueprint = Blueprint("overview", __name__)

HEADERS = {"Cache-Control": "no-cache"}
# Where one who may is told of all that changes (RFC 5989).
OVERSEEN = {"Link": '</overview/events>; rel="monitor"'}

READ_MODELS = """
    select
        health.model,
        health.pending,
        health.waiting_to_retry,
        health.processing,
        extract(epoch from health.oldest_pending_age)::float8 as oldest_pending_seconds,
        health.runners,
        health.workers,
        health.jobs_per_second::float8 as jobs_per_second,
        serving.version,
        coalesce(health.versions, '{}') as versions,
        serving.max_batch_size,
        serving.input_schema,
        serving.output_schema
    from queue_health as health
    left join serving_version as serving on health.model = serving.model
    order by health.model
"""

READ_RUNNERS = """
    select
        runner,
        state,
        host,
        models,
        workers,
        ready,
        busy,
        extract(epoch from last_heartbeat_ago)::float8 as last_heartbeat_seconds_ago,
        extract(epoch from up_for)::float8 as up_seconds,
        completed,
        failed,
        jobs_per_second::float8 as jobs_per_second,
        inference_seconds::float8 as inference_seconds,
        trouble,
        versions,
        memory_mb::integer as memory_mb
    from runner_overview
"""

READ_STATS = """
    select
        coalesce(sum(pending), 0)::integer as pending,
        coalesce(sum(waiting_to_retry), 0)::integer as waiting_to_retry,
        coalesce(sum(processing), 0)::integer as processing,
        extract(epoch from max(oldest_pending_age))::float8 as oldest_pending_seconds,
        coalesce(sum(jobs_per_second), 0)::float8 as jobs_per_second,
        coalesce(sum(runners), 0)::integer as runners,
        coalesce(sum(workers), 0)::integer as workers
    from queue_health
"""


@blueprint.get("/models")
def models() -> Response:
    """List the models that were ever registered, and how the queue of each stands."""
    shown = [ModelShown.model_construct(**row) for row in read(READ_MODELS)]
    headers = HEADERS | (OVERSEEN if access.caller().operator else {})
    return answer(ModelList.model_construct(models=shown), headers=headers)


@blueprint.get("/runners")
def runners() -> Response:
    """List the runners that there are."""
    shown = [RunnerShown.model_construct(**row) for row in read(READ_RUNNERS)]
    return answer(RunnerList.model_construct(runners=shown), headers=HEADERS)


@blueprint.get("/stats")
def stats() -> Response:
    """Sum up how the queue stands."""
    [row] = read(READ_STATS)
    return answer(Stats.model_construct(**row), headers=HEADERS)


def read(statement: LiteralString) -> list[Row]:
    """Read rows by column."""
    with (
        database.get().connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(statement).fetchall()
