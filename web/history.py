"""``GET /history``: the last hour by minutes, as the runners have counted it.

Read once a minute at most a process, whoever looks: a row a model and minute. After an hour
without work that is not soon enough for who has just submitted a first job: until the first
minute with work is over, it is read every few seconds.
"""

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from itertools import accumulate
from threading import Lock
from time import monotonic
from typing import Any

from flask import Blueprint, Response, current_app
from psycopg.rows import dict_row

from web import budget
from web.answers import ENCODER, of_text
from web.database import Database
from web.errors import DatabaseUnavailable
from web.overview_schemas import MINUTES, ModelHistory
from web.overview_schemas import History as HistoryShown
from web.rows import Row

blueprint = Blueprint("history", __name__)

HEADERS = {"Cache-Control": "private, no-cache"}
# Past the minute, until all runners have told what they did in it: they beat every 5 s.
SETTLE_SECONDS = 6.0
# While there is next to nothing to be read, and somebody may wait for it.
SOON_SECONDS = 2.0
MINUTE = timedelta(minutes=1)
PERCENTILE = 0.95
DIGITS = 4

READ_CLOCK = """
    select
        date_trunc('minute', now()) as minute,
        extract(second from now())::float8 as second,
        histogram_bounds() as bounds
"""
READ_MINUTES = """
    select
        model,
        minute,
        completed,
        failed,
        retried,
        pending,
        oldest_pending_seconds,
        waits,
        wait_seconds,
        inferences,
        inference_seconds
    from activity
    where minute > %(now)s - interval '1 hour' and minute <= %(now)s
"""


@blueprint.get("/history")
def history() -> Response:
    """Show the last hour."""
    return of_text(get().text(), headers=HEADERS)


class History:
    """The last hour as it was read last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._text = ""
        self._fresh_until = 0.0
        self._lock = Lock()

    def text(self) -> str:
        """Write it as JSON.

        :raises DatabaseUnavailable: when it has to be read and can't be.
        """
        if not self._lock.acquire(timeout=budget.remaining()):
            raise DatabaseUnavailable
        try:
            if monotonic() >= self._fresh_until:
                self._read()
            return self._text
        finally:
            self._lock.release()

    def _read(self) -> None:
        with (
            self._database.connection() as connection,
            connection.cursor(row_factory=dict_row) as cursor,
        ):
            [clock] = cursor.execute(READ_CLOCK).fetchall()
            rows = cursor.execute(READ_MINUTES, {"now": clock["minute"]}).fetchall()
        self._text = ENCODER.encode(shown(rows, clock["minute"], clock["bounds"]))
        # Before they have told of the last minute that comes soon: of this one it is next.
        settled = (SETTLE_SECONDS - clock["second"]) % 60
        is_new = not any(_has_work(row) for row in rows if row["minute"] < clock["minute"])
        self._fresh_until = monotonic() + (SOON_SECONDS if is_new else settled)


def shown(rows: Sequence[Row], now: datetime, bounds: Sequence[float]) -> HistoryShown:
    """Make of the rows what clients see: all models together, and then each."""
    models = sorted({row["model"] for row in rows})
    first = now - (MINUTES - 1) * MINUTE
    of_all = [of_model(None, rows, first, bounds)]
    of_each = [
        of_model(model, [row for row in rows if row["model"] == model], first, bounds)
        for model in models
    ]
    return HistoryShown.model_construct(first_minute=first, models=of_all + of_each)


def of_model(
    model: str | None, rows: Iterable[Row], first: datetime, bounds: Sequence[float]
) -> ModelHistory:
    """Sum up rows by minute."""
    minutes: list[list[Row]] = [[] for _ in range(MINUTES)]
    for row in rows:
        minutes[(row["minute"] - first) // MINUTE].append(row)
    columns: dict[str, Any] = {
        name: [sum(row[name] for row in found) for found in minutes]
        for name in ("completed", "failed", "retried")
    }
    columns["pending"] = [_known(sum, found, "pending") for found in minutes]
    columns["oldest_pending_seconds"] = [
        _known(max, found, "oldest_pending_seconds") for found in minutes
    ]
    for name, counts in (("wait", "waits"), ("inference", "inferences")):
        histograms = [[*map(sum, zip(*(row[counts] for row in found)))] for found in minutes]  # noqa: B905 - all are of one length
        sums = [sum(row[f"{name}_seconds"] for row in found) for found in minutes]
        columns[f"{name}_seconds"] = [
            _rounded(total / sum(counted)) if sum(counted) else None
            for total, counted in zip(sums, histograms, strict=True)
        ]
        columns[f"{name}_p95_seconds"] = [
            percentile(bounds, counted, PERCENTILE) for counted in histograms
        ]
    return ModelHistory.model_construct(model=model, **columns)


def percentile(bounds: Sequence[float], counts: Sequence[int], part: float) -> float | None:
    """Estimate from a histogram what this part is at most, within a bucket by its middle course.

    What is above the last bound counts as that.
    """
    sums = [*accumulate(counts)]
    if not sums or not sums[-1]:
        return None
    rank = part * sums[-1]
    place = bisect_left(sums, rank)
    if place >= len(bounds):
        return bounds[-1]
    below, lower = (sums[place - 1], bounds[place - 1]) if place else (0, 0.0)
    return _rounded(lower + (bounds[place] - lower) * (rank - below) / counts[place])


def _has_work(row: Row) -> bool:
    """Whether anything was done in a minute, or waited."""
    return any(row[name] for name in ("completed", "failed", "retried", "pending"))


def _known(of: Any, rows: Iterable[Row], name: str) -> float | None:
    values = [row[name] for row in rows if row[name] is not None]
    return _rounded(of(values)) if values else None


def _rounded(value: float) -> float:
    return round(value, DIGITS)


def get() -> History:
    """The history of the current app."""
    found: History = current_app.extensions["history"]
    return found
