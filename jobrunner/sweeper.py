"""What a runner does for all of them, now and then: it rescues the jobs of those that are dead, and
deletes what is old."""

from collections.abc import Callable, Iterable
from datetime import timedelta
from time import monotonic

from jobrunner import activity, heartbeat, janitor, log, progress, queue
from jobrunner.activity import Activity
from jobrunner.errors import DatabaseError
from jobrunner.jitter import jittered
from jobrunner.judge import Judge
from jobrunner.refusals import unless_refused

SWEEP_SECONDS = 1.0
RESCUE_SECONDS = 10.0
JANITOR_SECONDS = 60.0


class Sweeper:
    """``due`` is when to sweep, by the monotonic clock; 0 is at once.

    ``look_soon`` is called when there may be jobs to claim, ``wake_another`` lets another runner
    look for jobs of models, and ``release_unknown`` hands back what the database says is ours and
    we know nothing of.
    """

    def __init__(
        self,
        retention: timedelta,
        activity: Activity,
        look_soon: Callable[[], None],
        wake_another: Callable[[queue.Connection, Iterable[str]], None],
        release_unknown: Callable[[queue.Connection], None],
    ) -> None:
        self.due = 0.0
        # Why it deletes nothing, for the row of the runner.
        self.trouble: str | None = None
        self._retention = retention
        self._activity = activity
        self._look_soon = look_soon
        self._wake_another = wake_another
        self._release_unknown = release_unknown
        self._judge = Judge()
        self._rescue_at = 0.0
        self._clean_at = 0.0

    def come_back(self) -> None:
        """Look at once, after an outage; what was seen of the others before proves nothing."""
        self._judge.lose_contact()
        self.due = self._rescue_at = 0.0

    def sweep(self, connection: queue.Connection, runner: str) -> None:
        """Do what it is time for, on behalf of the runner of that id.

        :raises psycopg.Error: when the database can't do it now.
        """
        now = monotonic()
        if now < self.due:
            return
        dead = self._judge.sweep(connection, runner)
        self.due = min(now + jittered(SWEEP_SECONDS), self._judge.due)
        for other in dead:
            log.warning("runner_lost", runner=other, found_by=runner)
            # What it had kept others from is free, whether it held anything or not.
            self._look_soon()
        if dead or now >= self._rescue_at:
            self._rescue_at = now + jittered(RESCUE_SECONDS)
            self._rescue(connection, runner)
            # A claim may take effect long after its connection was given up.
            self._release_unknown(connection)
        if now >= self._clean_at:
            self._clean(connection, runner)

    def _rescue(self, connection: queue.Connection, runner: str) -> None:
        rescued = queue.rescue(connection)
        for job in rescued:
            self._activity.add_rescued(job.model, job.status)
            log.warning("rescued", job_id=job.id, attempt=job.attempt, status=job.status)
            self._look_soon()
        if rescued:
            # We may have no worker free.
            self._wake_another(
                connection, {job.model for job in rescued if job.status == "pending"}
            )
            unless_refused(queue.delete_spent, connection, "spent_not_deleted", runner)

    def _clean(self, connection: queue.Connection, runner: str) -> None:
        """Delete a batch; go on soon where it was a full one."""
        heartbeat.delete_lost(connection)
        unless_refused(queue.delete_spent, connection, "spent_not_deleted", runner)
        unless_refused(activity.delete_old, connection, "activity_not_deleted", runner)
        unless_refused(progress.delete_old, connection, "progress_not_deleted", runner)
        deleted, self.trouble = 0, None
        try:
            deleted = janitor.clean(connection, self._retention)
        except DatabaseError as error:
            log.warning("janitor_refused", runner=runner, reason=error)
            self.trouble = f"deletes no old jobs: {error}"
        if deleted:
            log.info("cleaned", runner=runner, deleted=deleted)
        pause = SWEEP_SECONDS if deleted == janitor.BATCH else JANITOR_SECONDS
        self._clean_at = monotonic() + jittered(pause)
