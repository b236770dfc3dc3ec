"""The jobs as people see them, and what people may ask for: the command's side of ``job``.

The functions take an autocommit connection. How a runner moves jobs: see queue.py.
"""

from dataclasses import asdict, dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import psycopg
from psycopg.rows import dict_row

Connection = psycopg.Connection[Any]

HEALTH = """
    select
        model, pending, waiting_to_retry, processing, oldest_pending_age,
        runners, workers, jobs_per_second, versions
    from queue_health
"""

NOW = "select clock_timestamp()"

# Some conditions follow from the one before: they let the planner see that a partial index
# will do, or that ids are in the order of time (see sql/0024_index_job_lists.sql).
LIST = """
    select
        id, model, status, priority, attempt, max_attempts, claimed_by,
        created_at, started_at, finished_at, error ->> 'code' as error_code
    from job
    where
        (%(from_id)s::uuid is null or id >= %(from_id)s)
        and (%(to_id)s::uuid is null or id <= %(to_id)s)
        and (%(created_after)s::timestamptz is null or created_at > %(created_after)s)
        and (%(created_before)s::timestamptz is null or created_at < %(created_before)s)
        and (%(model)s::text is null or model || '' = %(model)s)
        and (%(batch_id)s::uuid is null or batch_id = %(batch_id)s)
        and (%(status)s::text is null or status = %(status)s)
        and (
            coalesce(%(status)s, '') <> 'pending'
            or coalesce(finished_at, 'infinity') = 'infinity'
        )
        and (
            coalesce(%(status)s, '') <> 'processing'
            or id = any(array(select claimed_job.id from claimed_job))
        )
        and (coalesce(%(status)s, '') <> 'failed' or coalesce(error, 'null') <> 'null')
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

# See sql/0031_create_operator_functions.sql.
RETRY = "select retry_job(%(id)s)"

# An id is made a little before or after the time of creation.
SLACK_MILLISECONDS = 1000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Wanted:
    """Which jobs are to be listed; the ages are those of their submission."""

    status: str | None = None
    model: str | None = None
    batch_id: UUID | None = None
    since: timedelta | None = None
    older_than: timedelta | None = None
    limit: int = 20


def health(connection: Connection) -> list[dict[str, Any]]:
    """Read the view ``queue_health``: a row a model."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(HEALTH).fetchall()


def in_progress(connection: Connection) -> list[dict[str, Any]]:
    """Read how far the jobs are whose models say so: the first fifty."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(PROGRESS).fetchall()


def newest(connection: Connection, wanted: Wanted) -> list[dict[str, Any]]:
    """List jobs, newest first, without their texts."""
    [(now,)] = connection.execute(NOW).fetchall()
    after = now - wanted.since if wanted.since is not None else None
    before = now - wanted.older_than if wanted.older_than is not None else None
    values = asdict(wanted) | {
        "created_after": after,
        "created_before": before,
        "from_id": after and _id_at(after, -SLACK_MILLISECONDS),
        "to_id": before and _id_at(before, SLACK_MILLISECONDS),
    }
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(LIST, values, prepare=False).fetchall()


def show(connection: Connection, job_id: UUID) -> dict[str, Any] | None:
    """Read one job in full."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(SHOW, {"id": job_id}).fetchone()


def request_cancel(connection: Connection, job_id: UUID) -> None:
    """Ask for a job to be cancelled: see ``sql/0008_create_cancel_request.sql``.

    :raises psycopg.errors.ForeignKeyViolation: when there is no such job.
    """
    connection.execute(REQUEST_CANCEL, {"id": job_id})


def retry(connection: Connection, job_id: UUID) -> UUID:
    """Submit a failed job anew; return the id of the new one.

    :raises psycopg.errors.NoDataFound: when there is no such job.
    :raises psycopg.errors.ObjectNotInPrerequisiteState: when it has not failed.
    """
    [(new_id,)] = connection.execute(RETRY, {"id": job_id}).fetchall()
    return UUID(str(new_id))


def _id_at(time: datetime, plus: int) -> UUID:
    """Give the least UUID of version 7 (RFC 9562, section 5.7) so many milliseconds later."""
    milliseconds = (time - EPOCH) // timedelta(milliseconds=1) + plus
    return UUID(int=min(max(0, milliseconds), 2**48 - 1) << 80)
