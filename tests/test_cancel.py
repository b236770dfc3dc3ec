"""Cancelling: it wins or loses against an outcome, never both, and the job ends once."""

import json
import signal
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import monotonic
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from flask.testing import FlaskClient

from helpers import POSITIVE, RUNNER, Jobs, wait_for
from jobrunner import queue
from jobrunner.database import BoundedConnection, connect
from jobrunner.outcome import Failure, Job, Outcome
from processes import System, system

CANCELLED = {"code": "cancelled", "message": "the job was cancelled", "retryable": False}

REQUEST = "insert into cancel_request (job_id) values (%s)"


@pytest.fixture
def web(web_url: str, jobs: Jobs) -> Iterator[psycopg.Connection[Any]]:
    """A connection of the role job_web, which may insert a request and no more."""
    with psycopg.connect(web_url, autocommit=True) as connection:
        yield connection


def claim_one(runner: BoundedConnection, jobs: Jobs) -> Job:
    jobs.add()
    [job] = queue.claim(runner, runner=RUNNER, model="sentiment", slots=1)
    return job


def failed(job: Job) -> list[Outcome]:
    return [Outcome(job, 0.1, failure=Failure("model_error", "it broke"))]


def completed(job: Job) -> list[Outcome]:
    return [Outcome(job, 0.1, result=json.dumps(POSITIVE))]


def waits_for_a_lock(jobs: Jobs) -> bool:
    query = "select from pg_stat_activity where wait_event_type = 'Lock'"
    return jobs.db.execute(query).rowcount > 0


def test_a_pending_job_is_final_at_once_and_never_starts(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs
) -> None:
    job_id = jobs.add()

    web.execute(REQUEST, [job_id])

    row = jobs.get(job_id)
    assert (row["status"], row["error"], row["attempt"]) == ("failed", CANCELLED, 0)
    assert row["finished_at"] is not None
    assert queue.claim(runner, runner=RUNNER, model="sentiment", slots=1) == []


def test_a_processing_job_is_left_to_its_runner_which_is_told(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs
) -> None:
    job = claim_one(runner, jobs)
    runner.execute("listen cancel_requested")

    web.execute(REQUEST, [job.id])

    assert jobs.status(job.id) == "processing"
    [note] = runner.notifies(timeout=5, stop_after=1)
    assert note.payload == str(job.id)
    assert queue.cancelled(runner, [job.id, str(uuid4())]) == {job.id}


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_final_job_stays_as_it_is(web: psycopg.Connection[Any], jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)
    before = jobs.get(job_id)

    web.execute(REQUEST, [job_id])

    assert jobs.get(job_id) == before


def test_a_cancel_of_no_job_is_refused(web: psycopg.Connection[Any], jobs: Jobs) -> None:
    with pytest.raises(psycopg.errors.ForeignKeyViolation):
        web.execute(REQUEST, [uuid4()])


def test_an_outcome_that_is_recorded_first_wins(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs
) -> None:
    job = claim_one(runner, jobs)
    web.execute(REQUEST, [job.id])

    queue.complete(runner, completed(job))

    assert jobs.status(job.id) == "completed"


MOVES: dict[str, Callable[[BoundedConnection, Job], object]] = {
    "retry": lambda runner, job: queue.fail(runner, failed(job)),
    "release": lambda runner, job: queue.release(runner, [job]),
    "release of the unknown": lambda runner, job: queue.release_unknown(
        runner, runner=RUNNER, held=[]
    ),
    "rescue": lambda runner, job: queue.rescue(runner),
}


@pytest.mark.parametrize("move", MOVES)
def test_no_move_sends_a_cancelled_job_back_to_pending(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs, move: str
) -> None:
    job = claim_one(runner, jobs)
    web.execute(REQUEST, [job.id])
    if move == "rescue":
        jobs.db.execute("update runner set lost_at = now()")

    MOVES[move](runner, job)

    row = jobs.get(job.id)
    assert (row["status"], row["error"], row["attempt"]) == ("failed", CANCELLED, 1)


def test_a_rescue_with_no_attempt_left_fails_a_cancelled_job_as_cancelled(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs
) -> None:
    job_id = jobs.add(status="processing", attempt=3, claimed_by="gone-1-abcd")
    web.execute(REQUEST, [job_id])

    queue.rescue(runner)

    assert jobs.get(job_id)["error"] == CANCELLED


@pytest.mark.parametrize("move", MOVES)
def test_a_cancel_that_meets_a_move_under_way_waits_and_takes_hold(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs, move: str
) -> None:
    job = claim_one(runner, jobs)
    if move == "rescue":
        jobs.db.execute("update runner set lost_at = now()")

    with ThreadPoolExecutor(1) as pool:
        with runner.transaction():
            MOVES[move](runner, job)
            cancel = pool.submit(web.execute, REQUEST, [job.id])
            wait_for(lambda: waits_for_a_lock(jobs), "the cancel waits for the row")
        cancel.result()

    row = jobs.get(job.id)
    assert (row["status"], row["error"]) == ("failed", CANCELLED)


@pytest.mark.parametrize("move", ["retry", "release"])
def test_a_move_that_meets_a_cancel_under_way_waits_and_sees_it(
    web: psycopg.Connection[Any], runner: BoundedConnection, jobs: Jobs, move: str
) -> None:
    job = claim_one(runner, jobs)

    with ThreadPoolExecutor(1) as pool:
        with web.transaction():
            web.execute(REQUEST, [job.id])
            moved = pool.submit(MOVES[move], runner, job)
            wait_for(lambda: waits_for_a_lock(jobs), "the move waits for the row")
        moved.result()

    row = jobs.get(job.id)
    assert (row["status"], row["error"]) == ("failed", CANCELLED)


def test_cancels_claims_and_outcomes_at_once_leave_each_job_with_one_end(
    web_url: str, runner_url: str, jobs: Jobs
) -> None:
    jobs.add_runner(RUNNER)
    ids = [jobs.add() for _ in range(200)]

    def cancel_some(part: int) -> None:
        with psycopg.connect(web_url, autocommit=True) as connection:
            for job_id in ids[part::4]:
                connection.execute(f"{REQUEST} on conflict do nothing", [job_id])

    def work(_: int) -> None:
        with connect(runner_url) as connection:
            while jobs_in_hand := queue.claim(
                connection, runner=RUNNER, model="sentiment", slots=7
            ):
                settle(connection, jobs_in_hand)

    def settle(connection: BoundedConnection, held: list[Job]) -> None:
        queue.complete(connection, [o for job in held[:3] for o in completed(job)])
        queue.fail(connection, [o for job in held[3:5] for o in failed(job)])
        queue.release(connection, held[5:])

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda call: call[0](call[1]), [
            (cancel_some, 0), (work, 0), (cancel_some, 1), (work, 1), (cancel_some, 2),
            (cancel_some, 3),
        ]))  # fmt: skip

    rows = jobs.db.execute("select status, error ->> 'code' from job").fetchall()
    assert set(rows) <= {("completed", None), ("failed", "cancelled")}


def test_deleting_a_job_deletes_its_cancel_request(
    web: psycopg.Connection[Any], jobs: Jobs
) -> None:
    job_id = jobs.add()
    web.execute(REQUEST, [job_id])

    jobs.db.execute("delete from job where id = %s", [job_id])

    assert jobs.db.execute("select from cancel_request").rowcount == 0


@pytest.mark.parametrize(
    ("status", "expected"), [("pending", "failed"), ("processing", "processing")]
)
def test_the_api_cancels_a_job_that_is_not_final_as_often_as_asked(
    client: FlaskClient, jobs: Jobs, status: str, expected: str
) -> None:
    job_id = jobs.add(status=status)

    first = client.post(f"/jobs/{job_id}/cancel")
    again = client.post(f"/jobs/{job_id}/cancel")

    assert first.status_code == 202
    assert first.get_json()["status"] == expected
    assert again.status_code == (200 if status == "pending" else 202)
    assert jobs.db.execute("select job_id::text from cancel_request").fetchall() == [(job_id,)]


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_the_api_shows_a_final_job_as_it_is(client: FlaskClient, jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)

    response = client.post(f"/jobs/{job_id}/cancel")

    assert response.status_code == 200
    assert response.get_json()["status"] == status


@pytest.mark.parametrize("job_id", ["0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70", "nonsense"])
def test_the_api_knows_no_unknown_job(client: FlaskClient, job_id: object) -> None:
    response = client.post(f"/jobs/{job_id}/cancel")

    assert response.status_code == 404
    assert response.mimetype == "application/problem+json"


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


@pytest.mark.process
@pytest.mark.parametrize("told", ["by notification", "by looking"])
def test_the_inference_of_a_cancelled_job_is_ended_within_seconds(
    services: System, web: psycopg.Connection[Any], jobs: Jobs, told: str
) -> None:
    services.runner("--workers", "1", MOCK_DELAY_SECONDS=60)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")
    if told == "by looking":
        jobs.db.execute("alter table cancel_request disable trigger cancel_request_takes_hold")
    started = monotonic()

    web.execute(REQUEST, [job_id])

    try:
        row = jobs.wait(job_id, "failed")
    finally:
        jobs.db.execute("alter table cancel_request enable trigger cancel_request_takes_hold")
    assert monotonic() - started < 5
    assert row["error"] == CANCELLED
    assert [entry["code"] for entry in row["errors"]] == ["cancelled"]


@pytest.mark.process
def test_a_stop_does_not_hand_back_a_cancelled_job(
    services: System, web: psycopg.Connection[Any], jobs: Jobs
) -> None:
    runner = services.runner("--workers", "1", MOCK_DELAY_SECONDS=60)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")

    web.execute(REQUEST, [job_id])
    runner.send(signal.SIGTERM)
    runner.send(signal.SIGTERM)

    runner.wait()
    assert jobs.get(job_id)["error"] == CANCELLED
