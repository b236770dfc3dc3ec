"""``GET /jobs``: the jobs, newest first, a page at a time."""

import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Blueprint, Response, request
from psycopg.rows import dict_row
from pydantic import BaseModel, BeforeValidator, Field

from web import database
from web.answers import answer
from web.schemas import Job, JobPage, Status
from web.validation import check_query

blueprint = Blueprint("pages", __name__)

# The last two conditions follow from the one before; they let the planner see that a partial
# index will do, so that a rare status is not looked for in the whole table.
LIST_JOBS = """
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
        batch_id
    from job
    where
        (%(before)s::uuid is null or id < %(before)s)
        and (%(status)s::text is null or status = %(status)s)
        and (coalesce(%(status)s, '') not in ('pending', 'processing') or finished_at is null)
        and (coalesce(%(status)s, '') <> 'failed' or error is not null)
    order by id desc
    limit %(limit)s
"""


def read_cursor(cursor: str) -> UUID:
    """Read back what ``make_cursor`` made.

    :raises ValueError: when it is anything else.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]{22}", cursor):
        raise ValueError("should be one that the list gave out")
    return UUID(bytes=urlsafe_b64decode(cursor + "=="))


def make_cursor(last: UUID) -> str:
    """Point behind a job of the list, in a form that nobody takes for more than that."""
    return urlsafe_b64encode(last.bytes).decode().rstrip("=")


def read_limit(limit: str | int) -> int:
    """Read a number of jobs.

    :raises ValueError: when it is none, or too many.
    """
    if not re.fullmatch(r"[0-9]{1,4}", str(limit)) or not 1 <= int(limit) <= 1000:
        raise ValueError("should be an integer from 1 to 1000")
    return int(limit)


class PageQuery(BaseModel):
    """Which jobs are wanted."""

    limit: Annotated[int, BeforeValidator(read_limit)] = Field(50, ge=1, le=1000)
    status: Status | None = None
    cursor: Annotated[UUID, BeforeValidator(read_cursor)] | None = None

    def next_url(self, last: UUID) -> str:
        """The address of the page after this one."""
        wanted: dict[str, Any] = {"limit": self.limit}
        if self.status:
            wanted["status"] = self.status
        return "/jobs?" + urlencode(wanted | {"cursor": make_cursor(last)})


@blueprint.get("/jobs")
def list_jobs() -> Response:
    """List jobs; one more than wanted is read, to see whether there is a next page."""
    query = check_query(PageQuery, request.args)
    rows = read(query)
    shown = [Job.model_construct(**row, queue=None) for row in rows[: query.limit]]
    headers = {"Cache-Control": "private, no-cache"}
    next_url = None
    if len(rows) > query.limit:
        next_url = query.next_url(shown[-1].job_id)
        headers["Link"] = f'<{next_url}>; rel="next"'
    return answer(JobPage.model_construct(jobs=shown, next=next_url), headers=headers)


def read(query: PageQuery) -> list[dict[str, Any]]:
    """Read a page of jobs by column, and one job of the page after it."""
    wanted = {"before": query.cursor, "status": query.status, "limit": query.limit + 1}
    with (
        database.get().connection() as connection,
        connection.cursor(row_factory=dict_row) as cursor,
    ):
        return cursor.execute(LIST_JOBS, wanted).fetchall()
