"""What a runner has done since it last told the database: see sql/0022_create_activity.sql.

The functions take an autocommit connection.
"""

import json
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from operator import add
from typing import Any

import psycopg

from jobrunner.database import LOCK_SECONDS, brief
from jobrunner.outcome import Outcome

Connection = psycopg.Connection[Any]

READ_BOUNDS = "select histogram_bounds(), batch_size_bounds()"

# Rows in the order of their key, so that two runners do not lock each other out.
RECORD = """
    insert into activity (
        model, minute, completed, failed, retried, released, rescued,
        waits, wait_seconds, inferences, inference_seconds, calls,
        batch_sizes, batched
    )
    select
        done.model,
        span.minute,
        done.completed,
        done.failed,
        done.retried,
        done.released,
        done.rescued,
        done.waits,
        done.wait_seconds,
        done.inferences,
        done.inference_seconds,
        done.calls,
        done.batch_sizes,
        done.batched
    from jsonb_to_recordset(%(rows)s::jsonb) as done (
        model text,
        completed bigint,
        failed bigint,
        retried bigint,
        released bigint,
        rescued bigint,
        waits bigint[],
        wait_seconds double precision,
        inferences bigint[],
        inference_seconds double precision,
        calls double precision,
        batch_sizes bigint[],
        batched bigint
    )
    cross join (
        values
            ('-infinity'::timestamptz),
            (date_trunc('minute', clock_timestamp()))
    ) as span (minute)
    order by done.model, span.minute
    on conflict (model, minute) do update
    set
        completed = activity.completed + excluded.completed,
        failed = activity.failed + excluded.failed,
        retried = activity.retried + excluded.retried,
        released = activity.released + excluded.released,
        rescued = activity.rescued + excluded.rescued,
        waits = add_counts(activity.waits, excluded.waits),
        wait_seconds = activity.wait_seconds + excluded.wait_seconds,
        inferences = add_counts(activity.inferences, excluded.inferences),
        inference_seconds = activity.inference_seconds + excluded.inference_seconds,
        calls = activity.calls + excluded.calls,
        batch_sizes = add_counts(activity.batch_sizes, excluded.batch_sizes),
        batched = activity.batched + excluded.batched
"""

DELETE_OLD = """
    delete from activity
    where
        minute < now() - interval '2 days'
        and minute > '-infinity'
"""


@dataclass
class Counts:
    """What was done for one model; the lists are histograms."""

    waits: list[int]
    inferences: list[int]
    batch_sizes: list[int]
    completed: int = 0
    failed: int = 0
    retried: int = 0
    released: int = 0
    rescued: int = 0
    wait_seconds: float = 0.0
    inference_seconds: float = 0.0
    # Of the model, as ``batch_sizes`` has them by how many jobs each had, and these jobs.
    calls: int = 0
    batched: int = 0

    def merge(self, other: "Counts") -> None:
        """Count what was counted there as well."""
        for name, theirs in vars(other).items():
            ours = getattr(self, name)
            both = [*map(add, ours, theirs)] if isinstance(ours, list) else ours + theirs
            setattr(self, name, both)


class Activity:
    """Counts by model until they are recorded."""

    def __init__(self) -> None:
        self._bounds: Sequence[float] = ()
        self._size_bounds: Sequence[int] = ()
        # By model and size of their call: jobs whose call is not counted yet, since those of one
        # call need not end together.
        self._ended: dict[tuple[str, int], int] = {}
        self._counts: dict[str, Counts] = {}

    def begin(self, connection: Connection) -> None:
        """Learn the bounds of the histograms; nothing can be counted before."""
        if not self._bounds:
            [bounds] = connection.execute(READ_BOUNDS).fetchall()
            self._bounds, self._size_bounds = bounds

    def of(self, model: str) -> Counts:
        """The counts of a model, to add to."""
        counts = self._counts.get(model)
        if counts is None:
            places, sizes = len(self._bounds) + 1, len(self._size_bounds) + 1
            counts = self._counts[model] = Counts([0] * places, [0] * places, [0] * sizes)
        return counts

    def add_waits(self, model: str, waits: Iterable[float]) -> None:
        """Count how many seconds jobs have waited for their claim."""
        counts = self.of(model)
        for seconds in waits:
            counts.waits[bisect_left(self._bounds, seconds)] += 1
            counts.wait_seconds += seconds

    def add_outcomes(self, outcomes: Iterable[Outcome], statuses: Mapping[str, str]) -> None:
        """Count attempts by the status that their jobs have now, and their inferences."""
        for outcome in outcomes:
            model = outcome.job.model
            counts, status = self.of(model), statuses[outcome.job.id]
            if status == "completed":
                counts.completed += 1
            elif status == "failed":
                counts.failed += 1
            else:
                counts.retried += 1
            if (seconds := outcome.seconds) is not None:
                counts.inferences[bisect_left(self._bounds, seconds)] += 1
                counts.inference_seconds += seconds
                call = (model, outcome.batch_size)
                self._ended[call] = self._ended.get(call, 0) + 1

    def add_released(self, model: str, status: str) -> None:
        """Count a start that was handed back, by the status that its job has now."""
        if status == "failed":
            self.of(model).failed += 1
        else:
            self.of(model).released += 1

    def add_rescued(self, model: str, status: str) -> None:
        """Count a job that was freed from a dead runner, and has that status now."""
        counts = self.of(model)
        counts.rescued += 1
        if status == "failed":
            counts.failed += 1
        else:
            counts.retried += 1

    def record(self, connection: Connection, lock_seconds: float = LOCK_SECONDS) -> None:
        """Add all that was counted to what the database knows, and begin anew.

        Who holds the rows is waited for so long.

        :raises psycopg.Error: when that can't be done now; the counts stay.
        """
        self._count_calls()
        if not self._counts:
            return
        # More is counted while the answer is waited for.
        told, self._counts = self._counts, {}
        rows = [{"model": model} | asdict(counts) for model, counts in told.items()]
        try:
            with brief(connection, lock_seconds):
                connection.execute(RECORD, {"rows": json.dumps(rows)})
        except psycopg.Error:
            for model, counts in told.items():
                self.of(model).merge(counts)
            raise

    def _count_calls(self) -> None:
        """Count a call once there are as many jobs as it had."""
        for (model, size), jobs in self._ended.items():
            calls, self._ended[model, size] = divmod(jobs, size)
            if calls:
                counts = self.of(model)
                counts.batch_sizes[bisect_left(self._size_bounds, size)] += calls
                counts.calls += calls
                counts.batched += calls * size


def delete_old(connection: Connection) -> None:
    """Delete the minutes that are too old for a plot; the row of all time stays."""
    with brief(connection):
        connection.execute(DELETE_OLD)
