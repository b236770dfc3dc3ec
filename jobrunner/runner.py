"""The runner: claims jobs, has workers run them, records what comes of them.

One thread and one loop. A turn waits until something happens (a worker speaks, a
notification, a signal, a time that has come), takes what the workers have finished, and then
talks to the database: cancel, beat, record, sweep, claim, report. While the database is away,
outcomes wait in the outbox, workers go on, and each turn tries again.
"""

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from time import monotonic

import psycopg

from jobrunner import heartbeat, log, migrations, queue
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.database import LOCK_SECONDS, SLICE_SECONDS, BoundedConnection, Lost, first_line
from jobrunner.errors import DatabaseUnavailable, JobrunnerError, ModelLoadError
from jobrunner.jitter import jittered
from jobrunner.leases import Leases
from jobrunner.links import Link, Note
from jobrunner.listener import NOT_NOW, Listener
from jobrunner.outbox import Outbox
from jobrunner.outcome import Job, cancelled
from jobrunner.polling import readable
from jobrunner.refusals import unless_refused
from jobrunner.reports import Reports
from jobrunner.signals import StopSignals
from jobrunner.sweeper import Sweeper
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Waitable

# A cancel is told by notification; this is for when that is lost.
CANCEL_SECONDS = 1.0
BEATS_PER_LEASE = 6
TELL_SECONDS = 1.0
# While it holds back outcomes, until there are more; and when it has given a job to a worker.
NAP_SECONDS = 0.001
# What the last outcomes may take to be written, past the grace.
LAST_WORDS_SECONDS = 3.0


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
    cancel: float = 0.0


class Runner:
    """A runner from its start to its end; ``run`` is the whole of it."""

    def __init__(
        self, settings: Settings, specs: Sequence[ModelSpec], signals: StopSignals
    ) -> None:
        self.id = heartbeat.new_id()
        self._settings = settings
        self._signals = signals
        self._link = Link(settings.url, name_of(self.id), gives_up=self._while_link_waits)
        self._listener = Listener(
            settings.listen_url, self.id, self._link, self._work_meanwhile, self._gives_up
        )
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
        self._outbox = Outbox(self._crew.count_outcomes, self._activity, self._reclaim)
        self._sweeper = Sweeper(
            settings.retention,
            self._activity,
            self._crew.look_soon,
            self._wake_another,
            self._release_unknown,
        )
        self._reports = Reports(
            self._crew, self._activity, self._listener, self._sweeper, settings.lease_seconds
        )
        self._stops_heard = 0
        self._stop_by: float | None = None
        # How many signals had come when it began to leave.
        self._leaves_at: int | None = None
        # Whether the database has ever known us under this id.
        self._is_known = False
        # Not until all runners have said what they hold, since the server has crashed.
        self._may_claim = False
        self._away_since: float | None = None
        self._away_because: str | None = None
        # Or it is there, and refuses what we ask.
        self._is_lost = False

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
        due = [times.beat, self._sweeper.due] if self._link.connected else [self._link.retry_at]
        if self._link.connected:
            has_more = self._outbox or self._listener.has_news or self._listener.has_heard
            due += [0.0] if has_more else []
            due += self._crew.look_at + self._reports.tell_at
            due += [times.cancel] if self._crew.jobs else []
            due += [] if self._listener.connected else [self._listener.retry_at]
        if self._stop_by is not None:
            due.append(self._stop_by)
        return max(0.0, min(due) - monotonic())

    def _collect(self, heard: set[int]) -> None:
        """Take what signals and workers have said."""
        if self._signals.fileno() in heard:
            self._signals.clear()
        self._note_stop(self._signals.count)
        standing = self._crew.standing
        self._outbox.add(self._crew.collect(heard))
        self._reports.note_progress(self._crew.take_progress())
        if self._crew.standing != standing:
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
        self._sweeper.sweep(connection, self.id)
        self._release_surplus(connection)
        self._claim(connection)
        # What came with an answer, even with the last one, does not wake us up.
        self._attend(connection)
        self._reports.tell(connection, self._attend)
        self._note_back()
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
        """Whether it was asked to stop now, while it waits for an answer of the database. Its last
        words are waited for, unless it is asked once more."""
        if self._leaves_at is not None:
            return self._signals.count > self._leaves_at
        return max(self._signals.count, self._stops_heard) > 1

    def _done(self) -> bool:
        idle = not self._crew.jobs and not self._outbox
        if self._stop_by is not None:
            return idle or monotonic() >= self._stop_by
        return self._settings.drain and idle and self._crew.drained

    def _leave(self) -> None:
        """Write what is finished, hand back what is not, and sign off."""
        asked = self._stop_by is not None
        self._leaves_at = self._signals.count if asked else max(1, self._signals.count)
        self._link.answer_seconds = LAST_WORDS_SECONDS
        unfinished, outcomes = self._crew.kill_jobs()
        self._outbox.add(outcomes)
        deadline = monotonic() + LAST_WORDS_SECONDS
        while monotonic() < deadline:
            try:
                connection = self._link.open()
                connection.answer_seconds = LAST_WORDS_SECONDS
                self._outbox.write(connection)
                self._release(connection, unfinished)
                unfinished = []
                self._release_unknown(connection)
                heartbeat.sign_off(connection, self.id)
                # For what it was told of last, and what it has handed back.
                self._wake_another(connection, self._crew.models)
                unless_refused(queue.delete_spent, connection, "spent_not_deleted", self.id)
            except (JobrunnerError, psycopg.Error) as error:
                self._lose(error)
                if self._gives_up():
                    break
                self._signals.clear()
                readable([self._signals.fileno()], self._link.retry_at - monotonic())
                continue
            self._reports.tell_last(connection, self._patience(deadline))
            log.info("stopped", runner=self.id, completed=self._crew.completed)
            return
        left = len(unfinished) + len(self._outbox)
        reason = "asked once more" if self._gives_up() else "no database"
        log.warning("stopped", runner=self.id, reason=reason, jobs_left=left)

    def _patience(self, deadline: float) -> float:
        """How many seconds to wait for who holds what is told last; few if we are to stop now."""
        rest = 0.0 if self._stops_heard > 1 else deadline - monotonic() - LOCK_SECONDS
        return max(LOCK_SECONDS, rest)

    def _release_surplus(self, connection: queue.Connection) -> None:
        if jobs := self._crew.surplus():
            self._release(connection, jobs)
            self._wake_another(connection, {job.model for job in jobs})

    def _wake_another(self, connection: queue.Connection, models: Iterable[str]) -> None:
        for model in models:
            heartbeat.wake_another(connection, self.id, model)

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
        self._is_lost = isinstance(error, (*Lost, DatabaseUnavailable))
        if reason != self._away_because:
            self._away_because = reason
            move = "database_lost" if self._is_lost else "database_refused"
            log.warning(move, runner=self.id, reason=reason)

    def _come_back(self, connection: queue.Connection) -> None:
        """Hand back claims of which the answer was lost; do everything else at once."""
        self._release_unknown(connection)
        if self._is_lost:
            self._note_back()
        self._sweeper.come_back()
        self._listener.retry_soon()
        # It may have gone as well; or we are with another server now, and it is not.
        self._heed(self._listener.hear())
        self._listener.check(connection)
        # What was said last may have been lost.
        self._crew.doubt_sleep()
        self._crew.look_soon()
        self._times = Timetable()

    def _note_back(self) -> None:
        """Say that it is back; or that all is well again, where it has refused something."""
        if self._away_since is not None:
            away = monotonic() - self._away_since
            log.info("database_back", runner=self.id, seconds=away)
            self._away_since = self._away_because = None

    def _release_unknown(self, connection: queue.Connection) -> None:
        """Hand back what the database says is ours and we know nothing of, uncounted."""
        held = [job.id for job in self._in_hand()]
        released = queue.release_unknown(connection, runner=self.id, held=held)
        for job in released:
            self._note_release(*job)
            self._crew.look_soon()
        self._wake_another(connection, {model for _, model, _ in released})

    def _in_hand(self) -> list[Job]:
        return [*self._crew.jobs, *self._outbox.jobs]

    # What a turn says to the database

    def _attend(self, connection: queue.Connection) -> None:
        """Claim what it was told of meanwhile: that does not wait for all there is to say."""
        if self._listener.tend(connection):
            # What came while nobody listened was told to nobody.
            self._crew.look_soon()
        self._take_up(connection, [*self._link.hear(), *self._listener.hear()])

    def _while_link_waits(self) -> bool:
        """See to the listener, ten times a second while an answer of the link is waited for;
        whether to wait no longer."""
        is_kept_up = self._leaves_at is not None or self._listener.keep_up()
        return not is_kept_up or self._gives_up()

    def _work_meanwhile(self, listener: BoundedConnection) -> None:
        """Go on with the work until there is an answer of the listener's, for a moment at most."""
        if self._link.busy or not self._link.connected:
            readable([listener.fileno()], SLICE_SECONDS)
            return
        self._crew.tend()
        heard = self._crew.wait(SLICE_SECONDS, [listener, self._signals, self._link])
        if heard != {listener.fileno()}:
            self._collect(heard)
            self._try(self._work)

    def _work(self, connection: queue.Connection) -> None:
        self._claim_what_is_told(connection)
        self._cancel(connection)
        self._write(connection)
        self._release_surplus(connection)
        self._claim(connection)

    def _claim_what_is_told(self, connection: queue.Connection) -> None:
        self._take_up(connection, self._link.hear())

    def _take_up(self, connection: queue.Connection, heard: list[Note]) -> None:
        """Claim where it was told of jobs; what is too much for it is for others."""
        if self._heed(heard):
            claimed = self._crew.claim_at_once(connection)
            self._crew.pass_on(connection)
            if claimed:
                self._nap()

    def _heed(self, heard: list[Note]) -> bool:
        """Each means: look for yourself, now. Whether there are jobs."""
        has_jobs = False
        for channel, payload in heard:
            if channel == self._link.channel:
                has_jobs = True
                self._crew.wake_up(payload == heartbeat.OTHERS_SLEEP)
            elif channel == "job_submitted":
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
        self._register_models(connection)
        asked = monotonic()
        try:
            answer = self._reports.beat(connection)
        except NOT_NOW as error:
            if connection.closed:
                raise
            log.warning("beat_refused", runner=self.id, reason=first_line(error))
            self._times.beat = min(self._times.beat, asked + TELL_SECONDS)
            return
        if answer is None:
            self._start_anew(connection)
            return
        self._is_known = True
        self._may_claim = bool(answer.may_claim)
        if answer.may_claim is None:
            self._reclaim(connection)
        if answer.stop:
            self._note_stop(2 if answer.now else 1)
        self._reports.tell_models(connection)

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
        self._crew.listen(connection, self._link.listens or self._listener.hears)
        self._crew.claim(connection)

    def _check_listener(self, connection: queue.Connection) -> None:
        self._listener.keep_lock(connection)
        if self._link.listens or self._listener.connected:
            # Who was in flight when we fell asleep has told nobody.
            self._crew.look_soon()

    def _register_models(self, connection: queue.Connection) -> None:
        """Make known what has been loaded: from then on the web takes jobs for it, and we do. Who
        holds what is known of it is not waited for, and other models are not held up."""
        for served in self._crew.served:
            if not served.workers.card or served.is_registered:
                continue
            try:
                served.register(connection)
            except psycopg.Error as error:
                if connection.closed:
                    raise
                served.not_registered_because = first_line(error)
                log.warning(
                    "model_not_registered",
                    runner=self.id,
                    model=served.name,
                    reason=served.not_registered_because,
                )
                self._times.beat = min(self._times.beat, monotonic() + TELL_SECONDS)

    def _start_anew(self, connection: queue.Connection) -> None:
        """We were found dead and our jobs given away: drop them and take a new id, unless the one
        that we have could not be registered yet."""
        if self._is_known:
            # Who had asked us to stop meant this process.
            self._note_stop(heartbeat.stop_requests(connection, self.id))
            killed, outcomes = self._crew.kill_jobs()
            dropped = len(killed) + len(outcomes) + self._outbox.clear()
            self._leases.lose()
            former, self.id, self._is_known = self.id, heartbeat.new_id(), False
            log.warning("found_dead", runner=former, new_runner=self.id, jobs_dropped=dropped)
            self._crew.forget_pace()
            self._listener.begin_anew(self.id)
            self._link.name = name_of(self.id)
        self._register(connection)
        self._times.beat = 0.0
        self._link.show_name()

    def _register(self, connection: queue.Connection) -> None:
        # First: its answer may be lost, and who beats under an id has to claim under it.
        self._may_claim = False
        self._crew.begin(self.id)
        self._reports.begin(self.id)
        # If it was before, and its answer lost, we were found dead since: so says the next beat.
        with suppress(psycopg.errors.UniqueViolation):
            heartbeat.register(
                connection,
                self.id,
                models=dict.fromkeys(self._crew.models, self._settings.workers),
                lease_seconds=self._settings.lease_seconds,
                wake_channel=self._link.channel,
            )
        self._is_known = True
        self._activity.begin(connection)


def name_of(runner: str) -> str:
    """What the server calls the connection of a runner."""
    return f"jobrunner {runner}"
