"""What a runner hears while it talks to the database, and its last words."""

from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import replace
from datetime import timedelta
from math import inf
from threading import Event
from typing import Any

import psycopg
import pytest

from helpers import Jobs, wait_for
from jobrunner import heartbeat, log, queue, registry
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.database import LOCK_SECONDS, BoundedConnection
from jobrunner.depth import Depth
from jobrunner.errors import DatabaseUnavailable
from jobrunner.links import Link
from jobrunner.progress import Reporter
from jobrunner.reports import Reports
from jobrunner.runner import NAP_SECONDS, Runner, Settings
from jobrunner.signals import StopSignals
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Waitable

MOCK = ModelSpec("sentiment", "jobrunner.models.mock:MockSentiment", {"delay_seconds": 0})

ASLEEP = "select from runner where sleeping"
COUNTED = "select sum(completed) from activity where minute = '-infinity'"


@pytest.fixture(autouse=True)
def lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """A runner that is started here writes its log to standard error, as by its command."""
    monkeypatch.setattr(log._lines, "on", True)


@pytest.fixture
def settings(runner_url: str) -> Settings:
    return Settings(
        url=runner_url,
        listen_url=runner_url,
        workers=1,
        # So that it beats, and records what was done, six times a second.
        lease_seconds=1,
        poll_seconds=60,
        grace_seconds=0,
        limits=WorkerLimits(max_result_bytes=10_000),
        retention=timedelta(days=30),
    )


Said = Callable[[], str]


@pytest.fixture
def said(capfd: pytest.CaptureFixture[str]) -> Said:
    """All that runners have written to their logs so far."""
    heard: list[str] = []

    def said() -> str:
        heard.append(capfd.readouterr().err)
        return "".join(heard)

    return said


Used = Callable[[Callable[[Runner], None]], None]


@pytest.fixture
def used(settings: Settings, threads: ThreadPoolExecutor) -> Used:
    """Let a runner run as long as somebody uses it."""

    def used(use: Callable[[Runner], None]) -> None:
        def use_and_end() -> None:
            try:
                use(runner)
            finally:
                signals.count = 2

        with StopSignals() as signals:
            runner = Runner(settings, [MOCK], signals)
            done = threads.submit(use_and_end)
            runner.run()
        done.result()

    return used


def submit_and_tell(jobs: Jobs, connection: queue.Connection) -> None:
    """Submit a job, and let the notification come along with the answer to something else."""
    jobs.add()
    connection.execute("select")


@pytest.mark.parametrize(("owner", "step"), [(Crew, "claim"), (Reporter, "tell")])
def test_a_job_that_is_told_of_with_the_last_answer_of_a_turn_is_claimed_before_the_next_wait(
    settings: Settings,
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
    owner: type[Crew | Reporter],
    step: str,
) -> None:
    told = Event()
    pending: list[int] = []
    pauses: list[float] = []
    wait, act = Crew.wait, getattr(owner, step)

    def act_and_hear(actor: Crew | Reporter, connection: queue.Connection, *how: Any) -> None:
        act(actor, connection, *how)
        if not told.is_set() and jobs.db.execute(ASLEEP).rowcount:
            submit_and_tell(jobs, runner._link.open())
            told.set()

    def wait_and_note(
        crew: Crew, seconds: float, others: Sequence[Waitable], listen: bool = True
    ) -> Collection[int]:
        if told.is_set():
            pending.append(jobs.count("pending"))
            pauses.append(seconds)
            signals.count = 2 if len(pauses) == 2 else 0
        return wait(crew, seconds, others, listen)

    monkeypatch.setattr(owner, step, act_and_hear)
    monkeypatch.setattr(Reporter, "due", True)
    if step == "claim":
        # Then there is nothing to report.
        monkeypatch.setattr(Reports, "tell", lambda reports, link, attend: None)
    monkeypatch.setattr(Crew, "wait", wait_and_note)
    with StopSignals() as signals:
        runner = Runner(settings, [MOCK], signals)
        runner.run()

    assert pending[0] == 0
    # Its worker may run first; then it has to say that it needs not be woken up any more.
    assert pauses[:2] == [NAP_SECONDS, 0]


def test_a_job_that_comes_while_the_runner_beats_is_claimed_before_it_says_more(
    settings: Settings, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = Event()
    pending: list[int] = []
    beat, write = heartbeat.beat, Runner._write

    def beat_and_hear(
        connection: queue.Connection, id: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        answer = beat(connection, id, pulse)
        if not told.is_set() and jobs.db.execute(ASLEEP).rowcount:
            submit_and_tell(jobs, runner._link.open())
            told.set()
        return answer

    def note_and_write(runner: Runner, connection: queue.Connection) -> None:
        if told.is_set():
            pending.append(jobs.count("pending"))
            signals.count = 2
        write(runner, connection)

    monkeypatch.setattr(heartbeat, "beat", beat_and_hear)
    monkeypatch.setattr(Runner, "_write", note_and_write)
    with StopSignals() as signals:
        runner = Runner(settings, [MOCK], signals)
        runner.run()

    assert pending[0] == 0


Beats = Callable[..., AbstractContextManager[None]]
# So that the answer comes when we want it, however long that takes.
PATIENT = "set lock_timeout = 0; set statement_timeout = 0"
KEY = 4711
END_LINK = """
    select pg_terminate_backend(pid)
    from pg_stat_activity
    where application_name = 'jobrunner ' || %s
"""
IS_WAITED_FOR = "select from pg_locks where locktype = 'advisory' and objid = %s and not granted"


@pytest.fixture
def beats(jobs: Jobs, owner_url: str, monkeypatch: pytest.MonkeyPatch) -> Beats:
    """Within what it gives, a runner that is asleep waits for the answer to a beat."""
    beat, wanted, patience = heartbeat.beat, Event(), [120.0]
    # Over the listener's connection, however late.
    monkeypatch.setattr("jobrunner.reports.LATES_PER_LEASE", 0.001)

    def beat_late(
        connection: queue.Connection, id: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        if wanted.is_set() and jobs.db.execute(ASLEEP).rowcount:
            wanted.clear()
            assert isinstance(connection, BoundedConnection)
            [connection.answer_seconds] = patience
            connection.execute(PATIENT)
            connection.execute("select pg_advisory_lock(%s)", [KEY])
        return beat(connection, id, pulse)

    @contextmanager
    def beats(answer_seconds: float = 120) -> Iterator[None]:
        patience[:] = [answer_seconds]
        with psycopg.connect(owner_url, autocommit=True) as holder:
            holder.execute("select pg_advisory_lock(%s)", [KEY])
            wanted.set()
            wait_for(lambda: holder.execute(IS_WAITED_FOR, [KEY]).rowcount, "it beats")
            yield

    monkeypatch.setattr(heartbeat, "beat", beat_late)
    return beats


def test_a_job_that_comes_while_an_answer_beside_the_work_is_waited_for_is_done_meanwhile(
    jobs: Jobs,
    used: Used,
    beats: Beats,
) -> None:
    def use(_: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        with beats():
            jobs.wait(jobs.add(), "completed")

    used(use)
    assert jobs.db.execute(COUNTED).fetchone() == (2,)


def test_who_loses_one_connection_while_it_waits_for_the_other_says_so_once_and_goes_on(
    jobs: Jobs,
    used: Used,
    beats: Beats,
    capfd: pytest.CaptureFixture[str],
) -> None:
    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        with beats():
            assert jobs.db.execute(END_LINK, [runner.id]).fetchall() == [(True,)]
            wait_for(lambda: not runner._link.connected, "it has noticed")
            wait_for(lambda: runner._link.due, "it might have tried to connect")
        jobs.wait(jobs.add(), "completed")

    used(use)
    said = capfd.readouterr().err
    assert said.count("database_lost") == 1
    assert "listener_lost" not in said


def test_an_answer_beside_the_work_is_not_waited_for_longer_because_of_what_is_told_meanwhile(
    jobs: Jobs,
    used: Used,
    beats: Beats,
) -> None:
    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        with beats(answer_seconds=3):
            connection = runner._listener._connection
            wait_for(lambda: tell() and runner._listener._connection is not connection, "given up")
        jobs.wait(jobs.add(), "completed")

    def tell() -> bool:
        return jobs.db.execute("select pg_notify('cancel_requested', '')").rowcount == 1

    used(use)


def test_a_stop_that_is_asked_for_while_an_answer_beside_the_work_is_waited_for_begins_meanwhile(
    settings: Settings, jobs: Jobs, threads: ThreadPoolExecutor, beats: Beats
) -> None:
    def use() -> None:
        try:
            jobs.wait(jobs.add(), "completed")
            with beats():
                signals.count = 1
                wait_for(lambda: runner._stops_heard == 1, "it has begun to stop")
        finally:
            signals.count = 2

    with StopSignals() as signals:
        runner = Runner(replace(settings, grace_seconds=120), [MOCK], signals)
        used = threads.submit(use)
        runner.run()

    used.result()


LOCK_IS_SEEN = "select runner_holds_lock(%s)"


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server lets what waits for a lock wait."""
    monkeypatch.setattr("jobrunner.database.STATEMENT_TIMEOUT", "set statement_timeout = 0")


@pytest.mark.parametrize("listener", ["rests", "is waited for"])
@pytest.mark.usefixtures("patient")
def test_who_loses_its_listener_while_it_waits_for_something_else_has_its_lock_again_in_time(
    jobs: Jobs, owner_url: str, used: Used, beats: Beats, listener: str
) -> None:
    """That other thing takes longer than it takes to be found dead."""
    waits = beats if listener == "is waited for" else nullcontext

    def listens_anew(listener: str, former: int) -> bool:
        return jobs.db.execute(PID_OF, [listener]).fetchall() not in ([], [(former,)])

    def is_locked(runner: str) -> bool:
        return jobs.db.execute(LOCK_IS_SEEN, [runner]).fetchone() == (True,)

    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        wait_for(lambda: runner._listener.holds_lock, "it holds its lock")
        runner._link.open().answer_seconds = 120
        with waits(), psycopg.connect(owner_url) as holder:
            holder.execute("lock table job in access exclusive mode")
            wait_for(lambda: jobs.db.execute(WAITS, [f"jobrunner {runner.id}"]).rowcount, "waits")
            name = f"jobrunner listener {runner.id}"
            [(pid,)] = jobs.db.execute(PID_OF, [name]).fetchall()
            jobs.db.execute(END_BACKEND, [pid])
            wait_for(lambda: listens_anew(name, pid), "it is there again")
            wait_for(lambda: is_locked(runner.id), "it has its lock")
            # Whether it still waits for that, or does again.
            wait_for(lambda: jobs.db.execute(WAITS, [f"jobrunner {runner.id}"]).rowcount, "waits")
        wait_for(lambda: runner._listener.holds_lock, "it knows that it does")
        jobs.wait(jobs.add(), "completed")

    used(use)


def test_who_rescues_a_job_lets_another_look_for_it(jobs: Jobs, used: Used, owner_url: str) -> None:
    """Its own workers may all be busy, for long."""
    jobs.add_runner("asleep-1-abcd")

    def use(runner: Runner) -> None:
        wait_for(lambda: runner._sweeper._rescue_at, "it has looked for such jobs")
        job_id = jobs.add(status="processing", claimed_by="dead-1-abcd")
        # Not before: that insert would tell it.
        asleep = "update runner set sleeping = true, wake_channel = 'woken' where id like 'asleep%'"
        jobs.db.execute(asleep)
        with psycopg.connect(owner_url, autocommit=True) as other:
            other.execute("listen woken")
            runner._sweeper._rescue_at = 0.0
            assert [note.payload for note in other.notifies(timeout=30, stop_after=1)] == [""]
        assert jobs.wait(job_id, "completed")["attempt"] == 2

    used(use)


PID_OF = "select pid from pg_stat_activity where application_name = %s"
WAITS = f"{PID_OF} and wait_event_type = 'Lock'"


def test_at_a_second_signal_an_answer_beside_the_work_is_not_waited_for(
    settings: Settings,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    beats: Beats,
) -> None:
    has_left = Event()

    def use() -> None:
        try:
            jobs.wait(jobs.add(), "completed")
            with beats():
                signals.count = 2
                assert has_left.wait(45)
        finally:
            signals.count = 2

    with StopSignals() as signals:
        used = threads.submit(use)
        Runner(settings, [MOCK], signals).run()
        has_left.set()

    used.result()


@pytest.mark.parametrize(
    ("refusal", "trouble"),
    [
        # Of this session alone: a plan that is no good any more, say.
        (psycopg.errors.FeatureNotSupported("no plan"), "holds no lock: no plan"),
        # Not for good; but who judges us has more patience.
        (psycopg.errors.QueryCanceled("too slow"), None),
    ],
)
def test_a_beat_that_is_refused_on_one_connection_goes_over_the_other_in_time(
    jobs: Jobs,
    used: Used,
    monkeypatch: pytest.MonkeyPatch,
    refusal: psycopg.Error,
    trouble: str | None,
) -> None:
    beat = heartbeat.beat
    listened: set[BoundedConnection] = set()

    def beat_or_refuse(
        connection: queue.Connection, runner: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        if isinstance(connection, BoundedConnection) and connection.meanwhile:
            listened.add(connection)
            raise refusal
        return beat(connection, runner, pulse)

    def use(_: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        said = "select trouble from runner where completed = 1"
        told = wait_for(lambda: jobs.db.execute(said).fetchall(), "the row tells of it")
        assert told == [(trouble,)]
        # It is not tried again and again.
        assert len(listened) <= 8

    monkeypatch.setattr(heartbeat, "beat", beat_or_refuse)
    used(use)


END_BACKEND = "select pg_terminate_backend(%s)"


@pytest.mark.parametrize("how", ["ended", "refused"])
def test_a_beat_that_takes_the_other_way_does_not_say_that_it_holds_the_lock_which_goes_with_this(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """Who says so, and does not within seconds, is found dead."""
    beat, has_lock, wanted = heartbeat.beat, list[bool](), Event()

    def beat_or_not(
        connection: queue.Connection, runner: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        assert isinstance(connection, BoundedConnection)
        if connection.meanwhile and wanted.is_set():
            assert pulse.has_lock
            if how == "refused":
                raise psycopg.errors.FeatureNotSupported("no plan")
            jobs.db.execute(END_BACKEND, [connection.info.backend_pid])
        elif wanted.is_set():
            has_lock.append(pulse.has_lock)
            wanted.clear()
        return beat(connection, runner, pulse)

    def use(_: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        wanted.set()
        assert wait_for(lambda: has_lock, "it has beaten") == [False]

    monkeypatch.setattr(heartbeat, "beat", beat_or_not)
    used(use)


def test_a_beat_that_is_refused_on_both_connections_costs_it_neither_nor_the_lock(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    beat, refused, wanted = heartbeat.beat, Event(), Event()

    def beat_or_refuse(
        connection: queue.Connection, runner: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        if wanted.is_set():
            assert isinstance(connection, BoundedConnection)
            if not connection.meanwhile:
                wanted.clear()
                refused.set()
                raise psycopg.errors.LockNotAvailable("held")
            raise psycopg.errors.FeatureNotSupported("no plan")
        return beat(connection, runner, pulse)

    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        assert runner._listener.holds_lock
        wanted.set()
        assert refused.wait(45)
        jobs.wait(jobs.add(), "completed")
        assert runner._listener.holds_lock

    monkeypatch.setattr(heartbeat, "beat", beat_or_refuse)
    used(use)
    assert "_lost" not in capfd.readouterr().err


def test_a_cancel_that_it_is_told_of_takes_a_sleeping_runner_no_claim(
    jobs: Jobs,
    used: Used,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    claim, told, claimed = Crew.claim_at_once, Event(), Event()

    def note_and_claim(crew: Crew, connection: queue.Connection) -> int:
        if told.is_set():
            claimed.set()
        return claim(crew, connection)

    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        wait_for(lambda: jobs.db.execute(ASLEEP).rowcount, "it sleeps")
        runner._times.cancel = inf
        told.set()
        jobs.db.execute("select pg_notify('cancel_requested', '')")
        wait_for(lambda: runner._times.cancel == 0, "it has heard of it")
        assert not claimed.is_set()
        jobs.wait(jobs.add(), "completed")
        assert claimed.is_set()

    monkeypatch.setattr(Crew, "claim_at_once", note_and_claim)
    # So that what it has heard stays to be seen.
    monkeypatch.setattr(Runner, "_cancel", lambda runner, connection: None)
    used(use)


def test_nothing_is_claimed_before_it_is_known_that_the_model_is_what_its_version_was(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not even while an answer beside the work is waited for."""
    beat, register, pending = heartbeat.beat, registry.register_model, list[int]()

    def beat_late(
        connection: queue.Connection, id: str, pulse: heartbeat.Pulse
    ) -> heartbeat.Answer | None:
        while not runners or not any(runners[0]._crew.standing[0]):
            connection.execute("select pg_sleep(0.05)")
        if not pending:
            connection.execute("select pg_sleep(0.2)")
        return beat(connection, id, pulse)

    def note_and_register(*model: Any) -> None:
        pending.append(jobs.count("pending"))
        register(*model)

    def use(runner: Runner) -> None:
        runners.append(runner)
        jobs.wait(job_id, "completed")
        assert pending == [1]

    runners: list[Runner] = []
    monkeypatch.setattr(heartbeat, "beat", beat_late)
    monkeypatch.setattr(registry, "register_model", note_and_register)
    job_id = jobs.add()
    used(use)


def test_a_model_that_can_not_be_registered_yet_keeps_the_runner_from_nothing_else(
    settings: Settings,
    owner_url: str,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    said: Said,
) -> None:
    """Somebody has inserted the same version, and does not commit."""

    def use() -> None:
        try:
            with psycopg.connect(owner_url) as holder:
                holder.execute(INSERT_VERSION)
                begun.set()
                jobs.wait(jobs.add(), "completed")
                wait_for(lambda: "model_not_registered" in said(), "it was refused")
                assert jobs.db.execute("select trouble from runner").fetchall() == [
                    ("other: can not be registered: canceling statement due to lock timeout",)
                ]
                held = jobs.add(model="other")
                jobs.wait(jobs.add(), "completed")
                assert jobs.status(held) == "pending"
                holder.rollback()
            jobs.wait(held, "completed")
        finally:
            begun.set()
            signals.count = 2

    begun = Event()
    other = replace(MOCK, name="other")
    with StopSignals() as signals:
        used = threads.submit(use)
        assert begun.wait(45)
        Runner(settings, [MOCK, other], signals).run()

    used.result()
    assert "database_" not in said()


INSERT_VERSION = """
    insert into model_version (
        model, version, input_schema, output_schema, max_batch_size, max_wait_ms, timeout_seconds
    )
    values ('other', 'mock-1', '{}', '{}', 1, 0, 60)
"""


def test_a_job_that_comes_with_a_report_is_claimed_before_the_next_one(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    record, sample = Activity.record, Depth.sample
    told, pending = Event(), list[int]()

    def record_and_hear(activity: Activity, connection: queue.Connection, *how: float) -> None:
        record(activity, connection, *how)
        if wanted.is_set() and not told.is_set() and jobs.db.execute(ASLEEP).rowcount:
            submit_and_tell(jobs, runners[0]._link.open())
            told.set()

    def note_and_sample(depth: Depth, connection: queue.Connection) -> None:
        if told.is_set():
            pending.append(jobs.count("pending"))
        sample(depth, connection)

    def use(runner: Runner) -> None:
        runners.append(runner)
        jobs.wait(jobs.add(), "completed")
        wanted.set()
        assert wait_for(lambda: pending, "it has looked how long the queue is")[0] == 0

    runners, wanted = list[Runner](), Event()
    monkeypatch.setattr(Activity, "record", record_and_hear)
    monkeypatch.setattr(Depth, "sample", note_and_sample)
    monkeypatch.setattr(Depth, "due", True)
    used(use)


def test_it_is_told_how_models_do_though_all_else_is_refused(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(connection: queue.Connection) -> list[queue.Rescued]:
        raise psycopg.errors.QueryCanceled("too slow")

    def use(_: Runner) -> None:
        said = "select version from runner_model where ready_workers = 1"
        told = wait_for(lambda: jobs.db.execute(said).fetchall(), "it is told")
        assert told == [("mock-1",)]

    monkeypatch.setattr(queue, "rescue", refuse)
    used(use)


FIND_DEAD = "update runner set lost_at = now(), sleeping = false"


def test_who_was_found_dead_and_may_not_register_says_so_once_and_is_back_when_it_may(
    jobs: Jobs, used: Used, said: Said
) -> None:
    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        tries.clear()
        jobs.db.execute("revoke insert on runner_model from job_runner")
        try:
            jobs.db.execute(FIND_DEAD)
            wait_for(lambda: len(tries) >= 4, "it has tried")
        finally:
            jobs.db.execute("grant insert on runner_model to job_runner")
        jobs.wait(jobs.add(), "completed")
        # What it has tried to be, it is.
        assert set(tries) == {runner.id}
        wait_for(lambda: "database_back" in said(), "it says that all is well")

    def register_and_note(connection: queue.Connection, runner: str, **how: Any) -> None:
        tries.append(runner)
        register(connection, runner, **how)

    register, tries = heartbeat.register, list[str]()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(heartbeat, "register", register_and_note)
        used(use)
    for move in ("found_dead", "database_refused", "database_back"):
        assert said().count(f" {move} ") == 1


def test_who_was_registered_unheard_and_then_found_dead_takes_another_id(
    jobs: Jobs, used: Used, monkeypatch: pytest.MonkeyPatch
) -> None:
    register, ids = heartbeat.register, list[str]()

    def register_and_die(connection: queue.Connection, runner: str, **how: Any) -> None:
        ids.append(runner)
        register(connection, runner, **how)
        if len(ids) == 2:
            jobs.db.execute(FIND_DEAD)
            raise psycopg.OperationalError("no answer from the database in time")

    def use(_: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        jobs.db.execute(FIND_DEAD)
        wait_for(lambda: len(set(ids)) == 3, "it has come back")
        jobs.wait(jobs.add(), "completed")

    monkeypatch.setattr(heartbeat, "register", register_and_die)
    used(use)


@pytest.mark.parametrize(("now", "requests"), [(False, 1), (True, 2)])
def test_a_stop_that_was_asked_of_who_was_found_dead_is_heard(
    settings: Settings,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    now: bool,
    requests: int,
) -> None:
    def use() -> None:
        try:
            jobs.wait(jobs.add(), "completed")
            with jobs.db.transaction():
                heartbeat.request_stop(jobs.db, [runner.id], now=now)
                jobs.db.execute(FIND_DEAD)
            assert has_left.wait(45)
        finally:
            signals.count = 2

    has_left = Event()
    with StopSignals() as signals:
        runner = Runner(settings, [MOCK], signals)
        used = threads.submit(use)
        runner.run()
        has_left.set()

    used.result()
    assert runner._stops_heard == requests


def connections(jobs: Jobs, runner: str) -> int:
    """How many a runner has, by their names."""
    names = [f"jobrunner {runner}", f"jobrunner listener {runner}"]
    query = "select from pg_stat_activity where application_name = any(%s)"
    return jobs.db.execute(query, [names]).rowcount


def test_who_was_found_dead_has_its_new_name_in_the_list_of_connections(
    jobs: Jobs, used: Used
) -> None:
    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        former = runner.id
        jobs.db.execute(FIND_DEAD)
        wait_for(lambda: runner.id != former, "it has found out")
        wait_for(lambda: connections(jobs, runner.id) == 2, "both are called so")
        assert connections(jobs, former) == 0

    used(use)


def test_work_goes_on_while_somebody_holds_the_row_of_a_model_of_the_runner(
    settings: Settings,
    owner_url: str,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    said: Said,
) -> None:
    def use() -> None:
        try:
            jobs.wait(jobs.add(), "completed")
            wait_for(lambda: jobs.db.execute(ASLEEP).rowcount, "it sleeps")
            with psycopg.connect(owner_url) as holder:
                holder.execute("select from runner_model for update")
                wait_for(lambda: "models_not_told" in said(), "it was refused")
                jobs.wait(jobs.add(), "completed")
            jobs.db.execute("update runner set stop_requested_at = now(), stop_now = true")
        except BaseException:
            signals.count = 2
            raise

    with StopSignals() as signals:
        used = threads.submit(use)
        Runner(settings, [MOCK], signals).run()

    used.result()
    assert "database_lost" not in said()


@pytest.mark.parametrize("lost", ["reclaim", "register"])
def test_a_runner_claims_again_though_an_answer_of_the_database_was_lost(
    jobs: Jobs,
    used: Used,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """It was committed that we have answered the roll call, or come back under a new id."""
    owner = queue if lost == "reclaim" else heartbeat
    act, failed = getattr(owner, lost), Event()

    def act_and_lose(connection: queue.Connection, *how: Any, **more: Any) -> Any:
        done = act(connection, *how, **more)
        if begun.is_set() and not failed.is_set():
            failed.set()
            raise psycopg.OperationalError("no answer from the database in time")
        return done

    def use(runner: Runner) -> None:
        jobs.wait(jobs.add(), "completed")
        begun.set()
        if lost == "reclaim":
            jobs.db.execute("truncate roll_call")
        else:
            jobs.db.execute("update runner set lost_at = now(), sleeping = false")
        assert failed.wait(45)
        jobs.wait(jobs.add(), "completed")
        wait_for(lambda: connections(jobs, runner.id) == 2, "both have its name")

    begun = Event()
    monkeypatch.setattr(owner, lost, act_and_lose)
    used(use)


# For longer than anybody does who has more to do.
WAITS_FOR_LONG = f"""
    select
    from pg_locks
    where
        not granted
        and waitstart < clock_timestamp() - interval '{5 * LOCK_SECONDS} s'
"""


@contextmanager
def held_counts(owner_url: str, jobs: Jobs, signals: StopSignals) -> Iterator[None]:
    """A runner that has done two jobs leaves, and waits for us: we hold the rows of its counts."""
    jobs.wait(jobs.add(), "completed")
    wait_for(lambda: jobs.db.execute(COUNTED).fetchone() == (1,), "the first is counted")
    with psycopg.connect(owner_url) as holder:
        holder.execute("select from activity for update")
        jobs.wait(jobs.add(), "completed")
        signals.count = 1
        wait_for(lambda: not jobs.db.execute("select from runner").rowcount, "it has signed off")
        wait_for(lambda: jobs.db.execute(WAITS_FOR_LONG).rowcount, "it waits")
        yield


@pytest.mark.parametrize(("requests", "counted"), [(1, 2), (2, 1)])
def test_a_runner_that_leaves_waits_for_who_holds_the_counts_until_it_is_to_stop_now(
    settings: Settings,
    owner_url: str,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    requests: int,
    counted: int,
) -> None:
    has_left = Event()

    def use() -> None:
        try:
            with held_counts(owner_url, jobs, signals):
                signals.count = requests
                assert requests == 1 or has_left.wait(45)
        except BaseException:
            signals.count = 2
            raise

    # So that it waits as long as it takes us.
    monkeypatch.setattr("jobrunner.runner.LAST_WORDS_SECONDS", 120)
    with StopSignals() as signals:
        used = threads.submit(use)
        Runner(settings, [MOCK], signals).run()
        has_left.set()

    used.result()
    assert jobs.db.execute(COUNTED).fetchone() == (counted,)
    assert "jobs_left" not in capfd.readouterr().err


@pytest.mark.usefixtures("patient")
def test_who_is_asked_once_more_while_it_says_its_last_words_leaves(
    settings: Settings,
    owner_url: str,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """With what it held handed back: nobody waits for that."""
    has_left = Event()

    def use() -> None:
        try:
            job_id = jobs.add("await a stop")
            jobs.wait(job_id, "processing")
            with psycopg.connect(owner_url) as holder:
                holder.execute("select from runner for update")
                signals.count = 2
                jobs.wait(job_id, "pending")
                signals.count = 3
                assert has_left.wait(45)
        except BaseException:
            signals.count = 4
            raise

    monkeypatch.setattr("jobrunner.runner.LAST_WORDS_SECONDS", 120)
    slow = replace(MOCK, options={"delay_seconds": 600})
    with StopSignals() as signals:
        used = threads.submit(use)
        Runner(settings, [slow], signals).run()
        has_left.set()

    used.result()
    assert 'reason="asked once more" jobs_left=0' in capfd.readouterr().err


def test_who_leaves_without_a_database_tries_it_now_and_then(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not as often as it can, though a worker has ended and nobody takes note of that any more."""
    tries: list[Link] = []

    def fail(link: Link) -> BoundedConnection:
        tries.append(link)
        raise DatabaseUnavailable("no database")

    monkeypatch.setattr(Crew, "wait", lambda *what, **how: set())
    monkeypatch.setattr(Link, "open", fail)
    with StopSignals() as signals:
        Runner(settings, [MOCK], signals)._leave()

    # The pause begins at 0.05 s at least, and doubles.
    assert 2 <= len(tries) <= 20
