"""Writes what became of the rows, in their order, as soon as all before them are final."""

from collections import deque
from collections.abc import Iterable
from dataclasses import replace
from time import monotonic
from typing import NamedTuple

from jobrunner.bulk.batch import Batch
from jobrunner.bulk.ndjson_format import write as write_json
from jobrunner.bulk.output import Output
from jobrunner.bulk.rows import FINAL, Format, Outcome, Row
from jobrunner.bulk.state import State, StateFile

# Submitted and not yet written: enough for the runners to have always some, and no more, so
# that a long file fills neither memory nor queue.
WINDOW_ROWS = 20_000
WINDOW_CHARACTERS = 16_000_000

# How many are read at once: about as many as should be final.
LEAST_READ, MOST_READ = 50, 1000

SAFE_SECONDS = 1.0


class Waiting(NamedTuple):
    """A row that was submitted and whose outcome is not written."""

    line: int
    begun: str
    fault: str


class Collector:
    """The rows between input and output."""

    def __init__(
        self, rows: Format, batch: Batch, output: Output, state: State, state_file: StateFile
    ) -> None:
        self._format, self._batch, self._output = rows, batch, output
        self._state, self._state_file = state, state_file
        self.tally = replace(state.tally)
        self._window: deque[Waiting] = deque()
        self._characters = 0
        self._limit = LEAST_READ
        self._safe_at = monotonic()

    @property
    def waiting(self) -> int:
        """How many rows wait for their outcome."""
        return len(self._window)

    def has_room(self) -> bool:
        """Tell whether more may be submitted."""
        return len(self._window) < WINDOW_ROWS and self._characters < WINDOW_CHARACTERS

    def add(self, rows: Iterable[Row]) -> None:
        """Take rows that follow those that wait."""
        for row in rows:
            begun = row.begun if self._output.keeps else ""
            self._window.append(Waiting(row.line, begun, row.fault))
            self._characters += len(begun)

    def collect(self) -> bool:
        """Write what is final, up to the first row that is not; whether more may be there."""
        first = self.tally.written
        found = self._batch.outcomes(first, first + len(self._window), self._limit)
        final = self._in_order(found, all_there=len(found) < self._limit)
        self._write(final)
        full = len(final) >= self._limit
        self._limit = min(MOST_READ, max(LEAST_READ, 2 * len(final)))
        if monotonic() > self._safe_at + SAFE_SECONDS:
            self._make_safe()
        return full and bool(self._window)

    def finish(self) -> None:
        """End the output, which has a head even if it has no rows."""
        self._begin()
        self._make_safe()

    def _make_safe(self) -> None:
        """Keep how far it is: what is written later is written again after a kill."""
        self._output.sync()
        self._state.output_size = self._output.size
        self._state.tally = replace(self.tally)
        if self.tally.written:
            self._state_file.save(self._state, safely=True)
        self._safe_at = monotonic()

    def _in_order(self, found: list[Outcome], *, all_there: bool) -> list[Outcome]:
        """Give the outcomes without a gap: a job that is not there was deleted, or never was."""
        final: list[Outcome] = []
        first = self.tally.written
        for outcome in found:
            final += self._without_jobs(len(final), outcome.position - first)
            if outcome.status not in FINAL:
                return final
            final.append(outcome)
        if all_there:
            final += self._without_jobs(len(final), len(self._window))
        return final

    def _without_jobs(self, start: int, end: int) -> list[Outcome]:
        """Say of places in the window why there is no job."""
        first = self.tally.written
        return [_without_job(first + place, self._window[place]) for place in range(start, end)]

    def _write(self, final: list[Outcome]) -> None:
        if not final:
            return
        self._begin()
        written = []
        for outcome in final:
            waiting = self._window.popleft()
            self._characters -= len(waiting.begun)
            if self._output.keeps:
                written.append(self._format.ended(waiting.begun, outcome))
            self._count(waiting, outcome)
        self._output.write("".join(written))

    def _count(self, waiting: Waiting, outcome: Outcome) -> None:
        if waiting.fault:
            self.tally.invalid += 1
        elif outcome.status == "completed":
            self.tally.completed += 1
        else:
            self.tally.failed += 1

    def _begin(self) -> None:
        """Write the head, not before there is something to write: a fault may stop us first."""
        if not self._output.size:
            self._output.write(self._format.head())


def _without_job(position: int, waiting: Waiting) -> Outcome:
    if waiting.fault:
        code, message = "invalid_input", f"line {waiting.line}: {waiting.fault}"
    else:
        code, message = "deleted", "the job was deleted before its result was read"
    error = write_json({"code": code, "message": message, "retryable": False})
    return Outcome(position, "failed", None, None, error, None, None, code, message)
