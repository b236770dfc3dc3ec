"""Outcomes on their way into the database; none is dropped before it is written.

An outcome whose claim does not hold any more is not written: the job was taken away, and
somebody else's outcome counts.
"""

from collections.abc import Sequence

import psycopg

from jobrunner import log, queue
from jobrunner.outcome import Job, Outcome, invalid_output
from jobrunner.tally import Tally

BATCH = 200

# What PostgreSQL answers when a value can't be kept, as against when it can't work just now.
Unstorable = (
    psycopg.DataError,
    psycopg.IntegrityError,
    psycopg.errors.StatementTooComplex,
    psycopg.errors.ProgramLimitExceeded,
)


class Outbox:
    """Waits with outcomes until they are recorded, and counts and logs them then."""

    def __init__(self, tally: Tally) -> None:
        self._tally = tally
        self._outcomes: list[Outcome] = []

    def __len__(self) -> int:
        return len(self._outcomes)

    @property
    def jobs(self) -> list[Job]:
        """The jobs whose outcomes wait."""
        return [outcome.job for outcome in self._outcomes]

    def add(self, outcomes: Sequence[Outcome]) -> None:
        """Take outcomes in."""
        self._outcomes += outcomes

    def clear(self) -> int:
        """Forget what waits, since the claims are lost; return how many."""
        count = len(self._outcomes)
        self._outcomes.clear()
        return count

    def write(self, connection: queue.Connection) -> None:
        """Record all that waits, in batches; what was not recorded goes on waiting.

        :raises psycopg.Error: when the database can't take them now.
        """
        while batch := self._outcomes[:BATCH]:
            try:
                _write(connection, batch, self._tally)
            except Unstorable:
                self._write_one_by_one(connection, batch)
            del self._outcomes[: len(batch)]

    def _write_one_by_one(self, connection: queue.Connection, batch: list[Outcome]) -> None:
        """A result that can't be stored fails alone and does not spoil its batch."""
        for outcome in batch:
            try:
                _write(connection, [outcome], self._tally)
            except Unstorable:
                failure = invalid_output("the database can not store the result")
                refused = Outcome(outcome.job, outcome.seconds, failure=failure)
                _write(connection, [refused], self._tally)


def _write(connection: queue.Connection, batch: list[Outcome], tally: Tally) -> None:
    results = [outcome for outcome in batch if not outcome.failure]
    failures = [outcome for outcome in batch if outcome.failure]
    moved = queue.complete(connection, results) if results else {}
    moved |= queue.fail(connection, failures) if failures else {}
    for outcome in batch:
        _report(outcome, moved.get(outcome.job.id), tally)


def _report(outcome: Outcome, status: str | None, tally: Tally) -> None:
    job = outcome.job
    fields = {"job_id": job.id, "model": job.model, "attempt": job.attempt}
    fields["seconds"] = outcome.seconds
    if status is None:
        log.warning("claim_lost", **fields)
        return
    tally.count(outcome)
    if outcome.failure:
        move = "failed" if status == "failed" else "will_retry"
        log.warning(move, **fields, code=outcome.failure.code)
    else:
        log.info("completed", **fields)
