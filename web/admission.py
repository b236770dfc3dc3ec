"""Which jobs are let into the queue."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

from werkzeug.exceptions import NotFound, TooManyRequests

from web import access, backlog, quotas
from web.backlog import Snapshot
from web.problems import Invalid

FULL_RETRY_SECONDS = 10
# However long a client waited.
TOO_MANY = "should be at most {}: no more jobs of this API key may wait"
UNKNOWN_MODEL = "is not a model that is served here"


def require_model(name: str) -> None:
    """Make sure that a model was ever registered.

    :raises NotFound: when it was not.
    """
    if name not in backlog.get().now(name).crews:
        raise NotFound("There is no such model.")


@contextmanager
def admitted(models: Mapping[str, str]) -> Iterator[float | None]:
    """Let jobs into the queue, to be inserted in this block; in how many seconds the last of
    them should be done.

    ``models`` says of which model each is, by where in the body that stands, as a JSON Pointer.

    :raises Invalid: naming each whose model was never there; when they are too many for ever.
    :raises TooManyRequests: when the queue is full, or the client has as many there as it may.
    """
    queue, wanted = backlog.get(), dict[str, int]()
    for model in models.values():
        wanted[model] = wanted.get(model, 0) + 1
    for model in wanted:
        snapshot = queue.now(model)
    unknown = [place for place, model in models.items() if model not in snapshot.crews]
    if unknown:
        raise Invalid([{"pointer": place, "detail": UNKNOWN_MODEL} for place in unknown])
    if queue.full(snapshot):
        raise TooManyRequests("The queue is full. Try again later.", retry_after=FULL_RETRY_SECONDS)
    caller = access.caller()
    limited = caller.max_pending is not None
    if caller.max_pending is not None and len(models) > caller.max_pending:
        raise Invalid([{"pointer": "/items", "detail": TOO_MANY.format(caller.max_pending)}])
    if limited and not quotas.get().admits(caller, len(models)):
        raise TooManyRequests(
            f"As many jobs of {caller.client_id} are waiting as may. Try again later.",
            retry_after=FULL_RETRY_SECONDS,
        )
    try:
        yield latest(snapshot, wanted)
    finally:
        if limited:
            quotas.get().settle(caller, len(models))


def latest(snapshot: Snapshot, wanted: Mapping[str, int]) -> float | None:
    """In how many seconds the last of so many jobs of each model should be done."""
    etas = [
        snapshot.crew(model).eta(snapshot.pending.get(model, 0) + count - 1)
        for model, count in wanted.items()
    ]
    return None if None in etas else max(eta for eta in etas if eta is not None)
