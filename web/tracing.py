"""Which request a line of the log or an answer is of, and to what trace it belongs.

A request has the id that its client or proxy gave it in ``X-Request-ID``, or one that is made
here; the answer repeats it. Who traces sends ``traceparent``, which is kept with the job.

:source: W3C Trace Context, section 3.2, Traceparent Header.
"""

import re
from uuid import uuid4

from flask import Flask, Response, g, request

REQUEST_ID = "X-Request-ID"
# What a client may call it: nothing that a line of a log could be broken with.
GIVEN_ID = re.compile(r"[A-Za-z0-9._~+/=:@-]{1,128}")
# A version to come may have more fields behind these; ff is none.
TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?"
)


def register(app: Flask) -> None:
    """Give each request of the app its id."""
    app.before_request(begin)
    app.after_request(tell)


def begin() -> None:
    """Take the id that the request came with, or make one."""
    given = request.headers.get(REQUEST_ID, "")
    g.request_id = given if GIVEN_ID.fullmatch(given) else uuid4().hex
    # For the line that gunicorn writes when all is done.
    request.environ["jobrunner.request_id"] = g.request_id


def tell(response: Response) -> Response:
    """Say in the answer what the request is called."""
    response.headers[REQUEST_ID] = g.request_id
    return response


def traceparent() -> str | None:
    """What the current request says of its trace, as version 00; None where that is nothing."""
    parts = TRACEPARENT.fullmatch(request.headers.get("traceparent", ""))
    return f"00-{parts[1]}-{parts[2]}-{parts[3]}" if parts else None


def fields() -> dict[str, str]:
    """What a line of the log says of the current request."""
    found = {"request_id": str(g.request_id)}
    if trace := traceparent():
        found["trace_id"] = trace[3:35]
    return found
