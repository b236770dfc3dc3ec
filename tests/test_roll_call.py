"""A crash of the server may forget claims; whoever holds them says so before anybody claims."""

import signal
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from crashes import crash, forget_claims, nothing_flushed
from helpers import POSITIVE, RUNNER, Jobs, login_url, signs, wait_for
from jobrunner import embedded, heartbeat, judge, queue
from jobrunner.activity import Activity
from jobrunner.database import BoundedConnection, connect
from jobrunner.heartbeat import Pulse
from jobrunner.outbox import Outbox
from jobrunner.outcome import Failure, Job, Outcome
from processes import TOLD, System

Db = psycopg.Connection[Any]

OTHER = "there-2-abcd"
PULSE = Pulse(False, 0, 0)
RESULT = '{"sentiment": "positive", "confidence": 0.95}'


@pytest.fixture
def other(runner_url: str, jobs: Jobs) -> Iterator[BoundedConnection]:
    """A connection for another runner, OTHER, which is registered."""
    jobs.add_runner(OTHER)
    with connect(runner_url) as connection:
        yield connection


def claim(connection: BoundedConnection, runner: str = RUNNER, slots: int = 10) -> list[Job]:
    return queue.claim(connection, runner=runner, model="sentiment", slots=slots)


def forget(jobs: Jobs, *claimed: Job) -> None:
    forget_claims(jobs.db, {job.lease_token for job in claimed})


# What the server may have forgotten.


def test_who_holds_a_job_that_the_server_has_forgotten_takes_it_up_again(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(3)
    held = claim(runner)
    before = {job.id: jobs.get(job.id) for job in held}
    forget(jobs, *held)

    again = queue.reclaim(runner, runner=RUNNER, jobs=held)

    assert again == {job.id for job in held}
    for job in held:
        row, was = jobs.get(job.id), before[job.id]
        changed = {column for column in row if row[column] != was[column]}
        assert changed <= {"started_at"}
        assert abs(row["started_at"] - was["started_at"]) < timedelta(seconds=1)
    [noted] = jobs.db.execute("select lease_token::text, job_ids::text[] from job_claim").fetchall()
    assert (noted[0], set(noted[1])) == (held[0].lease_token, again)


def test_it_was_started_when_it_was_and_not_when_it_is_taken_up_again(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add()
    [held] = claim(runner)
    forget(jobs, held)
    held.claimed_at -= 100

    queue.reclaim(runner, runner=RUNNER, jobs=[held])

    [(ago,)] = jobs.db.execute("select clock_timestamp() - started_at from job").fetchall()
    assert timedelta(seconds=100) <= ago < timedelta(seconds=145)


def test_of_several_claims_each_is_taken_up_under_its_own_token(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(3)
    held = [job for _ in range(3) for job in claim(runner, slots=1)]
    forget(jobs, held[0], held[2])

    again = queue.reclaim(runner, runner=RUNNER, jobs=held)

    assert again == {held[0].id, held[2].id}
    for job in held:
        assert str(jobs.get(job.id)["lease_token"]) == job.lease_token
    assert jobs.db.execute("select count(*) from job_claim").fetchone() == (3,)


def test_an_outcome_counts_after_that(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add()
    [held] = claim(runner)
    forget(jobs, held)
    assert queue.complete(runner, [Outcome(held, 0.1, result=RESULT)]) == {}

    queue.reclaim(runner, runner=RUNNER, jobs=[held])

    assert queue.complete(runner, [Outcome(held, 0.1, result=RESULT)]) == {held.id: "completed"}


@pytest.mark.parametrize("failure", [None, Failure("model_error", "it broke")])
def test_an_outcome_of_a_claim_that_was_forgotten_unnoticed_is_recorded_all_the_same(
    runner: BoundedConnection, jobs: Jobs, failure: Failure | None
) -> None:
    """As through a pooler, whose connection outlives the server's."""
    jobs.add_many(2)
    [kept], [held] = claim(runner, slots=1), claim(runner, slots=1)

    def reclaim(connection: BoundedConnection) -> bool:
        return bool(queue.reclaim(connection, runner=RUNNER, jobs=[kept, held]))

    def count(outcomes: Iterable[Outcome]) -> None:
        counted.extend(outcome.job.id for outcome in outcomes)

    counted: list[str] = []
    outbox = Outbox(count, Activity(), reclaim)
    result = None if failure else RESULT
    outbox.add([Outcome(job, 0.1, result=result, failure=failure) for job in (kept, held)])
    forget(jobs, held)

    outbox.write(runner)

    assert len(outbox) == 0
    assert sorted(counted) == sorted([kept.id, held.id])
    expected = ("pending", 1) if failure else ("completed", 0)
    for job in (kept, held):
        row = jobs.get(job.id)
        assert (row["status"], len(row["errors"]), row["attempt"]) == (*expected, 1)


def test_what_was_recorded_is_counted_though_the_database_goes_away_then(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(2)
    [kept], [held] = claim(runner, slots=1), claim(runner, slots=1)
    forget(jobs, held)
    counted: list[str] = []

    def count(outcomes: Iterable[Outcome]) -> None:
        counted.extend(outcome.job.id for outcome in outcomes)

    def lose(connection: BoundedConnection) -> bool:
        raise psycopg.OperationalError("the connection is gone")

    outbox = Outbox(count, Activity(), lose)
    outbox.add([Outcome(job, 0.1, result=RESULT) for job in (kept, held)])

    with pytest.raises(psycopg.OperationalError):
        outbox.write(runner)

    assert counted == [kept.id]
    assert outbox.jobs == [held]


def test_what_was_cancelled_meanwhile_is_not_taken_up(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add()
    [held] = claim(runner)
    forget(jobs, held)
    jobs.db.execute("insert into cancel_request (job_id) values (%s)", [held.id])

    assert queue.reclaim(runner, runner=RUNNER, jobs=[held]) == set()
    assert jobs.get(held.id)["status"] == "failed"


def test_a_later_attempt_is_not_mistaken_for_the_one_that_is_held(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add()
    [held] = claim(runner)
    jobs.db.execute("truncate roll_call")
    # Somebody has taken it from us, and it failed there.
    jobs.db.execute("update job set status = 'pending', claimed_by = null, lease_token = null,"
                    " started_at = null")  # fmt: skip

    assert queue.reclaim(runner, runner=RUNNER, jobs=[held]) == set()
    row = jobs.get(held.id)
    assert (row["status"], row["attempt"]) == ("pending", 1)


def test_who_has_answered_takes_up_nothing_more(runner: BoundedConnection, jobs: Jobs) -> None:
    """What is pending now was handed back, or is somebody else's to claim."""
    jobs.add()
    [held] = claim(runner)
    queue.release(runner, [held])

    assert queue.reclaim(runner, runner=RUNNER, jobs=[held]) == set()
    assert jobs.get(held.id)["status"] == "pending"


def test_who_was_found_dead_takes_up_nothing(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add()
    [held] = claim(runner)
    forget(jobs, held)
    jobs.db.execute("update runner set lost_at = now()")

    assert queue.reclaim(runner, runner=RUNNER, jobs=[held]) == set()
    assert heartbeat.let_in(runner, RUNNER) is False
    assert claim(runner) == []


# Who may claim.


def test_after_a_crash_nobody_claims_until_all_have_answered(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(3)
    [held] = claim(runner, slots=1)
    forget(jobs, held)

    assert claim(other, OTHER) == []
    assert queue.reclaim(other, runner=OTHER, jobs=[]) == set()
    assert heartbeat.let_in(other, OTHER) is False
    assert claim(other, OTHER) == []

    queue.reclaim(runner, runner=RUNNER, jobs=[held])
    assert claim(other, OTHER) == []
    assert heartbeat.let_in(other, OTHER) is True
    assert held.id not in {job.id for job in claim(other, OTHER)}
    assert jobs.count("processing") == 3


def test_who_answers_is_still_to_be_let_in(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add()
    jobs.db.execute("truncate roll_call")
    queue.reclaim(runner, runner=RUNNER, jobs=[])

    assert claim(runner) == []
    assert heartbeat.let_in(runner, RUNNER) is True
    assert len(claim(runner)) == 1


def test_a_beat_says_that_we_are_missing_until_we_have_answered(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    def missing() -> bool:
        answer = heartbeat.beat(runner, RUNNER, PULSE)
        assert answer
        return answer.may_claim is None

    assert missing() is False
    jobs.db.execute("truncate roll_call")
    assert missing() is True
    queue.reclaim(runner, runner=RUNNER, jobs=[])
    assert missing() is False


def test_a_beat_says_whether_we_may_claim(runner: BoundedConnection, jobs: Jobs) -> None:
    def may_claim() -> bool | None:
        answer = heartbeat.beat(runner, RUNNER, PULSE)
        assert answer
        return answer.may_claim

    assert may_claim() is True
    jobs.db.execute("truncate roll_call")
    queue.reclaim(runner, runner=RUNNER, jobs=[])
    assert may_claim() is False


def test_all_are_told_when_one_has_answered(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs
) -> None:
    other.execute("listen job_submitted")
    jobs.db.execute("truncate roll_call")

    queue.reclaim(runner, runner=RUNNER, jobs=[])

    heard = next(other.notifies(timeout=45, stop_after=1))
    assert heard.channel == "job_submitted"


@pytest.mark.parametrize("how", ["found dead", "signed off"])
def test_nobody_waits_for_who_is_gone(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs, how: str
) -> None:
    jobs.db.execute("truncate roll_call")
    queue.reclaim(other, runner=OTHER, jobs=[])
    assert heartbeat.let_in(other, OTHER) is False

    if how == "found dead":
        [beaten] = other.execute("select heartbeat_at from runner where id = %s", [RUNNER])
        dead = judge.Other(RUNNER, beaten[0], True, False, 30)
        assert judge.declare_lost(other, dead)
    else:
        heartbeat.sign_off(runner, RUNNER)

    assert heartbeat.let_in(other, OTHER) is True


def test_nobody_waits_for_a_runner_of_the_version_before(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs
) -> None:
    jobs.db.execute("truncate roll_call")
    jobs.db.execute("update runner set answers_roll_call = false where id = %s", [RUNNER])
    queue.reclaim(other, runner=OTHER, jobs=[])

    assert heartbeat.let_in(other, OTHER) is True


def test_whoever_finds_a_runner_dead_it_is_struck_off(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add()

    jobs.db.execute("update runner set lost_at = now()")

    assert jobs.db.execute("select from roll_call").rowcount == 0
    assert claim(runner) == []


def test_who_is_found_dead_while_it_answers_is_struck_off(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs, threads: ThreadPoolExecutor
) -> None:
    jobs.add()
    jobs.db.execute("truncate roll_call")
    [beaten] = other.execute("select heartbeat_at from runner where id = %s", [RUNNER])
    dead = judge.Other(RUNNER, beaten[0], True, False, 30)
    waits = """
        select from pg_stat_activity
        where wait_event_type = 'Lock' and query like '%lost_at = clock_timestamp()%'
    """

    with runner.transaction():
        queue.reclaim(runner, runner=RUNNER, jobs=[])
        declared = threads.submit(judge.declare_lost, other, dead)
        wait_for(lambda: jobs.db.execute(waits).rowcount or declared.done(), "they meet")

    assert declared.result() is True
    assert jobs.db.execute("select from roll_call").rowcount == 0
    assert heartbeat.let_in(runner, RUNNER) is False
    assert claim(runner) == []


def test_who_was_found_dead_is_not_let_in(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.db.execute("update runner set lost_at = now()")
    jobs.db.execute("insert into roll_call (runner) values (%s)", [RUNNER])

    assert heartbeat.let_in(runner, RUNNER) is False


def test_who_comes_while_somebody_is_missing_waits_as_well(
    runner: BoundedConnection, other: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add()
    new = "new-3-abcd"
    jobs.db.execute("delete from roll_call where runner = %s", [OTHER])
    heartbeat.register(runner, new, models={"sentiment": 1}, lease_seconds=30)

    assert claim(runner, new) == []
    queue.reclaim(other, runner=OTHER, jobs=[])
    assert heartbeat.let_in(runner, new) is True
    assert len(claim(runner, new)) == 1


def test_who_comes_while_nobody_is_missing_may_claim(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add()
    new = "new-3-abcd"
    heartbeat.register(runner, new, models={"sentiment": 1}, lease_seconds=30)

    assert len(claim(runner, new)) == 1


def test_the_missing_are_shown(runner: BoundedConnection, jobs: Jobs) -> None:
    assert jobs.db.execute("select runner from missing_runner").fetchall() == []

    jobs.db.execute("truncate roll_call")

    assert jobs.db.execute("select runner from missing_runner").fetchall() == [(RUNNER,)]


# A server that crashes.


def test_a_claim_is_not_waited_for_and_a_crash_forgets_it_with_the_roll_call(
    own_server: embedded.Server,
) -> None:
    url = login_url(own_server.url, "runner_login")
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        jobs = Jobs(admin)
        jobs.add_runner(RUNNER)
        jobs.add_runner(OTHER)
        jobs.add_many(2)
    with nothing_flushed(own_server.url) as wal_writer:
        with connect(url) as runner:
            [held] = claim(runner, slots=1)
        crash(own_server.url, wal_writer)

    with connect(url) as runner, psycopg.connect(own_server.url, autocommit=True) as admin:
        jobs = Jobs(admin)
        assert jobs.get(held.id)["status"] == "pending"
        assert admin.execute("select from missing_runner").rowcount == 2
        assert claim(runner, OTHER) == []
        assert queue.reclaim(runner, runner=RUNNER, jobs=[held]) == {held.id}
        assert jobs.get(held.id)["claimed_by"] == RUNNER
        assert queue.reclaim(runner, runner=OTHER, jobs=[]) == set()
        assert heartbeat.let_in(runner, OTHER)
        assert held.id not in [job.id for job in claim(runner, OTHER)]


def test_what_is_waited_for_is_on_disk_and_so_is_the_claim_before_it(
    own_server: embedded.Server,
) -> None:
    url = login_url(own_server.url, "runner_login")
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        Jobs(admin).add_runner(RUNNER)
        Jobs(admin).add_many(2)
    with nothing_flushed(own_server.url) as wal_writer:
        with connect(url) as runner:
            done, held = claim(runner)
            queue.complete(runner, [Outcome(done, 0.1, result=RESULT)])
        crash(own_server.url, wal_writer)

    with psycopg.connect(own_server.url, autocommit=True) as admin:
        assert Jobs(admin).get(done.id)["result"] == POSITIVE
        assert Jobs(admin).get(held.id)["status"] == "processing"


def test_a_restart_that_is_no_crash_keeps_nobody_waiting(own_server: embedded.Server) -> None:
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        Jobs(admin).add_runner(RUNNER)
        Jobs(admin).add_many(2)
    with (
        nothing_flushed(own_server.url),
        connect(login_url(own_server.url, "runner_login")) as runner,
    ):
        [held] = claim(runner, slots=1)

    own_server.stop(signal.SIGINT)
    own_server.start()

    with psycopg.connect(own_server.url, autocommit=True) as admin:
        assert Jobs(admin).get(held.id)["status"] == "processing"
        assert admin.execute("select from missing_runner").rowcount == 0
    with connect(login_url(own_server.url, "runner_login")) as runner:
        assert len(claim(runner)) == 1


@pytest.mark.process
def test_a_crash_that_forgets_claims_starts_no_job_twice(
    services: System, own_server: embedded.Server, tmp_path: Path
) -> None:
    """Whether one is forgotten, is chance: a runner's beat takes it to the disk."""
    runners = [services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600) for _ in range(2)]
    rounds = 0

    def back() -> list[int]:
        return [len(runner.lines("database_back")) for runner in runners]

    while not any(runner.lines("reclaimed") for runner in runners):
        rounds += 1
        assert rounds <= 20, "no claim was ever forgotten"
        went, go = back(), tmp_path / f"go{rounds}"
        with nothing_flushed(own_server.url) as wal_writer:
            with psycopg.connect(own_server.url, autocommit=True) as admin:
                job_id = Jobs(admin).add(f"await {go}")
            wait_for(lambda go=go: signs(Path(f"{go}.begun")), "it is at work")
            crash(own_server.url, wal_writer)
        with psycopg.connect(own_server.url, autocommit=True) as admin:
            # It waits for nobody but those who are missing.
            next_go = tmp_path / f"next{rounds}"
            next_go.touch()
            following = Jobs(admin).add(f"await {next_go}")
            assert Jobs(admin).wait(following, "completed")["attempt"] == 1
            go.touch()
            assert Jobs(admin).wait(job_id, "completed")["attempt"] == 1
        assert signs(Path(f"{go}.begun")) == signs(Path(f"{next_go}.begun")) == 1
        wait_for(lambda went=went: all(map(int.__lt__, went, back())), "all know that it was away")

    for runner in runners:
        assert runner.lines("claim_lost") == runner.lines("found_dead") == []
        assert runner.lines("runner_lost") == []


@pytest.mark.process
def test_a_runner_that_is_gone_with_the_server_keeps_the_others_waiting_for_seconds_only(
    services: System, own_server: embedded.Server, tmp_path: Path
) -> None:
    gone = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
    go = tmp_path / "go"
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        job_id = Jobs(admin).add(f"await {go}")
    wait_for(lambda: signs(Path(f"{go}.begun")), "it is at work")
    stays = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
    with nothing_flushed(own_server.url) as wal_writer:
        gone.send(signal.SIGKILL)
        crash(own_server.url, wal_writer)
    go.touch()

    with psycopg.connect(own_server.url, autocommit=True) as admin:
        Jobs(admin).wait(job_id, "completed")
        [(lost,)] = admin.execute("select id from runner where lost_at is not null").fetchall()
    assert [line["runner"] for line in stays.lines("runner_lost")] == [lost]
