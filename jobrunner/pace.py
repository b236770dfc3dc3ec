"""How long the jobs of a model take, and so how many a worker should have ahead."""

from jobrunner.outcome import Outcome
from jobrunner.tally import average

# So much work a worker has ahead: more than the runner is ever away to talk to the database.
AHEAD_SECONDS = 0.05
MAX_AHEAD = 400
# As JSON, of all of them.
MAX_AHEAD_CHARACTERS = 2_000_000
# While a batch takes no longer, the next one is there before it is done: to claim and to write
# takes a few milliseconds, in which the worker would have nothing to do.
SLOW_BATCH_SECONDS = 0.2


class Pace:
    """Moving averages; ``job_seconds`` is None until a job has been done."""

    def __init__(self) -> None:
        self.job_seconds: float | None = None
        # Of an input.
        self._characters: float | None = None

    def note(self, outcome: Outcome) -> None:
        """Take an outcome into account, of a call that may have had others."""
        if outcome.seconds is not None:
            seconds = outcome.seconds / outcome.batch_size
            self.job_seconds = average(self.job_seconds, seconds)
            self._characters = average(self._characters, len(outcome.job.input))

    def ahead(self, batch_size: int) -> int:
        """How many jobs a worker should have after those that it is on, in whole batches."""
        if self.job_seconds is None:
            return 0
        most = min(MAX_AHEAD, int(MAX_AHEAD_CHARACTERS / max(1, self._characters or 0)))
        batch_seconds = max(self.job_seconds, 1e-6) * batch_size
        batches = min(max(1, most // batch_size), int(AHEAD_SECONDS / batch_seconds))
        if batch_size > 1 and batch_seconds < SLOW_BATCH_SECONDS:
            batches = max(1, batches)
        return batch_size * batches
