"""One file through the queue: submitted, waited for, and continued if it was interrupted."""

from contextlib import ExitStack
from time import monotonic, sleep
from typing import TextIO

from jobrunner.bar import Bar
from jobrunner.bulk.batch import Batch, check_model
from jobrunner.bulk.collector import Collector
from jobrunner.bulk.feed import Feed
from jobrunner.bulk.lines import Lines
from jobrunner.bulk.opening import Files
from jobrunner.bulk.order import Order, Summary
from jobrunner.bulk.patience import PatientConnection
from jobrunner.errors import DatabaseUnavailable

# The results are looked for, not listened for: notifications would cost the runners, and
# where many jobs are done there is always something.
LEAST_PAUSE, LONGEST_PAUSE = 0.05, 0.2
UNSERVED_SECONDS = 4.0

NO_RUNNER = "No runner serves {model}: start one with `jobrunner start`. Waiting."
GO_ON = "Interrupted: the same command goes on from here."
NO_WAY_BACK = (
    "Interrupted: what is submitted stays, as batch {batch_id}; through a pipe it can not be"
    " continued."
)


def submit(url: str, order: Order, screen: TextIO) -> Summary:
    """Carry out an order, from where an interrupted one has stopped.

    :raises InputError: when the input is not valid.
    :raises ResumeError: when an interrupted submission can not be continued.
    :raises DatabaseUnavailable: when the database is away for long.
    """
    with ExitStack() as stack:
        progress = Bar(screen, "Submitting")
        stack.callback(progress.end)
        connection = PatientConnection(url, progress.note)
        stack.callback(connection.close)
        check_model(connection, order.kind.model)
        return Submission(order, Files(order, stack), connection, progress).run()


class Submission:
    """An order that is being carried out."""

    def __init__(
        self, order: Order, files: Files, connection: PatientConnection, progress: Bar
    ) -> None:
        kind, state_file = order.kind, files.state_file
        state = files.begin(kind)
        if progress.is_seen:
            progress.begin(files.count(kind), state.tally.written)
        self._order, self._progress = order, progress
        self._state, self._state_file = state, state_file
        self._batch = batch = Batch(connection, state.batch_id, kind.model, kind.priority)
        lines = Lines(files.source, order.source)
        rows = kind.read(lines)
        self._feed = Feed(lines, rows, batch, state, state_file, skip_invalid=order.skip_invalid)
        self._collector = Collector(rows, batch, files.output, state, state_file)
        self._looked = False

    def run(self) -> Summary:
        """Submit all; wait for all if that is wanted.

        :raises InputError: when a row is not valid.
        :raises DatabaseUnavailable: when the database is away for long.
        """
        try:
            if self._order.wait:
                self._submit_and_collect()
            else:
                self._submit_only()
        except (KeyboardInterrupt, DatabaseUnavailable):
            self._progress.end()
            self._progress.note(self._way_on())
            raise
        self._state_file.remove()
        return Summary(self._state.batch_id, self._feed.position, self._collector.tally)

    def _submit_only(self) -> None:
        while chunk := self._feed.submit_chunk():
            self._collector.tally.invalid += sum(bool(row.fault) for row in chunk)
            self._progress.show(self._feed.position, _failed(self._collector.tally.invalid))

    def _submit_and_collect(self) -> None:
        """Submit, let the runners work and read what they have done, all at the same time."""
        collector, pause, moved_at = self._collector, LEAST_PAUSE, monotonic()
        while True:
            chunk = self._feed.submit_chunk() if collector.has_room() else []
            collector.add(chunk)
            if not collector.waiting:
                collector.finish()
                return
            before = collector.tally.written
            goes_on = collector.collect() or bool(chunk)
            self._show()
            if goes_on or collector.tally.written > before:
                moved_at = monotonic()
            if goes_on:
                pause = LEAST_PAUSE
                continue
            self._look_for_runner(monotonic() - moved_at)
            sleep(pause)
            pause = min(LONGEST_PAUSE, 1.5 * pause)

    def _show(self) -> None:
        tally = self._collector.tally
        self._progress.show(tally.written, _failed(tally.failed + tally.invalid))

    def _look_for_runner(self, still_seconds: float) -> None:
        """Say once that nothing can happen, if that is so."""
        if self._looked or still_seconds < UNSERVED_SECONDS:
            return
        self._looked = True
        if not self._batch.is_served():
            self._progress.note(NO_RUNNER.format(model=self._order.kind.model))

    def _way_on(self) -> str:
        if self._state_file.path is None:
            return NO_WAY_BACK.format(batch_id=self._state.batch_id)
        return GO_ON


def _failed(count: int) -> str:
    return f"{count:,} failed"
