"""The runner: claims jobs, has workers run them, records what comes of them.

One thread and one loop. A turn waits until something happens (a worker speaks, a
notification, a signal, a time that has come), takes what the workers have finished, and then
talks to the database: record, beat, sweep, claim. While the database is away, outcomes wait
in the outbox, workers go on, and each turn tries again.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic
from typing import TypeVar

import psycopg

from jobrunner import activity, heartbeat, janitor, log, migrations, progress, queue
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.database import LOCK_SECONDS, Lost, first_line
from jobrunner.depth import Depth
from jobrunner.errors import DatabaseError, DatabaseUnavailable, JobrunnerError, ModelLoadError
from jobrunner.heartbeat import ModelPulse, Pulse
from jobrunner.jitter import jittered
from jobrunner.judge import Judge
from jobrunner.leases import Leases
from jobrunner.links import Link, Note
from jobrunner.listener import NOT_NOW, Listener
from jobrunner.outbox import Outbox
from jobrunner.outcome import Job, cancelled
from jobrunner.polling import readable
from jobrunner.progress import Reporter
from jobrunner.signals import StopSignals
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Waitable

SWEEP_SECONDS = 1.0
# A cancel is told by notification; this is for when that is lost.
CANCEL_SECONDS = 1.0
RESCUE_SECONDS = 10.0
JANITOR_SECONDS = 60.0
BEATS_PER_LEASE = 6
# A beat is late after a third of a lease.
LATES_PER_LEASE = 3
TELL_SECONDS = 1.0
# While it holds back outcomes, until there are more; and when it has given a job to a worker.
NAP_SECONDS = 0.001
# What the last outcomes may take to be written, past the grace.
LAST_WORDS_SECONDS = 3.0
# How long at once to wait for an answer beside the work.
SLICE_SECONDS = 0.1

T = TypeVar("T")


@dataclass(frozen=True)
class Settings:
    """What a runner needs to know; times in seconds."""

    url: str
    listen_url: str
    # For each model.
    workers: int
    lease_seconds: float
    poll_seconds: float
    grace_seconds: float
    limits: WorkerLimits
    retention: timedelta
    drain: bool = False


@dataclass
class Timetable:
    """When the loop does what it does now and then, by the monotonic clock; 0 is at once."""

    beat: float = 0.0
    sweep: float = 0.0
    rescue: float = 0.0
    cancel: float = 0.0
    clean: float = 0.0


class Runner:
    """A runner from its start to its end; ``run`` is the whole of it."""

    def __init__(
        self, settings: Settings, specs: Sequence[ModelSpec], signals: StopSignals
    ) -> None:
        self.id = heartbeat.new_id()
        self._settings = settings
        self._signals = signals
        self._link = Link(settings.url, f"jobrunner {self.id}", gives_up=self._gives_up)
        self._listener = self._new_listener()
        self._judge = Judge()
        self._reporter = Reporter()
        self._times = Timetable()
        self._activity = Activity()
        self._leases = Leases(self._in_hand)
        self._crew = Crew(
            specs,
            settings.workers,
            settings.limits,
            settings.poll_seconds,
            self._activity,
            self._leases,
        )
        self._outbox = self._new_outbox()
        self._depth = Depth(self._crew.models)
        # Why it deletes nothing, for the row of the runner.
        self._janitor_refused: str | None = None
        self._stops_heard = 0
        self._stop_by: float | None = None
        self._owes_activity = True
        self._beaten_at = 0.0
        # Not until all runners have said what they hold, since the server has crashed.
        self._may_claim = False
        self._away_since: float | None = None
        self._away_because: str | None = None

    def run(self) -> None:
        """Work until asked to stop, or until the queue is empty where it drains.

        :raises ModelLoadError: when a model can't be loaded, or is not what its version was.
        :raises DatabaseError: when the database does not let us in at the start.
        """
        try:
            migrations.require_applied(self._link.open())
            self._register(self._link.open())
            models = ",".join(self._crew.models)
            log.info("started", runner=self.id, models=models, workers=self._crew.count)
            while not self._done():
                self._turn()
            self._leave()
        except ModelLoadError:
            # Of another model there may be jobs in hand.
            self._leave()
            raise
        finally:
            self._crew.end()
            self._listener.lose()
            self._link.lose()

    # The loop

    def _turn(self) -> None:
        with log.together():
            self._crew.tend()
        with log.together():
            heard = self._wait()
            if self._is_news_alone(heard):
                # Somebody waits for the answer.
                self._try(self._claim_what_is_told)
                heard |= self._crew.wait(0, self._others())
            if self._signals.fileno() in heard:
                self._signals.clear()
            self._note_stop(self._signals.count)
            self._collect(heard)
            if self._link.connected or self._link.due:
                self._try(self._talk)

    def _wait(self) -> set[int]:
        """Wait until there is something to do; give what can be read."""
        if self._outbox.holds_back(self._crew.ahead):
            self._crew.wait(NAP_SECONDS, self._others(), listen=False)
            return self._crew.wait(0, [])
        return self._crew.wait(self._pause(), self._others())

    def _nap(self) -> None:
        """Leave the processor for a moment: the system may let the worker wait for it that was
        given a job."""
        self._crew.wait(NAP_SECONDS, self._others())

    def _others(self) -> list[Waitable]:
        """What to wait for beside the workers; who does not read must not wait for it."""
        ears: list[Waitable] = [self._signals]
        if self._link.listens:
            ears.append(self._link)
        if self._link.connected and self._listener.connected:
            ears.append(self._listener)
        return ears

    def _pause(self) -> float:
        """How many seconds nothing needs to be done, unless something happens."""
        times = self._times
        due = [times.beat, times.sweep] if self._link.connected else [self._link.retry_at]
        if self._link.connected:
            due += [0.0] if self._outbox or self._listener.has_news else []
            due += self._crew.look_at + self._reporter.tell_at
            due += [times.cancel] if self._crew.jobs else []
            due += [] if self._listener.connected else [self._listener.retry_at]
        if self._stop_by is not None:
            due.append(self._stop_by)
        return max(0.0, min(due) - monotonic())

    def _collect(self, heard: set[int]) -> None:
        ready, trouble = self._crew.ready, self._crew.trouble
        self._outbox.add(self._crew.collect(heard))
        self._reporter.note(self._crew.take_progress())
        if (self._crew.ready, self._crew.trouble) != (ready, trouble):
            self._times.beat = 0.0

    def _try(self, act: Callable[[queue.Connection], object]) -> None:
        connection = None
        try:
            connection = self._link.open()
            act(connection)
        except ModelLoadError:
            raise
        except (JobrunnerError, psycopg.Error) as error:
            # It may have been lost meanwhile, while something was said over the listener's.
            if connection is None or self._link.has(connection):
                self._lose(error)

    def _is_news_alone(self, heard: set[int]) -> bool:
        """Whether it was told of something, and nothing else has happened."""
        return len(heard) == 1 and self._link.connected and self._link.fileno() in heard

    def _talk(self, connection: queue.Connection) -> None:
        if self._away_since is not None:
            self._come_back(connection)
        self._attend(connection)
        self._cancel(connection)
        # Before what may fail again and again: a runner that lives must be seen to.
        self._keep_alive(connection)
        self._attend(connection)
        self._write(connection)
        self._sweep(connection)
        self._release(connection, self._crew.surplus())
        self._claim(connection)
        self._record_activity(connection)
        self._attend(connection)
        self._sample_depth(connection)
        self._tell_progress(connection)
        # What came with an answer, even with the last one, does not wake us up.
        self._attend(connection)
        self._link.works()

    # Stopping

    def _note_stop(self, heard: int) -> None:
        """Begin to stop at the first request; at the second, stop now."""
        if heard <= self._stops_heard:
            return
        self._stops_heard = heard
        grace = 0.0 if heard > 1 else self._settings.grace_seconds
        self._stop_by = monotonic() + grace
        self._crew.stop_claims()
        jobs = len(self._crew.jobs)
        log.info("stopping", runner=self.id, jobs_in_hand=jobs, grace_seconds=grace)

    def _gives_up(self) -> bool:
        """Whether it was asked to stop now, while it waits for an answer of the database."""
        return self._signals.count > max(1, self._stops_heard)

    def _done(self) -> bool:
        idle = not self._crew.jobs and not self._outbox
        if self._stop_by is not None:
            return idle or monotonic() >= self._stop_by
        return self._settings.drain and idle and self._crew.drained

    def _leave(self) -> None:
        """Write what is finished, hand back what is not, and sign off."""
        unfinished, outcomes = self._crew.kill_jobs()
        self._outbox.add(outcomes)
        deadline = monotonic() + LAST_WORDS_SECONDS
        while monotonic() < deadline:
            try:
                connection = self._link.open()
                connection.answer_seconds = LAST_WORDS_SECONDS
                self._outbox.write(connection)
                self._release(connection, unfinished)
                self._release_unknown(connection)
                heartbeat.sign_off(connection, self.id)
                self._delete_spent(connection)
            except (JobrunnerError, psycopg.Error) as error:
                self._lose(error)
                self._crew.wait(max(0.0, self._link.retry_at - monotonic()), [])
                continue
            self._take_last_notes(connection, deadline)
            log.info("stopped", runner=self.id, completed=self._crew.completed)
            return
        left = len(unfinished) + len(self._outbox)
        log.warning("stopped", runner=self.id, reason="no database", jobs_left=left)

    def _take_last_notes(self, connection: queue.Connection, deadline: float) -> None:
        """Count what was done, which nobody else does: who holds these rows is waited for, unless
        we are to stop now. Nothing else is owed to anybody any more."""
        hurries = self._stops_heard > 1
        rest = 0.0 if hurries else deadline - monotonic() - LOCK_SECONDS
        patience = max(LOCK_SECONDS, rest)
        notes: dict[str, Callable[[], None]] = {
            "activity_not_recorded": lambda: self._activity.record(connection, patience),
            "progress_not_told": lambda: self._reporter.tell(connection, []),
        }
        for refused, take in notes.items():
            try:
                take()
            except psycopg.Error as error:
                log.warning(refused, runner=self.id, reason=first_line(error))

    def _release(self, connection: queue.Connection, jobs: list[Job]) -> None:
        models = {job.id: job.model for job in jobs}
        for job_id, status in (queue.release(connection, jobs) if jobs else {}).items():
            self._note_release(job_id, models[job_id], status)

    def _note_release(self, job_id: str, model: str, status: str) -> None:
        self._activity.add_released(model, status)
        log.info("released", job_id=job_id, runner=self.id, status=status)

    # The database, lost and found

    def _lose(self, error: Exception) -> None:
        """Close the connection and say why, once a reason; what is in hand stays in hand."""
        self._link.lose()
        reason = str(error) if isinstance(error, JobrunnerError) else first_line(error)
        if self._away_since is None:
            self._away_since = monotonic()
        if reason != self._away_because:
            self._away_because = reason
            lost = isinstance(error, (*Lost, DatabaseUnavailable))
            move = "database_lost" if lost else "database_refused"
            log.warning(move, runner=self.id, reason=reason)

    def _come_back(self, connection: queue.Connection) -> None:
        """Hand back claims of which the answer was lost; do everything else at once."""
        self._release_unknown(connection)
        away = monotonic() - (self._away_since or 0.0)
        log.info("database_back", runner=self.id, seconds=away)
        self._away_since = self._away_because = None
        self._judge.lose_contact()
        self._listener.retry_soon()
        # It may have gone as well; or we are with another server now, and it is not.
        self._heed(self._listener.hear())
        self._listener.check(connection)
        self._crew.look_soon()
        self._times = Timetable(clean=self._times.clean)

    def _release_unknown(self, connection: queue.Connection) -> None:
        """Hand back what the database says is ours and we know nothing of, uncounted."""
        held = [job.id for job in self._in_hand()]
        for job in queue.release_unknown(connection, runner=self.id, held=held):
            self._note_release(*job)
            self._crew.look_soon()

    def _in_hand(self) -> list[Job]:
        return [*self._crew.jobs, *self._outbox.jobs]

    def _new_listener(self) -> Listener:
        url, meanwhile = self._settings.listen_url, self._attend_meanwhile
        return Listener(url, self.id, self._link, meanwhile, self._gives_up)

    def _new_outbox(self) -> Outbox:
        return Outbox(self._crew.count_outcomes, self._activity, self._reclaim)

    # What a turn says to the database

    def _attend(self, connection: queue.Connection) -> None:
        """Claim what it was told of meanwhile: that does not wait for all there is to say."""
        if self._hear(connection) and self._crew.claim_at_once(connection):
            self._nap()

    def _attend_meanwhile(self, answer: int) -> None:
        """Do so as well until there is an answer on the other connection, for a moment at most."""
        ears = [self._link.fileno()] if self._link.connected else []
        if readable([answer, *ears], SLICE_SECONDS).intersection(ears):
            self._try(self._claim_what_is_told)

    def _claim_what_is_told(self, connection: queue.Connection) -> None:
        if self._heed(self._link.hear()) and self._crew.claim_at_once(connection):
            self._nap()

    def _hear(self, connection: queue.Connection) -> bool:
        """Take notifications; each means: look for yourself, now. Whether there are jobs."""
        if self._listener.tend(connection):
            # What came while nobody listened was told to nobody.
            self._crew.look_soon()
        return self._heed([*self._link.hear(), *self._listener.hear()])

    def _heed(self, heard: list[Note]) -> bool:
        has_jobs = False
        for channel, payload in heard:
            if channel == "job_submitted":
                has_jobs = True
                self._crew.look_soon()
            elif channel == "cancel_requested":
                self._times.cancel = 0.0
            elif payload == self.id:
                self._times.beat = 0.0
        return has_jobs

    def _cancel(self, connection: queue.Connection) -> None:
        """End the inferences of which somebody wants no result any more."""
        if monotonic() < self._times.cancel:
            return
        self._times.cancel = monotonic() + jittered(CANCEL_SECONDS)
        ids = [job.id for job in self._crew.jobs]
        if wanted := queue.cancelled(connection, ids) if ids else set():
            killed, outcomes = self._crew.kill_jobs(wanted)
            self._outbox.add([*outcomes, *map(cancelled, killed)])

    def _write(self, connection: queue.Connection) -> None:
        """Record outcomes, and soon after let the row of the runner tell of them."""
        if self._outbox and not self._outbox.holds_back(self._crew.ahead):
            self._outbox.write(connection)
            self._times.beat = min(self._times.beat, monotonic() + TELL_SECONDS)

    def _keep_alive(self, connection: queue.Connection) -> None:
        """Beat when it is time; learn whether to stop, or that we were found dead."""
        if monotonic() < self._times.beat and not self._listener.has_news:
            return
        self._times.beat = monotonic() + self._settings.lease_seconds / BEATS_PER_LEASE
        self._check_listener(connection)
        self._listener.has_news = False
        self._register_models(connection)
        asked, models = monotonic(), self._crew.pulses()
        try:
            answer = self._beat(connection, models)
        except NOT_NOW as error:
            if connection.closed:
                raise
            log.warning("beat_refused", runner=self.id, reason=first_line(error))
            self._times.beat = min(self._times.beat, asked + TELL_SECONDS)
            return
        if answer is None:
            self._start_anew(connection)
            return
        self._crew.note_clock(answer.clock, asked)
        self._depth.tell_time(answer.clock)
        self._owes_activity = True
        self._may_claim = bool(answer.may_claim)
        if answer.may_claim is None:
            self._reclaim(connection)
        if answer.stop:
            self._note_stop(2 if answer.now else 1)
        self._tell(
            connection, lambda to: heartbeat.tell_models(to, self.id, models), "models_not_told"
        )

    def _beat(
        self, connection: queue.Connection, models: Sequence[ModelPulse]
    ) -> heartbeat.Answer | None:
        """Beat over the listener's connection; if that did not succeed for long, over ours, which
        has more patience: who judges us has as much."""
        asked = monotonic()

        def beat(to: queue.Connection) -> heartbeat.Answer | None:
            return heartbeat.beat(to, self.id, self._pulse(models))

        if asked - self._beaten_at > self._settings.lease_seconds / LATES_PER_LEASE:
            answer = beat(connection)
        else:
            answer = self._say(connection, beat, must=True)
        self._beaten_at = asked
        return answer

    def _say(
        self, connection: queue.Connection, act: Callable[[queue.Connection], T], must: bool = False
    ) -> T:
        """Have something said over the listener's connection; see ``Listener.say``."""
        said = self._listener.say(act, connection, must=must)
        if connection.closed:
            raise psycopg.OperationalError("the connection was lost meanwhile")
        return said

    def _reclaim(self, connection: queue.Connection) -> bool:
        """Say what is in hand, since a crash of the server may have made it forget claims; whether
        it had."""
        self._may_claim = False
        forgotten = queue.reclaim(connection, runner=self.id, jobs=self._in_hand())
        for job_id in forgotten:
            log.warning("reclaimed", job_id=job_id, runner=self.id)
        return bool(forgotten)

    def _claim(self, connection: queue.Connection) -> None:
        if not self._may_claim and heartbeat.let_in(connection, self.id):
            self._may_claim = True
            self._crew.look_soon()
        self._crew.claim(connection)

    def _record_activity(self, connection: queue.Connection) -> None:
        """Let the database know what was done; work does not wait for that, nor end with it."""
        if self._owes_activity:
            self._owes_activity = False
            self._tell(connection, self._activity.record, "activity_not_recorded")

    def _sample_depth(self, connection: queue.Connection) -> None:
        """Let the database know how long the queues are; that may fail as well."""
        if self._depth.due:
            self._tell(connection, self._depth.sample, "depth_not_sampled")

    def _tell_progress(self, connection: queue.Connection) -> None:
        """Let the database know how far jobs are; work does not end with that either."""
        if self._reporter.due:
            jobs = self._crew.jobs
            self._tell(connection, lambda to: self._reporter.tell(to, jobs), "progress_not_told")

    def _tell(
        self, connection: queue.Connection, act: Callable[[queue.Connection], None], refused: str
    ) -> None:
        self._try_to(connection, lambda to: self._say(to, act), refused)

    def _try_to(
        self, connection: queue.Connection, act: Callable[[queue.Connection], None], refused: str
    ) -> None:
        try:
            act(connection)
        except psycopg.Error as error:
            if connection.closed:
                raise
            log.warning(refused, runner=self.id, reason=first_line(error))

    def _check_listener(self, connection: queue.Connection) -> None:
        self._listener.keep_lock(connection)
        if self._link.listens or self._listener.connected:
            # Who was in flight when we fell asleep has told nobody.
            self._crew.look_soon()

    def _register_models(self, connection: queue.Connection) -> None:
        """Make known what has been loaded: from then on the web takes jobs for it."""
        for served in self._crew.served:
            if served.workers.card and not served.is_registered:
                heartbeat.register_model(connection, served.name, served.workers.card)
                served.is_registered = True

    def _pulse(self, models: Sequence[ModelPulse]) -> Pulse:
        return Pulse(
            has_lock=self._listener.holds_lock,
            completed=self._crew.completed,
            failed=self._crew.failed,
            models=models,
            trouble="; ".join(filter(None, self._troubles())) or None,
        )

    def _troubles(self) -> tuple[str | None, ...]:
        return self._crew.trouble, self._listener.trouble, self._janitor_refused

    def _start_anew(self, connection: queue.Connection) -> None:
        """We were found dead and our jobs given away: drop them and take a new id."""
        killed, outcomes = self._crew.kill_jobs()
        dropped = len(killed) + len(outcomes) + self._outbox.clear()
        self._leases.lose()
        former, self.id = self.id, heartbeat.new_id()
        log.warning("found_dead", runner=former, new_runner=self.id, jobs_dropped=dropped)
        self._crew.forget_pace()
        self._outbox = self._new_outbox()
        self._listener.lose()
        self._listener = self._new_listener()
        self._register(connection)
        self._times.beat = 0.0

    def _register(self, connection: queue.Connection) -> None:
        # First: its answer may be lost, and who beats under an id has to claim under it.
        self._may_claim = False
        self._crew.begin(self.id)
        heartbeat.register(
            connection,
            self.id,
            models=dict.fromkeys(self._crew.models, self._settings.workers),
            lease_seconds=self._settings.lease_seconds,
        )
        self._beaten_at = monotonic()
        self._activity.begin(connection)

    def _sweep(self, connection: queue.Connection) -> None:
        """Free the jobs of dead runners; delete what is old."""
        now = monotonic()
        if now < self._times.sweep:
            return
        dead = self._judge.sweep(connection, self.id)
        self._times.sweep = min(now + jittered(SWEEP_SECONDS), self._judge.due)
        for runner in dead:
            log.warning("runner_lost", runner=runner, found_by=self.id)
            # What it had kept others from is free, whether it held anything or not.
            self._crew.look_soon()
        if dead or now >= self._times.rescue:
            self._times.rescue = now + jittered(RESCUE_SECONDS)
            self._rescue(connection)
            # A claim may take effect long after its connection was given up.
            self._release_unknown(connection)
        if now >= self._times.clean:
            self._clean(connection)

    def _rescue(self, connection: queue.Connection) -> None:
        rescued = queue.rescue(connection)
        for job in rescued:
            self._activity.add_rescued(job.model, job.status)
            log.warning("rescued", job_id=job.id, attempt=job.attempt, status=job.status)
            self._crew.look_soon()
        if rescued:
            self._delete_spent(connection)

    def _delete_spent(self, connection: queue.Connection) -> None:
        self._try_to(connection, queue.delete_spent, "spent_not_deleted")

    def _clean(self, connection: queue.Connection) -> None:
        """Delete a batch; go on soon where it was a full one."""
        heartbeat.delete_lost(connection)
        self._delete_spent(connection)
        self._try_to(connection, activity.delete_old, "activity_not_deleted")
        self._try_to(connection, progress.delete_old, "progress_not_deleted")
        deleted, self._janitor_refused = 0, None
        try:
            deleted = janitor.clean(connection, self._settings.retention)
        except DatabaseError as error:
            log.warning("janitor_refused", runner=self.id, reason=error)
            self._janitor_refused = f"deletes no old jobs: {error}"
        if deleted:
            log.info("cleaned", runner=self.id, deleted=deleted)
        pause = SWEEP_SECONDS if deleted == janitor.BATCH else JANITOR_SECONDS
        self._times.clean = monotonic() + jittered(pause)
