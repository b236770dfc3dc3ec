"""``GET /jobs``: the jobs, newest first, a page at a time."""

import json
import re
from datetime import UTC, datetime, timedelta
from typing import Annotated, Any
from urllib.parse import urlencode
from uuid import UUID

from flask import Blueprint, Response, request
from pydantic import BaseModel, BeforeValidator, Field

from web import access, cursors, database, json_rows
from web.answers import conditional, of_text
from web.json_rows import JsonRow
from web.problems import Invalid
from web.schemas import Job, Status
from web.validation import check_query

blueprint = Blueprint("pages", __name__)

# In the order of the answer.
FIELDS = tuple(Job.model_fields)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# A job's id is made a moment before or after its created_at.
SLACK_MILLISECONDS = 1000

TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,6})?)?(Z|[+-]\d\d:\d\d)", re.ASCII)

# Some conditions follow from the one before; they let the planner see that a partial index
# will do, as sql/0024_index_job_lists.sql writes it, or that ids are in the order of time, so
# that what is rare or old is not looked for in the whole table. What is in work is found by the
# claims that took it. For that it has to know the values: it plans each time anew.
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
        batch_id,
        model_version,
        batch_size,
        inference_seconds
    from job
    where
        (%(before)s::uuid is null or id < %(before)s)
        and (%(from_id)s::uuid is null or id >= %(from_id)s)
        and (%(to_id)s::uuid is null or id <= %(to_id)s)
        and (%(created_after)s::timestamptz is null or created_at > %(created_after)s)
        and (%(created_before)s::timestamptz is null or created_at < %(created_before)s)
        and (%(client)s::text is null or client_id = %(client)s)
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
        and (
            coalesce(%(status)s, '') <> 'failed'
            or case
                when %(client)s::text is null then coalesce(error, 'null') <> 'null'
                else error is not null
            end
        )
    order by id desc
    limit %(limit)s
"""


def read_limit(limit: str | int) -> int:
    """Read a number of jobs.

    :raises ValueError: when it is none, or too many.
    """
    if not re.fullmatch(r"[0-9]{1,4}", str(limit)) or not 1 <= int(limit) <= 1000:
        raise ValueError("should be an integer from 1 to 1000")
    return int(limit)


def read_time(text: str | datetime) -> datetime:
    """Read a time as RFC 3339 writes it. (A plus sign that was not escaped arrives as a blank.)

    :raises ValueError: when it is none.
    """
    written = str(text).replace(" ", "+")
    if not TIME.fullmatch(written):
        raise ValueError("should be a time like 2026-01-31T12:00:00Z")
    return datetime.fromisoformat(written)


def read_id(text: str | UUID) -> UUID:
    """Read an id as it was given out.

    :raises ValueError: when it is none.
    """
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", str(text)):
        raise ValueError("should be a UUID")
    return UUID(str(text))


Time = Annotated[datetime, BeforeValidator(read_time)]


class PageQuery(BaseModel):
    """Which jobs are wanted."""

    limit: Annotated[int, BeforeValidator(read_limit)] = Field(50, ge=1, le=1000)
    status: Status | None = None
    model: str | None = Field(None, min_length=1, pattern=r"^[^\x00]+$")
    batch_id: Annotated[UUID, BeforeValidator(read_id)] | None = None
    created_after: Time | None = None
    created_before: Time | None = None
    cursor: str | None = None

    @property
    def wanted(self) -> dict[str, Any]:
        """The parameters of the statement, for one job more than a page has."""
        return self.model_dump(exclude={"cursor", "limit"}) | {
            "limit": self.limit + 1,
            "before": self._cursor(),
            "from_id": self.created_after and id_at(self.created_after, -SLACK_MILLISECONDS),
            "to_id": self.created_before and id_at(self.created_before, SLACK_MILLISECONDS),
        }

    def next_url(self, last: UUID) -> str:
        """The address of the page after this one."""
        given = self.model_dump(mode="json", exclude_none=True)
        return "/jobs?" + urlencode(given | {"cursor": cursors.get().write(last)})

    def _cursor(self) -> UUID | None:
        if self.cursor is None:
            return None
        try:
            return cursors.get().read(self.cursor)
        except ValueError as error:
            raise Invalid([{"parameter": "cursor", "detail": str(error)}]) from None


def id_at(time: datetime, plus: int) -> UUID:
    """Give the least UUID of version 7 (RFC 9562, section 5.7) so many milliseconds later."""
    milliseconds = (time - EPOCH) // timedelta(milliseconds=1) + plus
    return UUID(int=min(max(0, milliseconds), 2**48 - 1) << 80)


@blueprint.get("/jobs")
def list_jobs() -> Response:
    """List jobs; one more than wanted is read, to see whether there is a next page."""
    query = check_query(PageQuery, request.args)
    rows = read(query)
    shown = [json_rows.write(row, FIELDS) for row in rows[: query.limit]]
    headers = {"Cache-Control": "private, no-cache"}
    next_url = None
    if len(rows) > query.limit:
        next_url = query.next_url(UUID(json.loads(str(rows[query.limit - 1]["job_id"]))))
        headers["Link"] = f'<{next_url}>; rel="next"'
    body = f'{{"jobs": [{", ".join(shown)}], "next": {json.dumps(next_url)}}}'
    return conditional(of_text(body, headers=headers))


def read(query: PageQuery) -> list[JsonRow]:
    """Read a page of jobs, and one job of the page after it; each column is JSON."""
    with (
        database.get().connection() as connection,
        json_rows.cursor(connection) as cursor,
    ):
        wanted = query.wanted | {"client": access.scope()}
        return cursor.execute(LIST_JOBS, wanted, prepare=False).fetchall()
