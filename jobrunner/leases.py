"""The lease tokens of a runner's claims, for as long as something that they claimed is in hand."""

from collections.abc import Callable, Collection, Iterable

from jobrunner.outcome import Job

# To look what is in hand is not for each claim, of which one job waits.
MANY = 4


class Leases:
    """Those that the table ``job_claim`` has of a runner."""

    def __init__(self, in_hand: Callable[[], Iterable[Job]]) -> None:
        self._in_hand = in_hand
        self._tokens: set[str] = set()

    @property
    def spent(self) -> set[str]:
        """Those by which nothing is held any more, looked for once there are a few."""
        if len(self._tokens) < MANY:
            return set()
        return self._tokens - {job.lease_token for job in self._in_hand()}

    def add(self, jobs: Iterable[Job]) -> None:
        """Keep those of jobs that were claimed."""
        self._tokens.update(job.lease_token for job in jobs)

    def lose(self) -> None:
        """Keep none: others see to what we held."""
        self._tokens.clear()

    def forget(self, tokens: Collection[str]) -> None:
        """Keep these no longer: they were deleted."""
        self._tokens.difference_update(tokens)
