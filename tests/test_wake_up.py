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
from jobrunner.claimer import SECOND_LOOK_SECONDS, Claimer, Sleep
from jobrunner.database import BoundedConnection
from jobrunner.leases import Leases
from jobrunner.links import Link
from jobrunner.listener import Listener
from jobrunner.outcome import Job
from processes import System, system

FIRST, SECOND, THIRD = "p-1-abcd", "q-1-abcd", "r-1-abcd"
OLD = "old-1-abcd"
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
    """Who has been told of jobs since the last time, by name."""
    with psycopg.connect(owner_url, autocommit=True) as listener:
        for runner in (RUNNER, FIRST, SECOND, THIRD):
            listener.execute(f'listen "channel of {runner}"'.encode())
        listener.execute("listen job_submitted; listen the_end")

        def told() -> list[str]:
            # Notifications come in the order of the commits: nothing is behind the end.
            jobs.db.execute("notify the_end")
            heard: list[str] = []
            while "the_end" not in heard:
                heard += [note.channel for note in listener.notifies(timeout=10, stop_after=1)]
            return sorted(channel.removeprefix("channel of ") for channel in heard[:-1])

        yield told


# Whom an insert wakes up


def test_an_insert_wakes_up_one_of_those_that_sleep(
    jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    for runner in (FIRST, SECOND, THIRD):
        sleeper(runner)
    heartbeat.set_sleeping(jobs.db, FIRST, False)

    jobs.db.execute(BATCH, [100])

    assert told() in ([SECOND], [THIRD])


def test_in_time_each_is_woken_up(jobs: Jobs, sleeper: AddSleeper, told: Told) -> None:
    heard: set[str] = set()
    for runner in (FIRST, SECOND, THIRD):
        sleeper(runner)

    def all_were() -> bool:
        jobs.add()
        heard.update(told())
        return heard == {FIRST, SECOND, THIRD}

    wait_for(all_were, "each has had its turn")


def test_an_insert_wakes_up_one_of_those_that_serve_the_same_models(
    jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "sentiment")
    sleeper(SECOND, "sentiment", "topic")
    sleeper(THIRD, "sentiment", "topic")

    jobs.add()

    assert told() in ([FIRST, SECOND], [FIRST, THIRD])


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
    assert told() == [SECOND]

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

        assert told() == [SECOND]
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


def test_as_many_are_woken_up_as_there_are_jobs_after_a_place_but_two_at_most(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "sentiment", "topic")
    sleeper(SECOND, "topic")
    sleeper(THIRD)
    jobs.add(model="topic")
    jobs.add(due_in="1 min")
    ours = {"runner": RUNNER, "model": "sentiment"}

    def wake(place: queue.Place) -> tuple[bool, list[str]]:
        told()
        return queue.wake_others(runner, **ours, place=place), told()

    first, second, third = (jobs.add(priority=priority) for priority in (3, 2, 1))
    claimed = queue.claim(runner, **ours, slots=3)
    assert [job.id for job in claimed] == [first, second, third]
    places = [queue.place_of(job) for job in claimed]
    queue.release(runner, claimed)

    assert wake(queue.FRONT) == (True, [FIRST, THIRD])
    assert wake(places[1]) == (True, [FIRST, THIRD])
    assert wake(places[2]) in ((True, [FIRST]), (True, [THIRD]))
    assert wake(queue.place_at(0)) == (False, [])


def test_another_is_woken_up_that_serves_the_model(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told
) -> None:
    sleeper(FIRST, "topic")
    sleeper(SECOND, heartbeat_ago="11 s")
    sleeper(THIRD)

    assert heartbeat.wake_another(runner, RUNNER, "sentiment")
    assert told() == [THIRD]

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


@pytest.fixture
def asleep(runner: BoundedConnection, jobs: Jobs, clock: Clock) -> Asleep:
    """One that claims for RUNNER, and sleeps."""

    def asleep(workers: Workers, sleep: Sleep | None = None) -> Claimer:
        claimer = Claimer(
            workers,  # type: ignore[arg-type]
            "sentiment",
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


def wake_up(claimer: Claimer, connection: BoundedConnection) -> None:
    """Do what a runner does when it was woken up, and no other was."""
    claimer.look_soon()
    claimer.choose()
    claimer.claim_at_once(connection)
    claimer.pass_on(connection)
    claimer.claim(connection)


@pytest.mark.parametrize(("left", "woken"), [(0, 0), (1, 1), (9, 2)])
def test_who_has_no_worker_free_for_what_is_left_wakes_up_others(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    left: int,
    woken: int,
) -> None:
    workers = Workers()
    claimer = asleep(workers)
    jobs.db.execute(BATCH, [1 + left])
    assert told() == [RUNNER]
    for other in (FIRST, SECOND, THIRD):
        sleeper(other)

    wake_up(claimer, runner)

    assert len(workers.given) == 1
    assert len(told()) == woken
    # It was told once, and so does it tell.
    claimer.claim(runner)
    assert told() == []


def test_others_are_left_what_they_were_woken_up_for(
    runner: BoundedConnection,
    jobs: Jobs,
    sleeper: AddSleeper,
    told: Told,
    asleep: Asleep,
    clock: Clock,
) -> None:
    workers = Workers(ahead=5)
    claimer = asleep(workers)
    jobs.db.execute(BATCH, [4])
    sleeper(FIRST)
    told()

    wake_up(claimer, runner)

    assert told() == [FIRST]
    assert len(workers.given) == 1
    assert claimer.due == clock.now + SECOND_LOOK_SECONDS
    clock.now += SECOND_LOOK_SECONDS
    claimer.claim(runner)
    assert len(workers.given) == 4


@pytest.mark.parametrize("alone", [True, False])
def test_where_nobody_else_sleeps_jobs_are_claimed_ahead_as_ever(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, alone: bool
) -> None:
    sleep, workers = Sleep(), Workers(ahead=5)
    claimer = asleep(workers, sleep)
    sleep.is_alone = alone
    jobs.db.execute(BATCH, [4])

    wake_up(claimer, runner)

    assert len(workers.given) == 4


def test_who_is_alone_asks_for_nobody(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr(queue, "wake_others", lambda *_, **__: asked.append("others"))
    sleep = Sleep()
    claimer = asleep(Workers(), sleep)

    sleep.is_alone = True
    jobs.add()
    wake_up(claimer, runner)
    assert asked == []

    claimer = asleep(Workers(), Sleep())
    jobs.add()
    wake_up(claimer, runner)
    assert asked == ["others"]


def test_who_has_a_worker_free_wakes_up_nobody(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    claimer = asleep(Workers())
    sleeper(FIRST)

    # The job is gone: another has found it.
    wake_up(claimer, runner)

    assert told() == []


@pytest.mark.parametrize("ahead", [0, 5])
def test_who_is_woken_up_while_it_is_busy_wakes_up_another(
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
    claimer.look_soon()
    claimer.claim(runner)
    sleeper(FIRST)
    # It comes before all that was claimed.
    jobs.add(priority=5)
    told()

    wake_up(claimer, runner)

    assert told() == [FIRST]
    assert len(workers.given) == 1


def test_who_is_woken_up_when_it_is_to_stop_wakes_up_another(
    runner: BoundedConnection, jobs: Jobs, sleeper: AddSleeper, told: Told, asleep: Asleep
) -> None:
    workers = Workers()
    claimer = asleep(workers)
    sleeper(FIRST)
    claimer.stop()

    wake_up(claimer, runner)

    assert told() == [FIRST]
    assert workers.given == []


def test_who_hears_nothing_is_not_told_until_it_does(
    runner: BoundedConnection, jobs: Jobs, asleep: Asleep, clock: Clock
) -> None:
    def sleeps() -> bool:
        return jobs.db.execute("select from runner where sleeping").rowcount == 1

    sleep = Sleep()
    sleep.hears = False
    claimer = asleep(Workers(), sleep)
    assert not sleeps()

    for hears in (True, False):
        sleep.hears = hears
        clock.now = claimer.due
        claimer.claim(runner)
        assert sleeps() is hears


# A runner


def test_each_runner_is_told_on_a_channel_of_its_own(
    runner_url: str, jobs: Jobs, sleeper: AddSleeper
) -> None:
    one, other = Link(runner_url, FIRST), Link(runner_url, SECOND)
    for runner, link in ((FIRST, one), (SECOND, other)):
        link.open()
        sleeper(runner)
        jobs.db.execute("update runner set wake_channel = %s where id = %s", [link.channel, runner])

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


# So rare a poll that only a notification can explain a quick start.
SELDOM = {"JOBRUNNER_POLL_SECONDS": 60, "MOCK_DELAY_SECONDS": 300, "JOBRUNNER_GRACE_SECONDS": 0}
ASLEEP = "select from runner where sleeping"
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

    wait_for(lambda: jobs.db.execute(HOLDERS).rowcount == 4, "all are at work", 10)


@pytest.mark.process
def test_what_comes_while_all_but_one_are_busy_finds_that_one(
    fleet: Callable[[int], None], jobs: Jobs
) -> None:
    fleet(3)

    def at_work() -> int:
        return jobs.db.execute(HOLDERS).rowcount

    jobs.add("good")
    wait_for(lambda: at_work() == 1, "it is started", 10)
    jobs.add("good")
    wait_for(lambda: at_work() == 2, "it is started", 10)
    jobs.add("good")
    wait_for(lambda: at_work() == 3, "it is started", 10)


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
        lambda: jobs.get(job_id)["claimed_by"] not in (holder, None), "the other has started it", 10
    )
