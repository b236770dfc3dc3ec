"""Jobs as they are read from the database, by column."""

from typing import Any
from uuid import UUID

from psycopg.rows import dict_row
from werkzeug.exceptions import NotFound

from web import access, database

Row = dict[str, Any]

# Times are compared here, by the database's clock alone. Who knows a version of a job is given
# none that is the same; each change of a row makes another xmin. (Not after a crash that has
# forgotten a claim: its number is given away again, be it to the outcome of the same job.)
READ_JOBS = """
    select
        job.id as job_id,
        job.status,
        job.result,
        job.error,
        job.errors,
        job.model,
        job.priority,
        job.attempt,
        job.created_at,
        job.started_at,
        job.finished_at,
        job.retry_of,
        job.batch_id,
        job.model_version,
        job.batch_size,
        job.inference_seconds,
        job.client_id,
        job.run_at,
        said.version,
        case
            when job_progress.job_id is not null
                then
                    jsonb_build_object(
                        'fraction', job_progress.fraction,
                        'word', job_progress.word
                    )
        end as progress,
        extract(epoch from job.run_at - now())::float8 as due_in,
        extract(epoch from now() - job.started_at)::float8 as running_for
    from job
    left join job_progress
        on
            job.id = job_progress.job_id
            and job.attempt = job_progress.attempt
            and job.status = 'processing'
            and job_progress.updated_at >= job.started_at
    cross join lateral (
        select
            concat_ws('-', job.xmin, job.status, job.attempt, job_progress.xmin) as version
    ) as said
    where
        job.id = any(%(ids)s::uuid[])
        and said.version is distinct from
            (%(versions)s::text[])[array_position(%(ids)s::uuid[], job.id)]
        and (%(client)s::text is null or job.client_id = %(client)s)
"""


def read(job_id: UUID) -> Row:
    """Read a job by column, if the current request may see it.

    :raises NotFound: when there is none.
    """
    with (
        database.get().connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        values = {"ids": [job_id], "versions": [], "client": access.scope()}
        row = cursor.execute(READ_JOBS, values).fetchone()
    if row is None:
        raise no_such("job")
    return row


def unread(job_id: UUID) -> Row:
    """A job of which nothing is known but that it is there: whatever is read of it is news."""
    return {"job_id": job_id, "version": "", "finished_at": None}


def parse_id(text: str, what: str = "job") -> UUID:
    """Read the id of a job, or of something else, as it was given out.

    :raises NotFound: when it can't be one.
    """
    try:
        job_id = UUID(text)
    except ValueError:
        raise no_such(what) from None
    if str(job_id) != text.lower():
        raise no_such(what)
    return job_id


def no_such(what: str) -> NotFound:
    """Make the answer to an id that is not there."""
    return NotFound(f"There is no such {what}.")
