"""Who is woken up: one of the runners that sleep, and others where that one has no worker free."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest

from helpers import RUNNER, Jobs, wait_for
from jobrunner import claimer as claimer_module
from jobrunner import heartbeat, queue
from jobrunner.activity import Activity
from jobrunner.claimer import SECOND_LOOK_SECONDS, Claimer
from jobrunner.database import BoundedConnection
from jobrunner.leases import Leases
from jobrunner.links import Link
from jobrunner.listener import Listener
from jobrunner.outcome import Job
from jobrunner.sleep import Sleep
from processes import System, system

FIRST, SECOND, THIRD = "p-1-abcd", "q-1-abcd", "r-1-abcd"
OLD = "old-1-abcd"
# What is said where others sleep that were not told.
OTHERS = f": {heartbeat.OTHERS_SLEEP}"
CHOSEN: LiteralString = """
    update runner
    set
        wake_channel = %(channel)s,
        models = %(models)s,
        sleeping = true
    where id = %(id)s
"""
HOLD_LOCK = "select pg_try_advisory_lock(runner_lock_key(%s))"
SHARE_LOCK = "select pg_try_advisory_lock_shared(runner_lock_key(%s))"
LOCKS = "select from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
BATCH = """
    insert into job (model, input)
    select
        'sentiment',
        '{"text": "good"}'
    from generate_series(1, %s)
"""

Told = Callable[[], list[str]]
AddSleeper = Callable[..., None]


@pytest.fixture
def sleeper(jobs: Jobs) -> AddSleeper:
    """Add a runner that sleeps, whose channel has its name; of an older version has none."""

    def add(runner: str, *models: str, old: bool = False, **how: Any) -> None:
        jobs.add_runner(runner, **how)
        channel = None if old else f"channel of {runner}"
        values = {"id": runner, "channel": channel, "models": [*models] or ["sentiment"]}
        jobs.db.execute(CHOSEN, values)

    return add


@pytest.fixture
def told(jobs: Jobs, owner_url: str) -> Iterator[Told]:
    """Who has been told of jobs since the last time, by name, and what: whether others sleep."""
    with psycopg.connect(owner_url, autocommit=True) as listener:
        for runner in (RUNNER, FIRST, SECOND, THIRD):
            listener.execute(f'listen "channel of {runner}"'.encode())
        listener.execute("listen job_submitted; listen the_end")

        def told() -> list[str]:
            # Notifications come in the order of the commits: nothing is behind the end.
            jobs.db.execute("notify the_end")
            heard: list[str] = []
            while "the_end" not in heard:
                for note in listener.notifies(timeout=10, stop_after=1):
                    channel = note.channel.removeprefix("channel of ")
                    heard.append(f"{channel}: {note.payload}" if note.payload else channel)
            return sorted(heard[:-1])

        yield told


# Whom an insert wakes up


def test_an_insert_wakes_up_one_of_those_that_sleep(
    jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    for runner in (FIRST, SECOND, THIRD):
        sleeper(runner)
    heartbeat.set_sleeping(jobs.db, FIRST, False)

    jobs.db.execute(BATCH, [100])

    assert told() in ([SECOND + OTHERS], [THIRD + OTHERS])


def test_in_time_each_is_woken_up(jobs: Jobs, sleeper: AddSleeper, told: Told) -> None:
    heard: set[str] = set()
    for runner in (FIRST, SECOND, THIRD):
        sleeper(runner)

    def all_were() -> bool:
        jobs.add()
        heard.update(told())
        return heard == {FIRST + OTHERS, SECOND + OTHERS, THIRD + OTHERS}

    wait_for(all_were, "each has had its turn")


def test_an_insert_wakes_up_one_of_those_that_serve_the_same_models(
    jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "sentiment")
    sleeper(SECOND, "sentiment", "topic")
    sleeper(THIRD, "sentiment", "topic")

    jobs.add()

    assert told() in ([FIRST, SECOND + OTHERS], [FIRST, THIRD + OTHERS])


def test_runners_of_an_older_version_are_all_woken_up_as_before(
    jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(OLD, old=True)

    jobs.add()

    assert told() == ["job_submitted"]


@pytest.mark.parametrize("state", [{"has_lock": True}, {"heartbeat_ago": "11 s"}])
def test_who_seems_to_be_dead_is_woken_up_last(
    jobs: Jobs, sleeper: AddSleeper, told: Told, state: dict[str, Any]
) -> None:
    sleeper(FIRST, **state)
    sleeper(SECOND)

    jobs.add()
    assert told() == [SECOND + OTHERS]

    heartbeat.set_sleeping(jobs.db, SECOND, False)
    jobs.add()
    assert told() == [FIRST]


def test_who_holds_its_lock_is_alive_and_whoever_looks_leaves_no_lock_behind(
    jobs: Jobs, sleeper: AddSleeper, told: Told, owner_url: str
) -> None:
    for runner in (FIRST, SECOND, THIRD):
        sleeper(runner, has_lock=True)
    with psycopg.connect(owner_url, autocommit=True) as alive:
        alive.execute(HOLD_LOCK, [SECOND])

        jobs.add()

        assert told() == [SECOND + OTHERS]
        assert jobs.db.execute(LOCKS).rowcount == 0


def test_a_look_at_the_lock_of_a_runner_is_not_taken_for_that_lock(
    jobs: Jobs, owner_url: str
) -> None:
    with psycopg.connect(owner_url, autocommit=True) as other:
        other.execute(SHARE_LOCK, [FIRST])
        assert jobs.db.execute("select runner_holds_lock(%s)", [FIRST]).fetchone() == (False,)

        other.execute("select pg_advisory_unlock_all()")
        other.execute(HOLD_LOCK, [FIRST])
        assert jobs.db.execute("select runner_holds_lock(%s)", [FIRST]).fetchone() == (True,)


# Whom a runner wakes up


def test_as_many_are_woken_up_as_there_are_jobs_after_a_place(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "sentiment", "topic")
    sleeper(SECOND, "topic")
    sleeper(THIRD)
    jobs.add(model="topic")
    jobs.add(due_in="1 min")

    def wake(place: queue.Place) -> tuple[bool, list[str]]:
        told()
        return queue.wake_others(runner, RUNNER, "sentiment", place), told()

    added = [jobs.add(priority=priority) for priority in (3, 2, 1)]
    claimed = queue.claim(runner, runner=RUNNER, model="sentiment", slots=3)
    assert [job.id for job in claimed] == added
    places = [queue.place_of(job) for job in claimed]
    queue.release(runner, claimed)

    assert wake(queue.FRONT) == (True, [FIRST, THIRD])
    assert wake(places[1]) == (True, [FIRST, THIRD])
    assert wake(places[2]) in ((True, [FIRST + OTHERS]), (True, [THIRD + OTHERS]))
    assert wake(queue.place_at(0)) == (False, [])


def test_another_is_woken_up_that_serves_the_model(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "topic")
    sleeper(SECOND, heartbeat_ago="11 s")
    sleeper(THIRD)

    assert heartbeat.wake_another(runner, RUNNER, "sentiment")
    assert told() == [THIRD + OTHERS]

    assert heartbeat.wake_another(runner, THIRD, "sentiment")
    assert told() == [SECOND]

    assert not heartbeat.wake_another(runner, RUNNER, "other")
    assert not heartbeat.wake_another(runner, FIRST, "topic")
    assert told() == []


class Workers:
    """One worker, idle until it is given a job, which may have some ahead."""

    batch_size, hold_until, fill_at, card = 1, 0.0, 1e9, None

    def __init__(self, ahead: int = 0) -> None:
        self.given: list[str] = []
        self.most = 1 + ahead

    @property
    def idle(self) -> int:
        return int(not self.given)

    @property
    def room(self) -> int:
        return self.most - len(self.given)

    def give(self, jobs: list[Job], hold_until: float) -> None:
        self.given += [job.id for job in jobs]


class Clock:
    """The monotonic clock, which the test moves."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(claimer_module, "monotonic", clock)
    return clock


Asleep = Callable[..., Claimer]
SLEEPS = "select from runner where id = %s and sleeping"


@pytest.fixture
def asleep(runner: BoundedConnection, jobs: Jobs, clock: Clock) -> Asleep:
    """One that claims for RUNNER, and sleeps."""

    def asleep(workers: Workers, sleep: Sleep | None = None, model: str = "sentiment") -> Claimer:
        claimer = Claimer(
            workers,  # type: ignore[arg-type]
            model,
            60,
            Activity(),
            sleep or Sleep(),
            Leases(list),
        )
        jobs.db.execute(
            "update runner set wake_channel = 'channel of ' || id where id = %s", [RUNNER]
        )
        claimer.begin(RUNNER)
        claimer.claim(runner)
        clock.now += 1
        claimer.claim(runner)
        return claimer

    return asleep


def tell(claimer: Claimer, connection: BoundedConnection, others_sleep: bool = True) -> None:
    """Do what a runner does when it was told of jobs."""
    claimer.wake_up(others_sleep)
    claimer.claim_at_once(connection)
    claimer.pass_on(connection)
    claimer.claim(connection)


@pytest.mark.parametrize("is_ready", [True, False])
@pytest.mark.parametrize(("left", "woken"), [(0, 0), (1, 1), (2, 2), (9, 3)])
def test_who_has_no_worker_free_any_more_wakes_up_others_for_what_is_left(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    clock: Clock,
    left: int,
    woken: int,
    is_ready: bool,
) -> None:
    workers = Workers(ahead=20)
    claimer = asleep(workers)
    jobs.db.execute(BATCH, [1 + left])
    assert told() == [RUNNER]
    for other in (FIRST, SECOND, THIRD):
        sleeper(other)
    if not is_ready:
        claimer._readied = None

    tell(claimer, runner)

    heard = told()
    assert len(heard) == woken
    # Whether others sleep that were not told.
    assert [OTHERS in said for said in heard] == [woken < 3] * woken
    if woken:
        # They are left what they were woken up for.
        assert len(workers.given) == 1
        assert claimer.due == clock.now + SECOND_LOOK_SECONDS
        clock.now += SECOND_LOOK_SECONDS
    # It was told once, and so does it tell.
    claimer.claim(runner)
    assert told() == []
    assert len(workers.given) == 1 + left


def test_who_was_told_with_others_or_that_nobody_else_sleeps_asks_for_none(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(queue, "wake_others", lambda *_: asked.append("others"))

    for others_sleep in (False, True):
        claimer = asleep(Workers())
        jobs.add()
        tell(claimer, runner, others_sleep)

        assert asked == ["others"] * others_sleep


def test_of_what_it_was_told_before_it_has_looked_nothing_is_forgotten(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    claimer = asleep(Workers())
    sleeper(FIRST)
    jobs.db.execute(BATCH, [2])
    told()

    claimer.wake_up(True)
    tell(claimer, runner, others_sleep=False)

    assert told() == [FIRST]


def test_where_nobody_else_sleeps_jobs_are_claimed_ahead_at_once(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep
) -> None:
    for others_sleep in (False, True):
        workers = Workers(ahead=5)
        claimer = asleep(workers)
        jobs.db.execute(BATCH, [4])

        tell(claimer, runner, others_sleep)

        assert len(workers.given) == 4


def test_who_finds_by_itself_more_than_it_has_workers_for_wakes_up_others(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    clock: Clock,
) -> None:
    claimer = asleep(Workers())
    sleeper(FIRST)
    sleeper(SECOND)
    for _ in range(3):
        jobs.add(due_in="1 min")
    jobs.db.execute("update job set run_at = clock_timestamp()")
    told()

    clock.now = claimer.due
    claimer.claim(runner)

    assert told() == [FIRST, SECOND]


def test_who_has_a_worker_free_wakes_up_nobody(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    claimer = asleep(Workers())
    sleeper(FIRST)

    # The job is gone: another has found it.
    tell(claimer, runner)

    assert told() == []


@pytest.mark.parametrize("ahead", [0, 5])
def test_who_is_told_while_it_is_busy_lets_another_see_to_it_and_is_not_told_again(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    ahead: int,
) -> None:
    workers = Workers(ahead)
    claimer = asleep(workers)
    jobs.add()
    tell(claimer, runner, others_sleep=False)
    assert bool(jobs.db.execute(SLEEPS, [RUNNER]).rowcount) is bool(ahead)
    sleeper(FIRST)
    sleeper(SECOND)
    # It comes before all that was claimed.
    jobs.add(priority=5)
    told()

    tell(claimer, runner)

    assert told() in ([FIRST + OTHERS], [SECOND + OTHERS])
    assert len(workers.given) == 1
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 0
    jobs.add()
    assert told() in ([FIRST + OTHERS], [SECOND + OTHERS])


def test_who_is_told_while_a_batch_waits_for_more_lets_another_see_to_it(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    clock: Clock,
) -> None:
    workers = Workers()
    claimer = asleep(workers)
    # It has claimed one, that is, which has used up what it had ready.
    workers.hold_until, claimer._readied = clock.now + 10, None
    sleeper(FIRST)
    jobs.add()
    told()

    tell(claimer, runner)

    assert told() == [FIRST]
    assert workers.given == []


def test_who_is_told_and_has_no_room_lets_another_see_to_it_though_nobody_else_slept(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    claimer = asleep(Workers())
    jobs.add()
    tell(claimer, runner, others_sleep=False)
    jobs.add()
    sleeper(FIRST)
    told()

    tell(claimer, runner, others_sleep=False)

    assert told() == [FIRST]


def test_who_is_told_in_vain_takes_itself_off_whatever_it_thinks_that_its_row_says(
    runner: BoundedConnection, jobs: Jobs, told: Told, asleep: Asleep
) -> None:
    claimer = asleep(Workers())
    jobs.add()
    tell(claimer, runner)
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 0
    heartbeat.set_sleeping(jobs.db, RUNNER, True)

    tell(claimer, runner)

    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 0


def test_what_was_told_in_vain_is_forgotten_by_who_has_a_worker_free_again(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    workers = Workers(ahead=5)
    claimer = asleep(workers)
    jobs.add()
    tell(claimer, runner)
    claimer.wake_up(True)
    workers.given.clear()
    claimer.claim(runner)
    sleeper(FIRST)
    jobs.add()
    told()

    tell(claimer, runner)

    assert len(workers.given) == 1
    assert told() == []


def test_a_worker_that_is_to_be_replaced_is_not_free(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    workers = Workers()
    claimer = asleep(workers)
    workers.most = 0
    sleeper(FIRST)
    jobs.add()
    told()

    tell(claimer, runner)

    assert told() == [FIRST]


def test_a_job_of_one_model_is_not_passed_on_for_another_that_is_busy(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    sleep = Sleep(models=2)
    busy, free = Workers(ahead=5), Workers()
    claimers = [
        asleep(workers, sleep, model) for model, workers in (("sentiment", busy), ("topic", free))
    ]
    for claimer in claimers:
        claimer.look_soon()
        claimer.claim(runner)
    assert sleep.is_sound
    jobs.add()
    for claimer in claimers:
        tell(claimer, runner, others_sleep=False)
    assert len(busy.given) == 1
    sleeper(FIRST, "sentiment", "topic")
    told()
    jobs.add(model="topic")
    told()

    for claimer in claimers:
        claimer.wake_up(True)
    for claimer in claimers:
        claimer.claim_at_once(runner)
    for claimer in claimers:
        claimer.pass_on(runner)

    assert len(free.given) == 1
    assert told() == []
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 1


def test_who_is_told_while_it_is_busy_and_nobody_else_sleeps_claims_ahead(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep
) -> None:
    workers = Workers(ahead=5)
    claimer = asleep(workers)
    for _ in range(3):
        jobs.add()
        tell(claimer, runner, others_sleep=False)

    assert len(workers.given) == 3
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 1


def test_who_is_told_when_it_is_to_stop_lets_another_see_to_it(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    workers = Workers()
    claimer = asleep(workers)
    sleeper(FIRST)
    claimer.stop()

    tell(claimer, runner)

    assert told() == [FIRST]
    assert workers.given == []
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 0


def test_who_hears_nothing_is_not_told_until_it_does(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, clock: Clock
) -> None:
    sleep = Sleep()
    claimer = asleep(Workers(), sleep)

    for hears in (True, False):
        sleep.listen(runner, hears)
        assert bool(jobs.db.execute(SLEEPS, [RUNNER]).rowcount) is hears
    sleep.listen(runner, True)
    # An insert that is in flight now does not see it: so it falls asleep anew, and looks again.
    assert not sleep.holds("sentiment")
    claimer.look_soon()
    claimer.claim(runner)
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 1
    assert claimer.due == clock.now + SECOND_LOOK_SECONDS


def test_whether_it_sleeps_is_said_again_in_doubt(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep
) -> None:
    sleep = Sleep()
    asleep(Workers(), sleep)
    # A failover may have lost it, say.
    heartbeat.set_sleeping(jobs.db, RUNNER, False)

    sleep.doubt()
    sleep.listen(runner, True)

    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 1


def test_whether_it_sleeps_is_said_again_where_the_answer_was_lost(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    sleep = Sleep()
    asleep(Workers(), sleep)
    say = heartbeat.set_sleeping

    def lose_answer(*what: Any) -> None:
        say(*what)
        raise psycopg.OperationalError("the connection was lost meanwhile")

    monkeypatch.setattr(heartbeat, "set_sleeping", lose_answer)
    with pytest.raises(psycopg.OperationalError):
        sleep.set(runner, "sentiment", False)
    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 0
    monkeypatch.setattr(heartbeat, "set_sleeping", say)

    sleep.listen(runner, True)

    assert jobs.db.execute(SLEEPS, [RUNNER]).rowcount == 1


# A runner


def test_each_runner_is_told_on_a_channel_of_its_own(
    runner_url: str, jobs: Jobs, sleeper: AddSleeper
) -> None:
    one, other = Link(runner_url, FIRST), Link(runner_url, SECOND)
    for runner, link in ((FIRST, one), (SECOND, other)):
        link.open()
        sleeper(runner)
        jobs.db.execute("update runner set wake_channel = %s where id = %s", [link.channel, runner])
    heartbeat.set_sleeping(jobs.db, SECOND, False)

    jobs.add()

    assert wait_for(one.hear, "it hears") == [(one.channel, "")]
    jobs.db.execute("notify cancel_requested")
    assert wait_for(other.hear, "it hears something else") == [("cancel_requested", "")]
    one.lose()
    other.lose()


def test_a_listener_hears_what_its_link_would(
    runner_url: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.add_runner(FIRST)
    link = Link(runner_url, FIRST)
    link.open()
    link.pooled = True
    listener = Listener(runner_url, FIRST, link)
    assert not listener.hears
    assert listener.tend(jobs.db)
    assert listener.hears

    jobs.db.execute("select pg_notify(%s, '')", [link.channel])

    assert wait_for(listener.hear, "it hears") == [(link.channel, "")]
    listener.lose()
    assert not listener.hears
    link.lose()


# So rare a poll, and a beat, that only a notification can explain a quick start.
SELDOM = {
    "JOBRUNNER_POLL_SECONDS": 60,
    "JOBRUNNER_LEASE_SECONDS": 600,
    "JOBRUNNER_GRACE_SECONDS": 0,
    "MOCK_DELAY_SECONDS": 300,
}
QUICKLY = 5
# They have fallen asleep, and have looked once more.
ASLEEP = """
    select
    from runner
    where
        sleeping
        and not exists (
            select
            from pg_stat_activity
            where
                application_name = 'jobrunner ' || runner.id
                and clock_timestamp() < state_change + interval '200 ms'
        )
"""
HOLDERS = "select distinct claimed_by from job where status = 'processing'"


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


@pytest.fixture
def fleet(services: System, jobs: Jobs) -> Callable[[int], None]:
    """Start so many runners of one worker, and wait until they sleep and have looked twice."""

    def fleet(count: int) -> None:
        for _ in range(count):
            services.runner("--workers", "1", **SELDOM)
        wait_for(lambda: jobs.db.execute(ASLEEP).rowcount == count, "all sleep")

    return fleet


@pytest.mark.process
def test_a_burst_wakes_up_as_many_runners_as_it_takes(
    fleet: Callable[[int], None], jobs: Jobs
) -> None:
    fleet(4)

    jobs.db.execute(BATCH, [4])

    wait_for(lambda: jobs.db.execute(HOLDERS).rowcount == 4, "all are at work", QUICKLY)


@pytest.mark.process
def test_what_comes_while_all_but_one_are_busy_finds_that_one(
    fleet: Callable[[int], None], jobs: Jobs
) -> None:
    fleet(3)

    def at_work() -> int:
        return jobs.db.execute(HOLDERS).rowcount

    jobs.add("good")
    wait_for(lambda: at_work() == 1, "it is started", QUICKLY)
    jobs.add("good")
    wait_for(lambda: at_work() == 2, "it is started", QUICKLY)
    jobs.add("good")
    wait_for(lambda: at_work() == 3, "it is started", QUICKLY)


@pytest.mark.process
def test_who_leaves_lets_another_look_for_what_it_has_handed_back(
    services: System, jobs: Jobs
) -> None:
    first = services.runner("--workers", "1", **SELDOM)
    wait_for(lambda: jobs.db.execute(ASLEEP).rowcount == 1, "it sleeps")
    job_id = jobs.add("good")
    wait_for(lambda: jobs.status(job_id) == "processing", "it is started")
    services.runner("--workers", "1", **SELDOM)
    wait_for(lambda: jobs.db.execute(ASLEEP).rowcount == 1, "the other sleeps")
    holder = jobs.get(job_id)["claimed_by"]

    first.process.terminate()

    wait_for(
        lambda: jobs.get(job_id)["claimed_by"] not in (holder, None),
        "the other has started it",
        QUICKLY,
    )
