"""The table ``job_claim``: a job in work is noted there with its claim, and found by it."""

import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from helpers import RUNNER, Jobs, wait_for
from jobrunner import heartbeat, queue
from jobrunner import jobs as shown_jobs
from jobrunner.database import BoundedConnection, connect
from jobrunner.jobs import Wanted
from jobrunner.leases import MANY, Leases
from jobrunner.outcome import Job, Outcome
from processes import System, system

ANSWER = '{"sentiment": "positive", "confidence": 0.5}'


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


def claim(connection: BoundedConnection, slots: int, **more: Any) -> list[Job]:
    return queue.claim(connection, runner=RUNNER, model="sentiment", slots=slots, **more)


def complete(connection: BoundedConnection, *done: Job) -> None:
    queue.complete(connection, [Outcome(job, 0.1, result=ANSWER) for job in done])


def noted(jobs: Jobs) -> dict[str, set[str]]:
    """The ids of the jobs that were claimed together, by lease token."""
    rows = jobs.db.execute("select lease_token::text, job_ids::text[] from job_claim")
    return {lease_token: set(ids) for lease_token, ids in rows}


def in_work(client: FlaskClient, **more: Any) -> list[str]:
    query = {"status": "processing", **more}
    body = client.get("/jobs", query_string=query).get_json()
    return [job["job_id"] for job in body["jobs"]]


def test_a_claim_is_one_note_of_all_that_it_took(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_many(5)

    first, second = claim(runner, 3), claim(runner, 9)

    assert (len(first), len(second)) == (3, 2)
    assert noted(jobs) == {
        claimed[0].lease_token: {job.id for job in claimed} for claimed in (first, second)
    }


def test_a_claim_that_takes_nothing_notes_nothing(runner: BoundedConnection, jobs: Jobs) -> None:
    assert claim(runner, 5) == []
    assert noted(jobs) == {}


def test_a_claim_of_a_thousand_is_noted(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.db.execute("insert into job (input) select '{}' from generate_series(1, 1000)")

    claimed = claim(runner, 1000)

    assert noted(jobs) == {claimed[0].lease_token: {job.id for job in claimed}}


def test_a_later_claim_deletes_what_is_spent(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_many(3)
    [done], [held] = claim(runner, 1), claim(runner, 1)
    complete(runner, done)

    [last] = claim(runner, 1, spent={done.lease_token})

    assert set(noted(jobs)) == {held.lease_token, last.lease_token}


def test_a_lease_is_spent_when_nothing_of_it_is_in_hand() -> None:
    in_hand = one, two, *_ = [
        Job(str(number), lease_token, "sentiment", "{}", 1)
        for number, lease_token in enumerate("aabcd")
    ]
    leases = Leases(lambda: in_hand)
    leases.add(in_hand)

    in_hand.remove(one)
    assert leases.spent == set()
    in_hand.remove(two)
    assert leases.spent == {"a"}
    in_hand.clear()
    assert leases.spent == set("abcd")
    leases.forget("ab")
    # Of a few nobody asks.
    assert leases.spent == set()


def test_the_list_of_jobs_in_work_has_what_is_noted_and_not_done(
    client: FlaskClient, runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(6)
    done, released, *held = claim(runner, 5)
    complete(runner, done)
    queue.release(runner, [released])

    assert in_work(client) == [job.id for job in sorted(held, key=queue.BY_ID, reverse=True)]
    assert in_work(client, model="sentiment", limit=2) == in_work(client)[:2]
    assert in_work(client, model="another") == []


def test_what_a_runner_of_the_version_before_holds_is_found_though_it_notes_nothing(
    client: FlaskClient, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    jobs.add_runner("older-1-abcd")
    jobs.add("waits")
    held = jobs.add(status="processing", claimed_by="older-1-abcd")
    db.execute("delete from job_claim")

    assert in_work(client) == [held]
    assert db.execute("select busy from runner_overview").fetchall() == [(1,)]
    assert [str(job) for (job,) in db.execute("select job from running_job")] == [held]
    assert [str(job["id"]) for job in shown_jobs.newest(db, Wanted("processing"))] == [held]


def test_who_notes_his_claims_says_so(
    runner: BoundedConnection, db: psycopg.Connection[Any]
) -> None:
    heartbeat.register(runner, "newer-1-abcd", models={"sentiment": 1}, lease_seconds=30)

    query = "select notes_claims from runner where id = 'newer-1-abcd'"
    assert db.execute(query).fetchall() == [(True,)]


def test_who_was_found_dead_leaves_his_notes_to_others() -> None:
    leases = Leases(list)
    leases.add(Job(token, token, "sentiment", "{}", 1) for token in "abcd")

    leases.lose()

    assert leases.spent == set()


def test_what_is_left_by_others_is_deleted_once_nothing_of_it_is_held(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_many(4)
    kept, left = claim(runner, 2), claim(runner, 2)
    complete(runner, kept[0], *left)

    queue.delete_spent(runner)

    assert set(noted(jobs)) == {kept[0].lease_token}


def test_what_is_being_deleted_by_another_is_not_waited_for(
    runner: BoundedConnection, runner_url: str, jobs: Jobs
) -> None:
    jobs.add_many(2)
    one, two = claim(runner, 1), claim(runner, 1)
    complete(runner, *one, *two)

    with connect(runner_url) as other, other.transaction():
        claim(other, 1, spent={one[0].lease_token})
        queue.delete_spent(runner)
        assert set(noted(jobs)) == {one[0].lease_token}

    assert noted(jobs) == {}


def test_the_web_may_read_the_notes_and_not_write_them(web_url: str, jobs: Jobs) -> None:
    with connect(web_url) as web:
        assert web.execute("select from job_claim").fetchall() == []
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            web.execute("delete from job_claim")


@pytest.mark.process
def test_a_runner_forgets_claims_as_it_goes_and_all_when_it_stops(
    services: System, jobs: Jobs
) -> None:
    runner = services.runner("--workers", "1", MOCK_DELAY_SECONDS=0)
    ids = jobs.add_many(50)
    for job_id in ids:
        jobs.wait(job_id, "completed")

    wait_for(lambda: len(noted(jobs)) <= 2 * MANY, "few are left")
    runner.send(signal.SIGTERM)
    runner.wait()
    assert noted(jobs) == {}


@pytest.mark.process
def test_what_a_killed_runner_has_noted_is_deleted_once_its_jobs_are_free(
    services: System, jobs: Jobs
) -> None:
    victim = services.runner(MOCK_DELAY_SECONDS=60)
    held = jobs.add()
    jobs.wait(held, "processing")
    [lease_token] = noted(jobs)
    services.runner(MOCK_DELAY_SECONDS=60)

    victim.send(signal.SIGKILL)

    wait_for(lambda: jobs.get(held)["attempt"] == 2, "the other has it")
    wait_for(lambda: lease_token not in noted(jobs), "the note is gone")
    assert [held] in [list(ids) for ids in noted(jobs).values()]


@pytest.mark.process
def test_who_was_found_dead_leaves_its_notes_until_its_jobs_are_free(
    services: System, jobs: Jobs
) -> None:
    runner = services.runner(
        "--workers", str(MANY), JOBRUNNER_LEASE_SECONDS=3, MOCK_DELAY_SECONDS=60
    )
    held = set()
    for _ in range(MANY):
        held.add(job_id := jobs.add())
        jobs.wait(job_id, "processing")
    left = noted(jobs)

    with psycopg.connect(jobs.db.info.dsn, password=jobs.db.info.password) as other:
        # Nobody can rescue them meanwhile.
        other.execute("select from job where id = any(%s) for update", [list(held)])
        jobs.db.execute("update runner set lost_at = now()")
        wait_for(lambda: runner.lines("found_dead"), "the runner learns that it is dead")
        jobs.wait(jobs.add(), "processing")
        assert {jobs.status(job_id) for job_id in held} == {"processing"}
        assert left.items() <= noted(jobs).items()

    wait_for(lambda: not left.keys() & noted(jobs).keys(), "they are rescued, the notes gone")
