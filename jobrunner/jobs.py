"""The jobs as people see them, and what people may ask for: the command's side of ``job``.

The functions take an autocommit connection. How a runner moves jobs: see queue.py.
"""

from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.Connection[Any]

HEALTH = """
    select
        model, pending, waiting_to_retry, processing, oldest_pending_age,
        runners, workers, jobs_per_second
    from queue_health
"""

LIST = """
    select
        id, model, status, priority, attempt, max_attempts, claimed_by,
        created_at, started_at, finished_at, error ->> 'code' as error_code
    from job
    where %(status)s::text is null or status = %(status)s
    order by id desc
    limit %(limit)s
"""

SHOW = """
    select
        job.id, job.model, job.status, job.priority, job.attempt, job.max_attempts, job.run_at,
        job.claimed_by, job.created_at, job.started_at, job.finished_at, job.input, job.result,
        job.error, job.errors, job.batch_id, job.retry_of, job.client_id, job.traceparent,
        job.model_version, job.batch_size, job.inference_seconds,
        round(100 * job_progress.fraction) as progress_percent,
        job_progress.word as progress
    from job
    left join job_progress
        on
            job.id = job_progress.job_id
            and job.attempt = job_progress.attempt
            and job.status = 'processing'
            and job_progress.updated_at >= job.started_at
    where job.id = %(id)s
"""

PROGRESS = """
    select
        job.id as job,
        job.model,
        round(100 * job_progress.fraction) as percent,
        job_progress.word as progress,
        date_trunc('second', now() - job.started_at) as running_for
    from job_progress
    inner join job
        on
            job_progress.job_id = job.id
            and job_progress.attempt = job.attempt
            and job_progress.updated_at >= job.started_at
    where job.status = 'processing'
    order by job.started_at
    limit 50
"""

REQUEST_CANCEL = """
    insert into cancel_request (job_id)
    values (%(id)s)
    on conflict (job_id) do nothing
"""


def health(connection: Connection) -> list[dict[str, Any]]:
    """Read the view ``queue_health``: a row a model."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(HEALTH).fetchall()


def in_progress(connection: Connection) -> list[dict[str, Any]]:
    """Read how far the jobs are whose models say so: the first fifty."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(PROGRESS).fetchall()


def newest(connection: Connection, *, status: str | None, limit: int) -> list[dict[str, Any]]:
    """List jobs, newest first, without their texts."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST, {"status": status, "limit": limit}).fetchall()


def show(connection: Connection, job_id: UUID) -> dict[str, Any] | None:
    """Read one job in full."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SHOW, {"id": job_id}).fetchone()


def request_cancel(connection: Connection, job_id: UUID) -> None:
    """Ask for a job to be cancelled: see ``sql/0008_create_cancel_request.sql``.

    :raises psycopg.errors.ForeignKeyViolation: when there is no such job.
    """
    connection.execute(REQUEST_CANCEL, {"id": job_id})
