"""Claims jobs for the workers, and knows when to look for the next ones.

A runner that finds too few goes to sleep: it asks for a notification at the next insert. A
notification is a hint, so it looks again shortly after, polls, and looks when the next job is
due. Who has room for no job is not notified: it looks when workers are done.

One of those that sleep is notified of an insert. If it has a worker free for all that it finds,
that is the end of it; if not, it wakes up others. Who has no worker free at all, but room ahead,
is notified once: it wakes up another, and is awake from then on.

A claim goes on at the place in the queue where the last one ended. What comes before that
(of a higher priority, handed back, committed late) is found by a look from the front: when
there are too few after it, and now and then in any case. Such a look walks over what was
claimed and can not be removed yet, which takes long while somebody holds an old snapshot; so
it is followed by a pause that is longer than it.
"""

from time import monotonic

import psycopg

from jobrunner import heartbeat, log, queue
from jobrunner.activity import Activity
from jobrunner.jitter import jittered
from jobrunner.leases import Leases
from jobrunner.outcome import Job
from jobrunner.sleep import Sleep
from jobrunner.workers import Workers

# After falling asleep, look again: an insert that was in flight did not see us sleep.
SECOND_LOOK_SECONDS = 0.05
# How often to look while nobody wakes us up, since another model of the runner is busy.
UNWOKEN_SECONDS = 0.1
MAX_CLAIM = 400
# What is claimed ahead at once is to have no more than this, if it is like what came before;
# and what is started at once, so that its answer comes in time.
MAX_AHEAD_BYTES = 2_000_000
MAX_START_BYTES = 16_000_000
# Inputs are taken for so many times as large after a claim that had no answer.
CAUTION = 16
# How often to look from the front in any case.
FRONT_SECONDS = 1.5
# The pause after a look is so many times as long; but a job that comes before those that were
# claimed last is passed over for two seconds at most, if the look itself does not take longer.
PAUSE_FACTOR = 20
PASSED_OVER_SECONDS = 1.9
LEAST_PAUSE_SECONDS = 1.0
# There is no pause after a look that is no burden.
NO_BURDEN_SECONDS = 0.005
# A look ahead that finds less than this of what there is room for has found few.
FEW_SHARE = 0.125
# What it takes to be woken up and to claim, when a batch that has waited is filled up.
FILL_UP_SECONDS = 0.002
# How long the transaction of a submit may take without its job being passed over at first.
COMMIT_SECONDS = 60.0


class Seldom:
    """When something may be done again that may take long."""

    def __init__(self) -> None:
        self.not_before = 0.0

    @property
    def due(self) -> bool:
        """Whether it may be done now."""
        return monotonic() >= self.not_before

    @property
    def rest(self) -> float:
        """In how many seconds it may be done."""
        return max(0.0, self.not_before - monotonic())

    def began(self, at: float) -> None:
        """Note that it has just been done, since that time of the monotonic clock."""
        took = monotonic() - at
        longest = max(LEAST_PAUSE_SECONDS, PASSED_OVER_SECONDS - took)
        pause = min(longest, took * PAUSE_FACTOR) if took > NO_BURDEN_SECONDS else 0.0
        self.not_before = monotonic() + pause


class Claimer:
    """Claims for one model of a runner. ``look_at`` is when to look, by the monotonic clock."""

    def __init__(
        self,
        workers: Workers,
        model: str,
        poll_seconds: float,
        activity: Activity,
        sleep: Sleep,
        leases: Leases,
    ) -> None:
        self.look_at = 0.0
        self.queue_is_empty = False
        self._looked_at = 0.0
        self._workers = workers
        self._model = model
        self._activity = activity
        self._poll_seconds = poll_seconds
        self._sleep = sleep
        self._leases = leases
        # What the database's clock, in seconds since the epoch, is ahead of our monotonic one.
        # None until it has told us.
        self._clock_lead: float | None = None
        self._runner = ""
        self._stopped = False
        self._place = queue.FRONT
        # When to look from the front, even if there is enough after the place.
        self._front_at = 0.0
        self._front_look = Seldom()
        # Whether too few were found, and the look from the front has to wait.
        self._owes_front_look = False
        self._ahead_look = Seldom()
        # Whether the last look ahead found few.
        self._found_few = False
        self._due_look = Seldom()
        # Of the inputs that were claimed last, on average.
        self._input_bytes = 1
        # What is sent as soon as it is told of a job: written before, while there is time.
        self._readied: queue.Claim | None = None
        # Whether others are to be woken up for what is left, once no worker is free any more.
        self._speaks_for_others = False
        # Whether it was told of a job for which no worker was free.
        self._was_told_in_vain = False

    @property
    def due(self) -> float:
        """When to look, by the monotonic clock. While a batch waits for more jobs, nobody looks:
        it is filled up once, when that time is over."""
        look_at = self.look_at
        if self._sleep.holds(self._model) and not self._sleep.is_sound:
            # Since another model of the runner is busy, perhaps only after that was planned.
            look_at = min(look_at, self._looked_at + UNWOKEN_SECONDS)
        return max(look_at, self._workers.hold_until)

    @property
    def wants_jobs(self) -> bool:
        """Whether a worker has room for a job, and no stop was asked for."""
        return not self._stopped and self._workers.room > 0

    @property
    def oversleeps(self) -> bool:
        """Whether it is asleep, and to be woken up for jobs, though it wants none."""
        return self._sleep.holds(self._model) and not self.wants_jobs

    def begin(self, runner: str) -> None:
        """Claim for a runner that has just been registered under that id."""
        self._runner, self._readied = runner, None
        self._sleep.begin(runner)
        self.look_soon()

    def stop(self) -> None:
        """Claim nothing any more."""
        self._stopped, self._readied = True, None

    def note_clock(self, clock: float, asked: float) -> None:
        """Learn how far the database's clock is ahead of ours. It was read at some time since it
        was asked; an answer that took long does not tell better than one before."""
        least, most = clock - monotonic(), clock - asked
        known = most if self._clock_lead is None else self._clock_lead
        self._clock_lead = min(max(known, least), most)

    def look_soon(self) -> None:
        """Look in the next turn: a job was submitted or freed, or workers may be done."""
        self.look_at = 0.0

    def wake_up(self, others_sleep: bool) -> None:
        """It was told that there are jobs, and maybe others were not that sleep."""
        self._sleep.has_found = False
        if self._is_free:
            owes_look = self.look_at == 0
            self._speaks_for_others = others_sleep or (self._speaks_for_others and owes_look)
        elif others_sleep or not self.wants_jobs:
            self._was_told_in_vain = True
        self.look_soon()

    def claim_at_once(self, connection: queue.Connection) -> int:
        """Claim before anything else, having been told of a job while asleep; how many jobs."""
        if self._readied and self.wants_jobs and self._readied.slots <= self._workers.idle:
            return self._execute(connection, self._readied)
        return 0

    def claim(self, connection: queue.Connection) -> None:
        """Give each free worker a job; where there are too few, sleep until one comes."""
        if self.wants_jobs and monotonic() >= self.due:
            if self._take(connection) and self.wants_jobs:
                self._plan_next_look(connection)
            self._looked_at = monotonic()
        if self.oversleeps:
            self._sleep.set(connection, self._model, False)
        self.pass_on(connection)

    def pass_on(self, connection: queue.Connection) -> bool:
        """Wake up others where no worker is free for what may be left: as many as that are jobs, or
        one that is to see to it. Whether there were any: then what they may start at once is not
        claimed ahead meanwhile."""
        if self._is_free or not (self._was_told_in_vain or self._speaks_for_others):
            return False
        if self._was_told_in_vain and not self._sleep.has_found:
            # Who comes next is not to ask us: two that do so would ask each other without end.
            self._sleep.strike_off(connection, self._model)
            woken = heartbeat.wake_another(connection, self._runner, self._model)
        else:
            woken = queue.wake_others(connection, self._runner, self._model, self._place)
        self._was_told_in_vain = self._speaks_for_others = False
        if woken:
            self.look_at = monotonic() + SECOND_LOOK_SECONDS
        return woken

    @property
    def _is_free(self) -> bool:
        """Whether a job would be claimed and started at once."""
        is_held = monotonic() < self._workers.hold_until
        return self.wants_jobs and self._workers.idle > 0 and not is_held

    @property
    def _idle(self) -> int:
        """How many jobs would be started at once, of as many as may be claimed at once."""
        batch = self._workers.batch_size
        most = min(max(batch, MAX_CLAIM // batch * batch), 1 + MAX_START_BYTES // self._input_bytes)
        return min(self._workers.idle, most)

    def _take(self, connection: queue.Connection) -> bool:
        """Claim what the workers have room for; whether there were too few."""
        idle = self._idle
        if monotonic() >= self._front_at:
            if not idle:
                # What is on its last attempt is not claimed ahead: it needs an idle worker.
                self.look_at = monotonic() + SECOND_LOOK_SECONDS
                return False
            self._place = queue.FRONT
        if idle and self._start(connection, idle) < idle:
            return True
        if self.pass_on(connection):
            return False
        room = min(self._workers.room, MAX_CLAIM, 1 + MAX_AHEAD_BYTES // self._input_bytes)
        return room > 0 and self._claim_ahead(connection, room) < room

    def _start(self, connection: queue.Connection, idle: int) -> int:
        """Claim for workers that start at once; how many jobs there were."""
        found = 0
        if self._place != queue.FRONT:
            found = self._claim(connection, idle)
        self._owes_front_look = found < idle and not self._front_look.due
        if found < idle and self._front_look.due:
            found += self._look_from_front(connection, idle - found)
        return found

    def _look_from_front(self, connection: queue.Connection, idle: int) -> int:
        began, self._place = monotonic(), queue.FRONT
        found = self._claim(connection, idle)
        self._front_look.began(began)
        pause = monotonic() + jittered(FRONT_SECONDS)
        self._front_at = max(pause, self._front_look.not_before)
        if not found and not self._front_look.due:
            # Only what is submitted from now on need be looked for soon.
            self._place = queue.place_at(queue.now(connection) - COMMIT_SECONDS)
        return found

    def _claim_ahead(self, connection: queue.Connection, room: int) -> int:
        """Claim what is not started at once. Of many jobs on their last attempt, which are not
        claimed ahead, each such look reads all: so it is seldom where it finds few, twice in a
        row, since one may be slow by chance."""
        if not self._ahead_look.due:
            self.look_at = self._ahead_look.not_before
            return room
        began = monotonic()
        found = self._claim(connection, room, ahead=True)
        found_few = found < FEW_SHARE * room
        if found_few and self._found_few:
            self._ahead_look.began(began)
        self._found_few = found_few
        return found

    def _claim(self, connection: queue.Connection, slots: int, ahead: bool = False) -> int:
        """Claim up to so many from the place on and give them to the workers; how many."""
        return self._execute(connection, self._written(slots, ahead))

    def _written(self, slots: int, ahead: bool = False) -> queue.Claim:
        """A claim from the place on."""
        return queue.Claim(
            runner=self._runner,
            model=self._model,
            slots=slots,
            ahead=ahead,
            place=self._place,
            spent=self._leases.spent,
        )

    def _execute(self, connection: queue.Connection, claim: queue.Claim) -> int:
        """Claim, and give to the workers what there is; how many."""
        self._readied = None
        try:
            jobs = claim.execute(connection)
        except psycopg.Error:
            self._input_bytes = min(self._input_bytes * CAUTION, MAX_START_BYTES)
            raise
        if self._workers.batch_size > 1:
            self._set_apart(connection, jobs)
        self._workers.give(jobs, self._hold_until(jobs))
        self._leases.forget(claim.spent)
        self._leases.add(jobs)
        if jobs:
            self._sleep.has_found = True
            self._place = queue.place_of(jobs[-1])
            self._input_bytes = 1 + sum(len(job.input) for job in jobs) // len(jobs)
            self._count_waits(jobs)
        rows = [(job.id, self._model, job.attempt, self._runner, job.traced) for job in jobs]
        log.info_each("claimed", "job_id=%s model=%s attempt=%d runner=%s%s", rows)
        return len(jobs)

    def _set_apart(self, connection: queue.Connection, jobs: list[Job]) -> None:
        """Let those be run by themselves that were the end of a worker before: with others
        they would be the end of the next one as well, and all be run one by one again."""
        if again := [job.id for job in jobs if job.attempt > 1]:
            apart = queue.ended_a_worker(connection, again)
            for job in jobs:
                job.alone = job.id in apart

    def _hold_until(self, jobs: list[Job]) -> float:
        """Until when the oldest of these may wait for others to go with it."""
        card, lead = self._workers.card, self._clock_lead
        if not card or not card["max_wait_ms"] or lead is None or not jobs:
            return 0.0
        seconds = max(0.0, card["max_wait_ms"] / 1000 - FILL_UP_SECONDS)
        # Not longer, whatever the database's clock does.
        return min(min(job.run_at for job in jobs) - lead, monotonic()) + seconds

    def _count_waits(self, jobs: list[Job]) -> None:
        if self._clock_lead is not None:
            now = self._clock_lead + monotonic()
            self._activity.add_waits(self._model, [max(0.0, now - job.run_at) for job in jobs])

    def _plan_next_look(self, connection: queue.Connection) -> None:
        """Poll, or look when the next job is due; but look twice around falling asleep."""
        if monotonic() < self._workers.hold_until:
            self.look_at = self._workers.hold_until
        elif not self._workers.idle:
            self.look_at = min(monotonic() + SECOND_LOOK_SECONDS, self._workers.fill_at)
        else:
            self._was_told_in_vain, self._speaks_for_others = False, True
            if self._sleep.holds(self._model):
                self.look_at = monotonic() + self._pause(connection)
            else:
                self._sleep.set(connection, self._model, True)
                self._take(connection)
                self.look_at = monotonic() + SECOND_LOOK_SECONDS
            self._get_ready()

    def _get_ready(self) -> None:
        """Write the claim that is sent as soon as it is told of a job."""
        idle = self._idle
        if idle and monotonic() >= self._workers.hold_until:
            self._readied = self._written(idle)

    def _pause(self, connection: queue.Connection) -> float:
        """Seconds until the next poll, or until a job is due, or a look that had to wait."""
        pause = jittered(self._poll_seconds)
        if self._owes_front_look:
            pause = min(pause, self._front_look.rest)
        if not self._due_look.due:
            return min(pause, self._due_look.rest)
        began = monotonic()
        due_in = queue.next_run_at(connection, model=self._model)
        self._due_look.began(began)
        self.queue_is_empty = due_in is None
        return pause if due_in is None else min(pause, max(SECOND_LOOK_SECONDS, due_in))
