"""When a worker is started anew, after one could not be: after a pause that grows."""

from time import monotonic

from jobrunner import log
from jobrunner.jitter import jittered

MAX_PAUSE_SECONDS = 60.0


class Restarts:
    """Of the workers of one model."""

    def __init__(self, model: str) -> None:
        # Why there are too few of them just now; None where nothing is wrong.
        self.trouble: str | None = None
        # When one may be started, by the monotonic clock.
        self.at = 0.0
        self._model = model
        self._failures = 0

    @property
    def due(self) -> bool:
        """Whether one may be started now."""
        return monotonic() >= self.at

    def put_off(self, reason: str) -> None:
        """Start none for a while, since that has just failed."""
        self._failures += 1
        pause = jittered(min(MAX_PAUSE_SECONDS, 2.0**self._failures))
        self.at = monotonic() + pause
        self.trouble = reason
        log.warning("setup_failed", model=self._model, reason=reason, retry_in=pause)

    def succeeded(self) -> None:
        """Forget the failures: one has loaded the model."""
        self._failures, self.trouble = 0, None
