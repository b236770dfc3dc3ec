"""Outcomes on their way into the database; none is dropped before it is written.

An outcome whose claim does not hold any more is not written: the job was taken away, and
somebody else's outcome counts. Unless the server has crashed and forgotten the claim: then it is
claimed again first.
"""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic

import psycopg

from jobrunner import log, queue
from jobrunner.activity import Activity
from jobrunner.outcome import Job, Outcome, invalid_output

BATCH = 400
# What a statement of many can bring the database in a few of the seconds that it has.
BATCH_CHARACTERS = 16_000_000
# Where many more outcomes are about to come, so many are written together, or those of so many
# seconds. A statement of a few costs almost as much as one of many.
ENOUGH = 200
HOLD_SECONDS = 0.005
MANY_AHEAD = 50

# What PostgreSQL answers when a value can't be kept, as against when it can't work just now.
Unstorable = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.RaiseException,
    psycopg.errors.StatementTooComplex,
    psycopg.errors.ProgramLimitExceeded,
)


class Outbox:
    """Waits with outcomes until they are recorded, and counts and logs them then."""

    def __init__(
        self,
        count: Callable[[Iterable[Outcome]], None],
        activity: Activity,
        reclaim: Callable[[queue.Connection], bool],
    ) -> None:
        """``reclaim`` claims again what a crash of the server has forgotten, if anything."""
        self._count = count
        self._activity = activity
        self._reclaim = reclaim
        self._outcomes: list[Outcome] = []
        self._since = 0.0

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def jobs(self) -> list[Job]:
        """The jobs whose outcomes wait."""
        return [outcome.job for outcome in self._outcomes]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes in."""
        if not self._outcomes:
            self._since = monotonic()
        self._outcomes += outcomes

    def holds_back(self, ahead: int) -> bool:
        """Whether to wait for more, where so many jobs are about to be done."""
        return (
            0 < len(self._outcomes) < ENOUGH
            and ahead >= MANY_AHEAD
            and monotonic() < self._since + HOLD_SECONDS
        )

    def clear(self) -> int:
        """Forget what waits, since the claims are lost; return how many."""
        count = len(self._outcomes)
        self._outcomes.clear()
        return count

    def write(self, connection: queue.Connection) -> None:
        """Record all that waits, in batches; what was not recorded goes on waiting.

        :raises psycopg.Error: when the database can't take them now.
        """
        while self._outcomes:
            # Each statement has outcomes of one kind: if the next one fails, these are done.
            alike = [outcome for outcome in self._outcomes if is_like(outcome, self._outcomes[0])]
            self._write_batch(connection, alike[: _fitting(alike)])

    def _write_batch(self, connection: queue.Connection, batch: list[Outcome]) -> None:
        """Record a batch; what can't be stored fails alone and does not spoil the others."""
        try:
            left = self._record(connection, batch)
        except Unstorable as error:
            if len(batch) > 1:
                for outcome in batch:
                    self._write_batch(connection, [outcome])
            else:
                self._refuse(batch[0], error)
            return
        # What was claimed again is written in the next turn.
        if left and not self._reclaim(connection):
            self._remove(left)
            _report_lost(left)

    def _record(self, connection: queue.Connection, batch: list[Outcome]) -> list[Outcome]:
        """Record a batch; give those whose claim does not hold."""
        move = queue.fail if batch[0].failure else queue.complete
        moved = move(connection, batch)
        done = [outcome for outcome in batch if outcome.job.id in moved]
        self._remove(done)
        self._count(done)
        self._activity.add_outcomes(done, moved)
        if move is queue.complete:
            _report_completed(done)
        else:
            _report_failed(done, moved)
        return [outcome for outcome in batch if outcome.job.id not in moved]

    def _refuse(self, outcome: Outcome, error: psycopg.Error) -> None:
        """Record a failure for a result that can't be stored; forget one that can't either."""
        self._remove([outcome])
        if outcome.failure:
            log.error("outcome_refused", job_id=outcome.job.id, sqlstate=error.sqlstate)
            return
        failure = invalid_output("the database can not store the result")
        self.add([replace(outcome, result=None, failure=failure)])

    def _remove(self, batch: list[Outcome]) -> None:
        done = {id(outcome) for outcome in batch}
        self._outcomes = [outcome for outcome in self._outcomes if id(outcome) not in done]


def _fitting(outcomes: Sequence[Outcome]) -> int:
    """How many of these may go together: one at least, however large."""
    size = 0
    for count, outcome in enumerate(outcomes[:BATCH]):
        size += len(outcome.result or "")
        if count and size > BATCH_CHARACTERS:
            return count
    return BATCH


def is_like(outcome: Outcome, other: Outcome) -> bool:
    """Whether both are results, or both failures, of the same version of a model."""
    same = outcome.version == other.version
    return same and (outcome.failure is None) == (other.failure is None)


def _report_completed(outcomes: Sequence[Outcome]) -> None:
    rows = [
        (one.job.id, one.job.model, one.job.attempt, one.seconds, one.job.traced)
        for one in outcomes
    ]
    log.info_each("completed", "job_id=%s model=%s attempt=%d seconds=%.3f%s", rows)


def _report_failed(outcomes: Sequence[Outcome], moved: dict[str, str]) -> None:
    for outcome in outcomes:
        move = "failed" if moved[outcome.job.id] == "failed" else "will_retry"
        code = outcome.failure.code if outcome.failure else None
        log.warning(move, **_fields(outcome), code=code)


def _report_lost(outcomes: Iterable[Outcome]) -> None:
    for outcome in outcomes:
        log.warning("claim_lost", **_fields(outcome))


def _fields(outcome: Outcome) -> dict[str, object]:
    job = outcome.job
    fields: dict[str, object] = {"job_id": job.id, "model": job.model, "attempt": job.attempt}
    fields |= {"trace_id": job.trace_id} if job.trace_id else {}
    return fields if outcome.seconds is None else fields | {"seconds": outcome.seconds}
