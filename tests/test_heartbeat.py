"""Life and death of a runner, as the others judge it."""

from collections.abc import Iterator
from math import inf

import pytest

from helpers import Jobs, wait_for
from jobrunner import heartbeat
from jobrunner.database import BoundedConnection, connect
from jobrunner.heartbeat import Judge, Pulse, StopRequest
from jobrunner.links import Listener

ME = "here-1-abcd"
OTHER = "there-2-abcd"
PULSE = Pulse(False, 2, 5, 1, 0.5, 0.25)


class Clock:
    """The judge's own time, moved by hand."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(heartbeat, "monotonic", clock)
    return clock


@pytest.fixture
def runner(runner_url: str, jobs: Jobs) -> Iterator[BoundedConnection]:
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


def test_a_runner_registers_itself_and_its_model_when_that_is_loaded(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    heartbeat.register(runner, ME, model="fresh", workers=3, lease_seconds=30)
    heartbeat.register_model(runner, "fresh")
    heartbeat.register_model(runner, "fresh")

    row = jobs.db.execute("select id, models, workers, lease::text from runner").fetchone()
    assert row == (ME, ["fresh"], 3, "00:00:30")
    assert ("fresh",) in jobs.db.execute("select name from model").fetchall()


def test_a_beat_says_what_the_runner_does(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_runner(ME, heartbeat_ago="20 s")

    answer = heartbeat.beat(runner, ME, PULSE)

    assert answer == StopRequest(stop=False, now=False)
    query = "select now() - heartbeat_at < interval '5 s', completed, inference_seconds from runner"
    assert jobs.db.execute(query).fetchone() == (True, 5, 0.25)


def test_a_beat_brings_a_stop_request(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_runner(ME)
    assert heartbeat.request_stop(runner, [ME, "unknown"], now=False) == [ME]
    assert heartbeat.beat(runner, ME, PULSE) == StopRequest(stop=True, now=False)

    heartbeat.request_stop(runner, [ME], now=True)

    assert heartbeat.beat(runner, ME, PULSE) == StopRequest(stop=True, now=True)


def test_who_was_declared_lost_does_not_come_back_by_a_beat(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_runner(ME)
    jobs.db.execute("update runner set lost_at = now()")

    assert heartbeat.beat(runner, ME, PULSE) is None
    assert is_lost(jobs, ME)


def test_a_live_runner_with_its_lock_is_left_alone(
    runner: BoundedConnection, runner_url: str, jobs: Jobs, judge: Judge, clock: Clock
) -> None:
    jobs.add_runner(OTHER, has_lock=True)
    listener = Listener(runner_url, OTHER)
    listener.connect()
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
    assert judge.due == seen_absent + heartbeat.LOCK_SECONDS

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
    listener = Listener(runner_url, OTHER)
    listener.connect()

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
    seen = heartbeat.Other(OTHER, row[0], True, True, 30)

    heartbeat.beat(runner, OTHER, PULSE)

    assert heartbeat.declare_lost(runner, seen) is False
    assert not is_lost(jobs)


def test_two_runners_can_not_hold_the_same_lock(runner_url: str, db: object) -> None:
    first, second = Listener(runner_url, ME), Listener(runner_url, ME)
    first.connect()
    assert first.holds_lock

    second.connect()

    assert second.connected
    assert not second.holds_lock
    first.lose()
    second.lose()


def test_a_listener_hears_of_new_jobs(runner_url: str, jobs: Jobs) -> None:
    listener = Listener(runner_url, ME)
    listener.connect()
    assert listener.hear() == []

    jobs.db.execute("select pg_notify('job_submitted', '')")
    heard = wait_for(listener.hear, "the notification has come")

    listener.lose()
    assert heard == [("job_submitted", "")]


def test_the_rows_of_lost_runners_are_deleted_after_a_day(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    for name, lost_at in (("alive", None), ("lost", "now"), ("long-lost", "yesterday")):
        jobs.add_runner(name)
        query = "update runner set lost_at = %s::timestamptz - interval '1 m' where id = %s"
        jobs.db.execute(query, [lost_at, name])

    assert heartbeat.delete_lost(runner) == 1

    assert jobs.db.execute("select id from runner order by id").fetchall() == [
        ("alive",),
        ("lost",),
    ]
