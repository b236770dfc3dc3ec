"""Who is dead: by the lock, by the lease, and only by a judge that can commit."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf

import psycopg
import pytest

from helpers import Jobs, wait_for
from jobrunner import heartbeat
from jobrunner import judge as judge_rule
from jobrunner.database import BoundedConnection, connect
from jobrunner.heartbeat import ModelPulse, Pulse
from jobrunner.judge import Judge
from jobrunner.links import Link
from jobrunner.listener import Listener

ME = "here-1-abcd"
OTHER = "there-2-abcd"
MODEL = ModelPulse("fresh", "1", 3, 2, 0.5, 0.25, 1.0, None)
PULSE = Pulse(False, 5, 1, [MODEL])

BLOCKED = (
    "select from pg_stat_activity where wait_event_type = 'Lock' and query like 'update runner%'"
)


class Clock:
    """The judge's own time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(judge_rule, "monotonic", clock)
    return clock


@pytest.fixture
def runner(runner_url: str, jobs: Jobs) -> Iterator[BoundedConnection]:
    # That of a test before is gone once the server has seen that nobody is there any more.
    held = "select where runner_holds_lock(%s)"
    wait_for(lambda: not jobs.db.execute(held, [OTHER]).rowcount, "nobody has the lock")
    with connect(runner_url) as connection:
        yield connection


@pytest.fixture
def judge(clock: Clock) -> Judge:
    return Judge()


def sweep_for(judge: Judge, runner: BoundedConnection, clock: Clock, seconds: float) -> list[str]:
    """Look every second for so long; return who was declared lost."""
    dead = judge.sweep(runner, ME)
    for _ in range(int(seconds)):
        clock.now += 1
        dead += judge.sweep(runner, ME)
    return dead


def is_lost(jobs: Jobs, runner: str = OTHER) -> bool:
    row = jobs.db.execute("select lost_at from runner where id = %s", [runner]).fetchone()
    return bool(row and row[0])


def test_a_live_runner_with_its_lock_is_left_alone(
    runner: BoundedConnection, runner_url: str, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True)
    listener = Listener(runner_url, OTHER, Link(runner_url, OTHER))
    assert listener.tend(jobs.db)
    assert listener.holds_lock

    dead = sweep_for(judge, runner, clock, 20)

    listener.lose()
    assert dead == []


def test_a_runner_whose_lock_is_gone_is_dead_after_three_seconds(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True)

    assert sweep_for(judge, runner, clock, 2) == []
    assert sweep_for(judge, runner, clock, 1) == [OTHER]
    assert is_lost(jobs)


def test_the_next_look_is_when_the_verdict_is_ready(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    assert judge.due == inf
    jobs.add_runner(OTHER, has_lock=True)
    judge.sweep(runner, ME)
    seen_absent = clock.now

    clock.now += 1
    judge.sweep(runner, ME)
    assert judge.due == seen_absent + judge_rule.LOCK_SECONDS

    clock.now += 1
    judge.sweep(runner, ME)
    clock.now = judge.due
    assert judge.sweep(runner, ME) == [OTHER]
    assert judge.due == inf


def test_a_lock_that_comes_back_in_time_saves_its_runner(
    runner: BoundedConnection, runner_url: str, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True)
    assert sweep_for(judge, runner, clock, 2) == []
    listener = Listener(runner_url, OTHER, Link(runner_url, OTHER))
    assert listener.tend(jobs.db)

    dead = sweep_for(judge, runner, clock, 10)

    listener.lose()
    assert dead == []


def test_a_runner_without_a_lock_is_judged_by_its_lease_alone(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=False, lease="30 s", heartbeat_ago="29 s")
    assert sweep_for(judge, runner, clock, 40) == []

    jobs.db.execute("update runner set heartbeat_at = now() - interval '31 s'")

    assert sweep_for(judge, runner, clock, 1) == [OTHER]


def test_a_lease_that_is_over_counts_only_after_a_lease_of_contact(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=False, lease="30 s", heartbeat_ago="1 h")

    assert sweep_for(judge, runner, clock, 29) == []
    assert sweep_for(judge, runner, clock, 1) == [OTHER]


def test_an_outage_of_the_database_makes_nobody_dead(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True, lease="30 s", heartbeat_ago="1 h")
    assert sweep_for(judge, runner, clock, 2) == []

    clock.now += 60
    judge.lose_contact()

    assert sweep_for(judge, runner, clock, 2) == []


def test_a_judge_that_can_read_and_not_commit_finds_nobody_dead(
    runner: BoundedConnection,
    jobs: Jobs,
    judge: Judge,
    clock: Clock,
    owner_url: str,
) -> None:
    """As when a synchronous standby is away: those who live can't beat either."""
    jobs.add_runner(OTHER, has_lock=True)
    assert sweep_for(judge, runner, clock, 2) == []
    clock.now += 1

    with psycopg.connect(owner_url) as other, ThreadPoolExecutor(1) as thread:
        other.execute("select from runner for update")
        verdict = thread.submit(judge.sweep, runner, ME)
        wait_for(lambda: jobs.db.execute(BLOCKED).rowcount, "the judge can't commit")
        clock.now += 10
        other.rollback()

        assert verdict.result() == []
    assert not is_lost(jobs)
    assert sweep_for(judge, runner, clock, 3) == [OTHER]


def test_a_judge_that_was_stopped_itself_begins_anew(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True, lease="30 s", heartbeat_ago="1 h")
    assert sweep_for(judge, runner, clock, 2) == []

    clock.now += 100

    assert sweep_for(judge, runner, clock, 2) == []
    assert sweep_for(judge, runner, clock, 1) == [OTHER]


def test_a_runner_does_not_judge_itself(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(ME, has_lock=True, heartbeat_ago="1 h")

    assert sweep_for(judge, runner, clock, 60) == []


def test_a_lost_runner_does_not_sleep(
    runner: BoundedConnection, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True)
    heartbeat.set_sleeping(runner, OTHER, True)

    sweep_for(judge, runner, clock, 4)

    assert jobs.db.execute("select sleeping from runner").fetchone() == (False,)


def test_who_beats_while_being_judged_is_not_declared_lost(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_runner(OTHER, has_lock=True)
    row = jobs.db.execute("select heartbeat_at from runner").fetchone()
    assert row
    seen = judge_rule.Other(OTHER, row[0], True, True, 30)

    heartbeat.beat(runner, OTHER, PULSE)

    assert judge_rule.declare_lost(runner, seen) is False
    assert not is_lost(jobs)
