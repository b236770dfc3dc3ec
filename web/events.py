"""``GET /jobs/<id>/events``: what becomes of a job, as Server-Sent Events.

One event a change that was seen, each with the job as JSON, the last one final. A stream ends
within a minute in any case, since it holds a thread: a browser connects again by itself and
says what it has seen last.

:source: WHATWG HTML, section 9.2, Server-sent events.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic
from zlib import crc32

from flask import Blueprint, Response, request, stream_with_context
from werkzeug.exceptions import ServiceUnavailable

from web import budget, changes
from web.answers import ENCODER
from web.changes import Watch
from web.errors import DatabaseUnavailable
from web.jobs import shown
from web.rows import Row, parse_id, read
from web.seats import Full

blueprint = Blueprint("events", __name__)

MEDIA_TYPE = "text/event-stream"
STREAM_SECONDS = 55.0
# Of silence, until a comment shows that the stream is alive, and whether the client is.
QUIET_SECONDS = 10.0
# In milliseconds: when to connect again.
RETRY = "retry: 1000\n\n"
FULL_RETRY_SECONDS = 5
FULL = "Too many are waiting here just now. Try again in a moment."

HEADERS = {
    "Cache-Control": "private, no-store",
    # For a proxy like nginx: pass each event on at once.
    "X-Accel-Buffering": "no",
}


@blueprint.get("/jobs/<job_id>/events")
def events(job_id: str) -> Response:
    """Stream the changes of a job until it is final; 204 when the client has seen that."""
    row = read(parse_id(job_id))
    seen = request.headers.get("Last-Event-ID") == event_id(row)
    if row["finished_at"] is not None:
        return Response(status=204) if seen else stream(iter([RETRY + event(row)]))
    with ExitStack() as stack:
        try:
            watch = stack.enter_context(changes.get().watch(row))
        except Full:
            raise no_seat() from None
        response = stream(follow(watch, None if seen else row))
        response.call_on_close(stack.pop_all().close)
    return response


def no_seat() -> ServiceUnavailable:
    """Make the answer to who can't be let in."""
    return ServiceUnavailable(FULL, retry_after=FULL_RETRY_SECONDS)


def stream(events: Iterator[str]) -> Response:
    """Make a response of events."""
    return Response(stream_with_context(events), mimetype=MEDIA_TYPE, headers=HEADERS)


def follow(watch: Watch, row: Row | None) -> Iterator[str]:
    """Write a job as it stands, unless that was seen, and then each change."""
    until = monotonic() + STREAM_SECONDS
    yield RETRY + (event(row) if row else "")
    while not (watch.ended or monotonic() > until or (row and row["finished_at"] is not None)):
        row = watch.next(min(until, monotonic() + QUIET_SECONDS))
        yield event(row) if row else ": still here\n\n"


def event(row: Row) -> str:
    """Write a job as an event."""
    budget.renew()
    try:
        job = shown(row)
    except DatabaseUnavailable:
        # Of a pending job: its place in the queue can't be told now.
        job = shown(row, placed=False)
    return f"id: {event_id(row)}\ndata: {ENCODER.encode(job)}\n\n"


def event_id(row: Row) -> str:
    """Name a state of a job: but for how far it is, none comes back."""
    state = f"{row['status']}-{row['attempt']}-{len(row['errors'])}-{row['run_at'].timestamp():.6f}"
    if (progress := row["progress"]) is None:
        return state
    # The word is the model's: a name of ours stays within a line.
    return f"{state}-{progress['fraction']}-{crc32(progress['word'].encode()):08x}"
