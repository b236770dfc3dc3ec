"""How long a request wants its answer held until the job is final: ``?wait=`` or ``Prefer``."""

import math
import re
from typing import Annotated, Any

from flask import request
from pydantic import BaseModel, BeforeValidator, Field

from web import budget, changes
from web.errors import DatabaseUnavailable
from web.rows import Row, read
from web.seats import Full
from web.validation import check_query

MAX_SECONDS = 30

# RFC 7240: preferences are separated by commas, and what is not understood is passed over.
PREFER_WAIT = re.compile(r"(?:^|,)\s*wait\s*=\s*\"?(\d{1,9})\"?\s*(?=[,;]|$)", re.IGNORECASE)

# As JSON writes it.
NUMBER = re.compile(r"\d{1,9}(\.\d{1,20})?([eE][+-]?\d{1,3})?", re.ASCII)


def read_seconds(value: Any) -> float:
    """Read a number of seconds.

    :raises ValueError: when it is none, or too many.
    """
    if not NUMBER.fullmatch(str(value)) or float(value) > MAX_SECONDS:
        raise ValueError(f"should be a number of seconds from 0 to {MAX_SECONDS}")
    return float(value)


class WaitQuery(BaseModel):
    """What the address says of it."""

    wait: Annotated[float, BeforeValidator(read_seconds)] = Field(0, ge=0, le=MAX_SECONDS)


class Wait:
    """What a request asked for. ``preferred``: by the header, which is to be acknowledged."""

    def __init__(self, seconds: float, preferred: bool) -> None:
        self.seconds = seconds
        self.preferred = preferred

    @property
    def headers(self) -> dict[str, str]:
        """What says that the preference was followed."""
        if not self.preferred:
            return {}
        return {"Preference-Applied": f"wait={math.floor(self.seconds)}"}


NO_WAIT = Wait(0, preferred=False)


def wanted() -> Wait:
    """Read how long the current request wants to wait.

    :raises Invalid: when the address says nonsense; a header that does is passed over.
    """
    prefer = request.environ.get("HTTP_PREFER", "")
    if not (prefer or request.environ.get("QUERY_STRING")):
        return NO_WAIT
    query = check_query(WaitQuery, request.args)
    preferred = PREFER_WAIT.search(prefer)
    if query.wait or not preferred:
        return Wait(query.wait, preferred=False)
    return Wait(min(int(preferred[1]), MAX_SECONDS), preferred=True)


def until_final(row: Row, wait: Wait) -> Row:
    """Wait for a job to be final, and give it as it stood last."""
    if row["finished_at"] is not None or wait.seconds <= 0:
        return row
    try:
        row = changes.get().last(row, wait.seconds)
    except Full:
        # It was not followed, so nothing says that it was.
        wait.preferred = False
        return row
    budget.renew()
    if row["finished_at"] is not None:
        return row
    try:
        # What was told last may be old: nothing may have been heard for a while.
        return read(row["job_id"])
    except DatabaseUnavailable:
        return row
