"""Jobs as they are read from the database, by column."""

from typing import Any
from uuid import UUID

from psycopg.rows import dict_row
from werkzeug.exceptions import NotFound

from web import access, database

Row = dict[str, Any]

# Times are compared here, by the database's clock alone. Who knows a version of a job is given
# none that is the same; each change of a row makes another xmin.
READ_JOBS = """
    select
        id as job_id,
        status,
        result,
        error,
        errors,
        model,
        priority,
        attempt,
        created_at,
        started_at,
        finished_at,
        retry_of,
        batch_id,
        model_version,
        batch_size,
        inference_seconds,
        client_id,
        run_at,
        xmin::text as version,
        extract(epoch from run_at - now())::float8 as due_in,
        extract(epoch from now() - started_at)::float8 as running_for
    from job
    where
        id = any(%(ids)s::uuid[])
        and xmin::text is distinct from
            (%(versions)s::text[])[array_position(%(ids)s::uuid[], id)]
        and (%(client)s::text is null or client_id = %(client)s)
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
