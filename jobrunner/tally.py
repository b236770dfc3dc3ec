"""What a runner has done since its start, and how fast."""

from dataclasses import dataclass, field
from time import monotonic

from jobrunner.outcome import Outcome

RATE_SECONDS = 60.0
# How much of a moving average the newest job makes up.
FRESH_SHARE = 0.1


@dataclass
class Tally:
    """Counts outcomes; ``jobs_per_second`` is an average over about a minute."""

    completed: int = 0
    failed: int = 0
    jobs_per_second: float = 0.0
    inference_seconds: float | None = None
    batch_size: float | None = None
    _counted: int = 0
    _counted_at: float = field(default_factory=monotonic)

    def count(self, outcome: Outcome) -> None:
        """Take a recorded outcome into account."""
        if outcome.failure:
            self.failed += 1
            return
        self.completed += 1
        if outcome.seconds is None:
            return
        self.inference_seconds = average(self.inference_seconds, outcome.seconds)
        self.batch_size = average(self.batch_size, outcome.batch_size)

    def measure(self) -> None:
        """Bring the rate up to date."""
        now, total = monotonic(), self.completed + self.failed
        elapsed = now - self._counted_at
        if elapsed > 0:
            rate = (total - self._counted) / elapsed
            self.jobs_per_second += min(1.0, elapsed / RATE_SECONDS) * (rate - self.jobs_per_second)
        self._counted, self._counted_at = total, now


def average(former: float | None, newest: float) -> float:
    """Bring a moving average up to date; the first value is the average."""
    return newest if former is None else former + FRESH_SHARE * (newest - former)
