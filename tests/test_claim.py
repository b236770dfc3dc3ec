"""Claiming: who gets which job, in which order."""

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from threading import Event
from time import monotonic
from typing import Any
from uuid import uuid4

import pytest

from helpers import RUNNER, Jobs
from jobrunner import claimer as claimer_module
from jobrunner import queue
from jobrunner.activity import Activity
from jobrunner.claimer import UNWOKEN_SECONDS, Claimer
from jobrunner.database import BoundedConnection, connect
from jobrunner.leases import Leases
from jobrunner.outcome import Job
from jobrunner.sleep import Sleep


def claim(
    connection: BoundedConnection, slots: int = 10, model: str = "sentiment", ahead: bool = False
) -> list[Job]:
    return queue.claim(connection, runner=RUNNER, model=model, slots=slots, ahead=ahead)


def ids(claimed: list[Job]) -> set[str]:
    return {job.id for job in claimed}


def test_a_claim_marks_the_job_and_counts_the_attempt(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    job_id = jobs.add("some words")

    [job] = claim(runner)

    row = jobs.get(job_id)
    text, run_at = '{"text": "some words"}', row["run_at"]
    assert (job.id, job.lease_token) == (job_id, str(row["lease_token"]))
    assert (job.model, job.input, job.attempt) == ("sentiment", text, 1)
    assert (job.priority, job.run_at) == (0, run_at.timestamp())
    assert (row["status"], row["attempt"], row["claimed_by"]) == ("processing", 1, RUNNER)
    assert row["started_at"] >= row["created_at"]


def test_each_claim_has_a_new_lease_token(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add()
    [first] = claim(runner)
    queue.release(runner, [first])

    [second] = claim(runner)

    assert second.id == first.id
    assert second.lease_token != first.lease_token


def test_higher_priority_comes_first_then_age(runner: BoundedConnection, jobs: Jobs) -> None:
    older = jobs.add(due_in="-10 s")
    urgent = jobs.add(priority=5, due_in="-1 s")
    newer = jobs.add(due_in="-5 s")
    last = jobs.add(priority=-100, due_in="-60 s")

    order = [job.id for _ in range(4) for job in claim(runner, slots=1)]

    assert order == [urgent, older, newer, last]


def test_no_more_is_claimed_than_there_are_slots(runner: BoundedConnection, jobs: Jobs) -> None:
    for _ in range(5):
        jobs.add()

    claimed = claim(runner, slots=3)

    assert len(claimed) == 3
    assert jobs.count("pending") == 2


@pytest.mark.parametrize("status", ["processing", "completed", "failed"])
def test_what_is_not_pending_is_not_claimed(
    runner: BoundedConnection, jobs: Jobs, status: str
) -> None:
    jobs.add(status=status)

    assert claim(runner) == []


def test_a_job_is_not_claimed_before_its_time(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add(due_in="1 h")

    assert claim(runner) == []
    due_in = queue.next_run_at(runner, model="sentiment")
    assert due_in is not None
    assert 3590 < due_in <= 3600


def test_jobs_of_another_model_are_left_alone(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add(model="other", priority=100)
    mine = jobs.add()

    assert ids(claim(runner)) == {mine}


@pytest.mark.parametrize("state", ["unknown", "lost"])
def test_a_runner_that_was_found_dead_claims_nothing(
    runner: BoundedConnection, jobs: Jobs, state: str
) -> None:
    jobs.add()
    if state == "lost":
        jobs.db.execute("update runner set lost_at = now()")
    else:
        jobs.db.execute("delete from runner")

    assert claim(runner) == []


def test_two_runners_never_claim_the_same_job(runner_url: str, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)
    expected = {jobs.add() for _ in range(200)}

    def drain(_: int) -> list[str]:
        mine: list[str] = []
        with connect(runner_url) as connection:
            while claimed := claim(connection, slots=3):
                mine += [job.id for job in claimed]
        return mine

    with ThreadPoolExecutor(8) as pool:
        claimed = [job_id for mine in pool.map(drain, range(8)) for job_id in mine]

    assert len(claimed) == 200
    assert set(claimed) == expected


def test_a_claim_does_not_wait_for_a_locked_row(runner: BoundedConnection, jobs: Jobs) -> None:
    locked, free = jobs.add(), jobs.add()

    with jobs.db.transaction():
        jobs.db.execute("select from job where id = %s for update", [locked])
        claimed = claim(runner)

    assert ids(claimed) == {free}


def test_a_claim_whose_answer_was_lost_is_handed_back_uncounted(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    for _ in range(2):
        jobs.add()
    known, unknown = claim(runner)
    elsewhere = jobs.add(status="processing", claimed_by="another")

    released = queue.release_unknown(runner, runner=RUNNER, held=[known.id])

    assert released == [(unknown.id, "sentiment", "pending")]
    row = jobs.get(unknown.id)
    assert (row["status"], row["attempt"], row["claimed_by"]) == ("pending", 0, None)
    assert jobs.status(known.id) == "processing"
    assert jobs.status(elsewhere) == "processing"


def test_nothing_is_known_of_the_next_run_of_an_empty_queue(runner: BoundedConnection) -> None:
    assert queue.next_run_at(runner, model="sentiment") is None
    assert queue.release_unknown(runner, runner=RUNNER, held=[str(uuid4())]) == []


def test_a_claim_can_go_on_where_the_last_one_ended(runner: BoundedConnection, jobs: Jobs) -> None:
    low, first, second, third = (jobs.add(priority=priority) for priority in (-5, 7, 7, 7))
    mine = partial(queue.claim, runner, runner=RUNNER, model="sentiment")

    claimed = mine(slots=2)
    urgent = jobs.add(priority=8)
    following = mine(slots=2, place=queue.place_of(claimed[-1]))

    assert [ids(claimed), ids(following)] == [{first, second}, {third, low}]
    assert ids(mine(slots=2)) == {urgent}


def test_what_is_on_its_last_attempt_is_not_claimed_ahead(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    last = [jobs.add(max_attempts=1) for _ in range(2)]
    others = [jobs.add() for _ in range(2)]

    assert ids(claim(runner, ahead=True)) == {*others}
    assert ids(claim(runner)) == {*last}


class Clock:
    """The monotonic clock, moved by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


class Bottomless:
    """Workers that always want more; they are as if all were busy but one."""

    idle, room, batch_size, hold_until = 1, 100, 1, 0.0
    card = None

    def __init__(self) -> None:
        self.given: list[list[Job]] = []

    def give(self, jobs: list[Job], hold_until: float) -> None:
        self.given.append(jobs)


class OneIdle(Bottomless):
    """One worker that is always free, and wants nothing ahead."""

    room = 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(claimer_module, "monotonic", clock)
    return clock


@pytest.fixture
def places(monkeypatch: pytest.MonkeyPatch, clock: Clock) -> list[queue.Place]:
    """Where claims begin. From the front, one takes a tenth of a second, as it does behind
    200,000 dead rows."""
    begun: list[queue.Place] = []
    real = queue.Claim.execute

    def execute(claim: queue.Claim, connection: BoundedConnection) -> list[Job]:
        begun.append(claim.place)
        if claim.place == queue.FRONT:
            clock.now += 0.1
        return real(claim, connection)

    monkeypatch.setattr(queue.Claim, "execute", execute)
    return begun


def test_what_comes_before_the_place_is_found_where_nothing_else_is(
    runner: BoundedConnection, jobs: Jobs, clock: Clock
) -> None:
    workers = OneIdle()
    claimer = Claimer(workers, "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    usual = jobs.add()
    claimer.claim(runner)
    urgent = jobs.add(priority=5)

    claimer.look_soon()
    claimer.claim(runner)

    assert [job.id for given in workers.given for job in given] == [str(usual), str(urgent)]


class Quiet(OneIdle):
    """One that is idle, and one job a call."""

    card = None

    @property
    def idle(self) -> int:
        return self.room

    def give(self, jobs: list[Job], hold_until: float) -> None:
        super().give(jobs, hold_until)
        self.room -= len(jobs)


def test_who_is_told_of_a_job_while_asleep_claims_it_by_one_statement(
    runner: BoundedConnection, jobs: Jobs, places: list[queue.Place]
) -> None:
    workers = Quiet()
    claimer = Claimer(workers, "sentiment", 60, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    claimer.claim(runner)  # and falls asleep
    places.clear()
    job_id = jobs.add()

    claimer.claim_at_once(runner)

    assert [job.id for given in workers.given for job in given] == [str(job_id)]
    assert len(places) == 1
    # What is claimed once is not claimed again with the same lease token.
    claimer.claim_at_once(runner)
    assert len(places) == 1


def test_who_sleeps_beside_a_model_that_has_become_busy_looks_often(
    runner: BoundedConnection, jobs: Jobs, places: list[queue.Place], clock: Clock
) -> None:
    sleep, busy = Sleep(2), Quiet()
    first = Claimer(Quiet(), "sentiment", 60, Activity(), sleep, Leases(list))  # type: ignore[arg-type]
    second = Claimer(busy, "other", 60, Activity(), sleep, Leases(list))  # type: ignore[arg-type]
    for claimer in (first, second):
        claimer.begin(RUNNER)
    for _ in range(2):  # They fall asleep, and look once more.
        for claimer in (first, second):
            clock.now = max(clock.now, claimer.due)
            claimer.claim(runner)
    clock.now = first.due
    first.claim(runner)
    assert first.due > clock.now + 30

    # Now nobody is woken up.
    busy.room = 0
    second.claim(runner)

    # So long after the end of its last look, however long that took.
    assert first.due == clock.now + UNWOKEN_SECONDS


def test_nothing_is_claimed_at_once_by_who_is_busy_stops_or_has_another_id(
    runner: BoundedConnection, jobs: Jobs, places: list[queue.Place]
) -> None:
    workers = Quiet()
    claimer = Claimer(workers, "sentiment", 60, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    for change in (
        lambda: setattr(workers, "room", 0),
        lambda: claimer.begin("other-1-abcd"),
        claimer.stop,
    ):
        workers.room = 1
        claimer.begin(RUNNER)
        claimer.claim(runner)
        places.clear()
        change()
        claimer.claim_at_once(runner)

        assert places == []


def test_how_long_a_job_has_waited_is_known_though_an_answer_took_long(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    activity = Activity()
    activity.begin(runner)
    claimer = Claimer(Quiet(), "sentiment", 60, activity, Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    asked = monotonic()
    clock = queue.now(runner)
    Event().wait(0.5)
    claimer.note_clock(clock, asked)
    jobs.add(due_in="-2 s")
    began = monotonic()

    claimer.claim(runner)

    counted = activity.of("sentiment")
    assert sum(counted.waits) == 1
    assert 2 <= counted.wait_seconds < 2.1 + monotonic() - began


# Asked at 10 by our clock, and answered at 11.
@pytest.mark.parametrize(
    ("known", "told", "lead"),
    [
        pytest.param(None, 510.0, 500.0, id="at first"),
        pytest.param(499.5, 510.0, 499.5, id="a slow answer tells no better"),
        pytest.param(400.0, 510.0, 499.0, id="the clock was put forward"),
        pytest.param(600.0, 510.0, 500.0, id="the clock was put back"),
    ],
)
def test_an_answer_narrows_down_what_is_known_of_the_clock_of_the_database(
    clock: Clock, known: float | None, told: float, lead: float
) -> None:
    claimer = Claimer(Quiet(), "sentiment", 60, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    if known is not None:
        clock.now = 1.0
        claimer.note_clock(known + 1.0, 1.0)
    clock.now = 11.0

    claimer.note_clock(told, 10.0)

    assert claimer._clock_lead == lead


def test_looks_from_the_front_that_take_long_are_seldom(
    runner: BoundedConnection, jobs: Jobs, clock: Clock, places: list[queue.Place]
) -> None:
    workers = OneIdle()
    claimer = Claimer(workers, "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    claimer.claim(runner)
    began = clock.now

    while clock.now < began + 20:
        jobs.add()
        claimer.look_soon()
        claimer.claim(runner)
        clock.now += 0.2

    # Each job was found at once; a tenth of a second is looked for every two.
    assert jobs.count("processing") == jobs.count() > 90
    assert 8 <= places.count(queue.FRONT) <= 12


def test_a_look_from_the_front_that_took_very_long_blinds_for_less_than_two_seconds(
    runner: BoundedConnection, jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    workers = OneIdle()
    claimer = Claimer(workers, "sentiment", 60, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    real = queue.Claim.execute

    def execute(claim: queue.Claim, connection: BoundedConnection) -> list[Job]:
        clock.now += 5  # as where somebody holds a lock on the table
        return real(claim, connection)

    monkeypatch.setattr(queue.Claim, "execute", execute)
    claimer.claim(runner)
    monkeypatch.setattr(queue.Claim, "execute", real)
    urgent, again = jobs.add(priority=5), jobs.add(due_in="-5 min")
    claimer.look_soon()
    claimer.claim(runner)
    assert not jobs.count("processing")  # they come before the place
    began = clock.now

    # It looks when the pause is over, not at the next poll in a minute.
    while clock.now < began + 2:
        clock.now = max(clock.now + 0.001, claimer.look_at)
        claimer.claim(runner)

    assert {jobs.status(urgent), jobs.status(again)} == {"processing"}


def test_a_retry_is_found_in_time_though_to_look_for_it_took_long(
    runner: BoundedConnection, jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimer = Claimer(OneIdle(), "sentiment", 60, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    real = queue.next_run_at

    def next_run_at(*args: Any, **how: Any) -> float | None:
        clock.now += 5
        return real(*args, **how)

    claimer.claim(runner)
    clock.now = claimer.look_at
    monkeypatch.setattr(queue, "next_run_at", next_run_at)
    claimer.claim(runner)
    monkeypatch.setattr(queue, "next_run_at", real)
    jobs.add(due_in="10 s")
    began = clock.now

    # As after the outcome of an attempt that failed.
    claimer.look_soon()
    claimer.claim(runner)
    assert began < claimer.look_at < began + 2
    clock.now = claimer.look_at
    most = real(runner, model="sentiment")
    claimer.claim(runner)
    least = real(runner, model="sentiment")

    assert most
    assert least
    assert least <= claimer.look_at - clock.now <= most <= 10


def test_where_all_are_on_their_last_attempt_looks_ahead_that_take_long_are_seldom(
    runner: BoundedConnection, jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(50):
        jobs.add(max_attempts=1)
    claimer = Claimer(Bottomless(), "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    ahead: list[bool] = []
    real = queue.Claim.execute

    def execute(claim: queue.Claim, connection: BoundedConnection) -> list[Job]:
        ahead.append(claim.ahead)
        clock.now += 0.05 if claim.ahead else 0.0
        return real(claim, connection)

    monkeypatch.setattr(queue.Claim, "execute", execute)
    for _ in range(30):
        claimer.look_soon()
        claimer.claim(runner)
        assert claimer.look_at > clock.now
        clock.now += 0.1

    assert jobs.count("processing") >= 30
    assert 3 <= sum(ahead) <= 6


def test_looks_ahead_that_find_many_are_not_seldom_however_long_they_take(
    runner: BoundedConnection, jobs: Jobs, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    claimer = Claimer(Bottomless(), "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)
    real = queue.Claim.execute

    def execute(claim: queue.Claim, connection: BoundedConnection) -> list[Job]:
        clock.now += 0.05
        return real(claim, connection)

    monkeypatch.setattr(queue.Claim, "execute", execute)
    for _ in range(4):
        for _ in range(40):
            jobs.add()
        claimer.look_soon()
        claimer.claim(runner)

        assert not jobs.count("pending")


def test_no_more_is_claimed_ahead_than_memory_can_hold(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    large = [jobs.add(token_hex(250_000)) for _ in range(8)]
    workers = Bottomless()
    claimer = Claimer(workers, "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)

    claimer.claim(runner)

    at_once, ahead = workers.given
    assert ids(at_once) == {large[0]}
    assert ids(ahead) == set(large[1:5])


def test_an_input_that_is_larger_than_all_that_is_to_be_ahead_is_claimed_all_the_same(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    for _ in range(3):
        jobs.add(token_hex(1_500_000))
    workers = Bottomless()
    claimer = Claimer(workers, "sentiment", 1, Activity(), Sleep(), Leases(list))  # type: ignore[arg-type]
    claimer.begin(RUNNER)

    claimer.claim(runner)

    assert [len(given) for given in workers.given] == [1, 1]
