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
        id, model, status, priority, attempt, max_attempts, run_at, claimed_by,
        created_at, started_at, finished_at, input, result, error, errors, batch_id, retry_of,
        client_id, traceparent, model_version, batch_size, inference_seconds
    from job
    where id = %(id)s
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
