"""Which request a line of the log or an answer is of, and to what trace it belongs.

A request has the id that its client or proxy gave it in ``X-Request-ID``, or one that is made
here; the answer repeats it. Who traces sends ``traceparent``, which is kept with the job.

:source: W3C Trace Context, section 3.2, Traceparent Header.
"""

import re
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

from flask import request

from web import logs

HEADER = "X-Request-ID"
# What a client may call it: nothing that a line of a log could be broken with.
GIVEN_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
# A version to come may have more fields behind these; ff is none.
TRACEPARENT = re.compile(
    r"(?!ff)([0-9a-f]{2})-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(-.*)?"
)


def begin(environ: dict[str, Any]) -> str:
    """Take the id that a request came with, or make one."""
    given = environ.get("HTTP_X_REQUEST_ID", "")
    made: str = given if GIVEN_ID.fullmatch(given) else uuid4().hex
    environ[logs.REQUEST_ID] = made
    return made


def traceparent() -> str | None:
    """What the current request says of its trace, as version 00; None where that is nothing."""
    if not (given := request.environ.get("HTTP_TRACEPARENT")):
        return None
    if not (parts := TRACEPARENT.fullmatch(given)):
        return None
    version, trace, parent, flags, more = parts.groups()
    return None if more and version == "00" else f"00-{trace}-{parent}-{flags}"


def fields() -> dict[str, str]:
    """What a line of the log says of the current request."""
    found = {"request_id": str(request.environ.get(logs.REQUEST_ID, "-"))}
    if trace := traceparent():
        found["trace_id"] = trace[3:35]
    return found


def log_submitted(move: str, **more: Any) -> None:
    """Log what the current request has submitted, when it has been answered: nobody waits for
    a line of the log. Where that is all, it needs no other line.
    """
    request.environ[logs.SUBMITTED] = (datetime.now(UTC), move, more | fields())


def log_now() -> None:
    """Log at once what it has submitted, since its answer will be long in coming."""
    logs.tell_submitted(request.environ)
