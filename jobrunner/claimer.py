"""Claims jobs for the workers, and knows when to look for the next ones.

A runner that finds too few goes to sleep: it asks for a notification at the next insert. A
notification is a hint, so it looks again shortly after, polls, and looks when the next job is
due. Busy runners are not notified: they look when workers are done.
"""

from functools import partial
from time import monotonic

from jobrunner import heartbeat, log, queue
from jobrunner.jitter import jittered
from jobrunner.workers import Workers

# After falling asleep, look again: an insert that was in flight did not see us sleep.
SECOND_LOOK_SECONDS = 0.05
MAX_CLAIM = 200
# What is claimed ahead at once is to have no more than this, if it is like what came before.
MAX_AHEAD_BYTES = 2_000_000
# How long a job that comes before those that were claimed last may be passed over.
FRONT_SECONDS = 1.5


class Claimer:
    """Claims for one runner. ``look_at`` is when to look, by the monotonic clock."""

    def __init__(self, workers: Workers, model: str, poll_seconds: float) -> None:
        self.look_at = 0.0
        self.queue_is_empty = False
        self._workers = workers
        self._model = model
        self._poll_seconds = poll_seconds
        self._runner = ""
        self._asleep = False
        self._stopped = False
        self._place = queue.FRONT
        self._front_at = 0.0
        # Of the inputs that were claimed last, on average.
        self._input_bytes = 1

    @property
    def wants_jobs(self) -> bool:
        """Whether a worker has room for a job, and no stop was asked for."""
        return not self._stopped and self._workers.room > 0

    def begin(self, runner: str) -> None:
        """Claim for a runner that has just been registered under that id."""
        self._runner, self._asleep = runner, False
        self.look_soon()

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped = True

    def look_soon(self) -> None:
        """Look in the next turn: workers may be done, or jobs have been freed."""
        self.look_at = 0.0

    def wake_up(self) -> None:
        """Look in the next turn, from the front of the queue: a job was submitted."""
        self.look_at = self._front_at = 0.0

    def claim(self, connection: queue.Connection) -> None:
        """Give each free worker a job; where there are too few, sleep until one comes."""
        look = self.wants_jobs and monotonic() >= self.look_at
        if look and self._take(connection) and self.wants_jobs:
            self._plan_next_look(connection)
        if self._asleep and not self.wants_jobs:
            self._set_asleep(connection, False)

    def _take(self, connection: queue.Connection) -> bool:
        """Claim what the workers have room for; whether there were too few."""
        idle = min(self._workers.idle, MAX_CLAIM)
        if monotonic() >= self._front_at:
            if not idle:
                # What is on its last attempt is not claimed ahead: it needs an idle worker.
                self.look_at = monotonic() + SECOND_LOOK_SECONDS
                return False
            self._place, self._front_at = queue.FRONT, monotonic() + jittered(FRONT_SECONDS)
        if idle and self._claim(connection, idle) < idle:
            return True
        room = min(self._workers.room, MAX_CLAIM, 1 + MAX_AHEAD_BYTES // self._input_bytes)
        return room > 0 and self._claim(connection, room, ahead=True) < room

    def _claim(self, connection: queue.Connection, slots: int, ahead: bool = False) -> int:
        """Claim up to so many and give them to the workers; how many there were."""
        claim = partial(
            queue.claim, connection, runner=self._runner, model=self._model, ahead=ahead
        )
        jobs = claim(slots=slots, place=self._place)
        if len(jobs) < slots and self._place != queue.FRONT:
            jobs += claim(slots=slots - len(jobs))
        self._place = queue.place_of(jobs[-1]) if len(jobs) == slots else queue.FRONT
        self._workers.give(jobs)
        if jobs:
            self._input_bytes = 1 + sum(len(job.input) for job in jobs) // len(jobs)
        rows = [(job.id, self._model, job.attempt, self._runner) for job in jobs]
        log.info_each("claimed", "job_id=%s model=%s attempt=%d runner=%s", rows)
        return len(jobs)

    def _plan_next_look(self, connection: queue.Connection) -> None:
        """Poll, or look when the next job is due; but look twice around falling asleep."""
        if not self._asleep:
            self._set_asleep(connection, True)
            self._take(connection)
            self.look_at = monotonic() + SECOND_LOOK_SECONDS
            return
        due_in = queue.next_run_at(connection, model=self._model)
        self.queue_is_empty = due_in is None
        pause = jittered(self._poll_seconds)
        if due_in is not None:
            pause = min(pause, max(SECOND_LOOK_SECONDS, due_in))
        self.look_at = monotonic() + pause

    def _set_asleep(self, connection: queue.Connection, asleep: bool) -> None:
        heartbeat.set_sleeping(connection, self._runner, asleep)
        self._asleep = asleep
