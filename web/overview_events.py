"""``GET /overview/events``: how all stands, as Server-Sent Events.

Who comes is told the whole: what queues, runners and the newest jobs are like, and the last
hour; then what changes. A stream ends within a minute in any case, since it holds a thread.
"""

from collections.abc import Iterator
from contextlib import ExitStack
from time import monotonic

from flask import Blueprint, Response

from web import viewers
from web.events import QUIET_SECONDS, RETRY, STREAM_SECONDS, no_seat, stream
from web.seats import Full
from web.viewers import Viewer

blueprint = Blueprint("overview_events", __name__)


@blueprint.get("/overview/events")
def events() -> Response:
    """Stream how all stands."""
    with ExitStack() as stack:
        try:
            viewer = stack.enter_context(viewers.get().look())
        except Full:
            raise no_seat() from None
        response = stream(follow(viewer))
        response.call_on_close(stack.pop_all().close)
    return response


def follow(viewer: Viewer) -> Iterator[str]:
    """Write what is new, for as long as a stream may last."""
    until = monotonic() + STREAM_SECONDS
    yield RETRY
    while not (viewer.ended or monotonic() > until):
        news = viewer.next(min(until, monotonic() + QUIET_SECONDS))
        yield news or ": still here\n\n"
