"""Recording an outcome: only the holder of the current claim can, and once."""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import LiteralString
from uuid import uuid4

import psycopg
import pytest
from psycopg.sql import SQL

from helpers import POSITIVE, RUNNER, Jobs, wait_for
from jobrunner import log, queue
from jobrunner.activity import Activity
from jobrunner.database import BoundedConnection, connect
from jobrunner.outbox import ENOUGH, Outbox
from jobrunner.outcome import Failure, Job, Outcome

BROKE = Failure("model_error", "ValueError: it broke")


@pytest.fixture
def outbox() -> Outbox:
    return Outbox(lambda outcomes: None, Activity(), lambda connection: False)


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The moves that are logged."""
    moves: list[str] = []
    for level in ("info", "warning"):
        monkeypatch.setattr(log, level, lambda move, **_: moves.append(move))
    monkeypatch.setattr(log, "info_each", lambda move, _, rows: moves.extend(move for _ in rows))
    return moves


def claim(connection: BoundedConnection, slots: int = 10) -> list[Job]:
    return queue.claim(connection, runner=RUNNER, model="sentiment", slots=slots)


def claim_one(connection: BoundedConnection, jobs: Jobs, **job: int) -> Job:
    jobs.add(**job)  # type: ignore[arg-type]
    [claimed] = claim(connection)
    return claimed


def good(job: Job, result: object = POSITIVE) -> Outcome:
    return Outcome(job, 0.1, result=json.dumps(result))


def bad(job: Job, failure: Failure = BROKE) -> Outcome:
    return Outcome(job, 0.1, failure=failure)


def test_a_result_completes_the_job(runner: BoundedConnection, jobs: Jobs) -> None:
    job = claim_one(runner, jobs)

    moved = queue.complete(runner, [good(job)])

    row = jobs.get(job.id)
    assert moved == {job.id: "completed"}
    assert (row["status"], row["result"], row["error"]) == ("completed", POSITIVE, None)
    assert row["finished_at"] >= row["started_at"]
    assert (row["lease_token"], row["claimed_by"]) == (None, RUNNER)


def test_a_failure_sends_the_job_back_with_backoff_and_is_kept(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    job = claim_one(runner, jobs)

    runner.execute("set timezone = 'Europe/Berlin'")

    moved = queue.fail(runner, [bad(job)])

    row = jobs.get(job.id)
    [entry] = row["errors"]
    assert moved == {job.id: "pending"}
    assert (row["status"], row["attempt"], row["error"]) == ("pending", 1, None)
    assert (row["claimed_by"], row["started_at"], row["finished_at"]) == (None, None, None)
    assert (entry["attempt"], entry["code"], entry["runner"]) == (1, "model_error", RUNNER)
    for name in ("started_at", "failed_at"):
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{6}Z", entry[name])
    assert entry["message"] == "ValueError: it broke"


@pytest.mark.parametrize(
    ("attempt", "seconds"), [(1, 2), (2, 4), (3, 8), (5, 32), (6, 60), (50, 60)]
)
def test_the_backoff_doubles_up_to_a_minute_with_a_fifth_of_jitter(
    runner: BoundedConnection, jobs: Jobs, attempt: int, seconds: int
) -> None:
    for _ in range(20):
        jobs.add(attempt=attempt - 1, max_attempts=100)
    claimed = claim(runner, slots=20)

    queue.fail(runner, [bad(job) for job in claimed])

    query = "select extract(epoch from run_at - (errors->0->>'failed_at')::timestamptz) from job"
    waits = [float(row[0]) for row in jobs.db.execute(query)]
    assert len(waits) == 20
    assert all(0.8 * seconds - 0.1 <= wait <= 1.2 * seconds + 0.1 for wait in waits)
    assert max(waits) - min(waits) > 0.02 * seconds


def test_the_last_attempt_that_fails_is_final(runner: BoundedConnection, jobs: Jobs) -> None:
    job = claim_one(runner, jobs, attempt=2)

    moved = queue.fail(runner, [bad(job)])

    row = jobs.get(job.id)
    assert moved == {job.id: "failed"}
    assert (row["status"], row["attempt"]) == ("failed", 3)
    assert row["error"] == {
        "code": "model_error",
        "message": "ValueError: it broke",
        "retryable": True,
    }
    assert len(row["errors"]) == 1


def test_a_failure_that_is_not_retryable_is_final_at_once(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    job = claim_one(runner, jobs)

    queue.fail(runner, [bad(job, replace(BROKE, retryable=False))])

    assert jobs.get(job.id)["error"]["retryable"] is False
    assert jobs.status(job.id) == "failed"


def test_of_a_call_that_came_to_no_answer_nothing_is_told(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    job = claim_one(runner, jobs, max_attempts=1)

    queue.fail(runner, [Outcome(job, None, failure=Failure("timeout", "it took too long"))])

    row = jobs.get(job.id)
    assert (row["status"], row["batch_size"], row["inference_seconds"]) == ("failed", None, None)


def test_a_release_does_not_count_the_attempt(runner: BoundedConnection, jobs: Jobs) -> None:
    job = claim_one(runner, jobs, attempt=1)

    released = queue.release(runner, [job])

    row = jobs.get(job.id)
    assert released == {job.id: "pending"}
    assert (row["status"], row["attempt"], row["errors"]) == ("pending", 1, [])
    assert claim(runner)[0].attempt == 2


@pytest.mark.parametrize("move", ["complete", "fail", "release"])
@pytest.mark.parametrize("loss", ["taken by another claim", "finished", "handed back", "unknown"])
def test_who_has_lost_the_claim_changes_nothing(
    runner: BoundedConnection, jobs: Jobs, move: str, loss: str
) -> None:
    job = claim_one(runner, jobs)
    if loss == "finished":
        queue.complete(runner, [good(job)])
    elif loss == "unknown":
        job = replace(job, id=str(uuid4()))
    else:
        queue.release(runner, [job])
    if loss == "taken by another claim":
        claim(runner)
    before = jobs.db.execute("select * from job order by id").fetchall()

    moved = {
        "complete": lambda: queue.complete(runner, [good(job)]),
        "fail": lambda: queue.fail(runner, [bad(job)]),
        "release": lambda: queue.release(runner, [job]),
    }[move]()

    assert not moved
    assert jobs.db.execute("select * from job order by id").fetchall() == before


def test_outcomes_are_written_in_one_batch(
    runner: BoundedConnection, jobs: Jobs, outbox: Outbox
) -> None:
    for _ in range(6):
        jobs.add()
    claimed = claim(runner)
    outbox.add([good(job) for job in claimed[:4]] + [bad(job) for job in claimed[4:]])

    outbox.write(runner)

    assert len(outbox) == 0
    assert (jobs.count("completed"), jobs.count("pending")) == (4, 2)


def test_in_whatever_order_they_end_each_job_has_what_is_its_own(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    for _ in range(9):
        jobs.add(max_attempts=1)
    claimed = sorted(claim(runner), key=lambda job: job.id, reverse=True)
    done, failed, left = claimed[::3], claimed[1::3], claimed[2::3]

    completed = queue.complete(
        runner,
        [
            Outcome(
                job,
                place + 1.0,
                result=json.dumps(POSITIVE | {"place": place}),
                batch_size=place + 1,
            )
            for place, job in enumerate(done)
        ],
    )
    broken = [
        Outcome(job, place + 0.5, failure=Failure("model_error", job.id), batch_size=place + 3)
        for place, job in enumerate(failed)
    ]

    assert completed == {job.id: "completed" for job in done}
    assert queue.fail(runner, broken) == {job.id: "failed" for job in failed}
    assert queue.release(runner, left) == {job.id: "pending" for job in left}
    for place, job in enumerate(done):
        row = jobs.get(job.id)
        said = (row["result"], row["batch_size"], row["inference_seconds"])
        assert said == (POSITIVE | {"place": place}, place + 1, place + 1.0)
    for place, job in enumerate(failed):
        row = jobs.get(job.id)
        said = (row["error"]["message"], row["batch_size"], row["inference_seconds"])
        assert said == (job.id, place + 3, place + 0.5)


@pytest.mark.parametrize(
    "result",
    [
        {"sentiment": "positive", "confidence": 0.5, "note": "\x00"},
        {"sentiment": "positive", "confidence": 1.5},
        {"sentiment": "so-so", "confidence": 0.5},
        {"confidence": 0.5},
        [],
    ],
)
def test_a_result_that_can_not_be_stored_fails_alone(
    runner: BoundedConnection, jobs: Jobs, outbox: Outbox, result: object
) -> None:
    for _ in range(3):
        jobs.add()
    claimed = claim(runner)
    outbox.add([good(claimed[0]), good(claimed[1], result), good(claimed[2])])

    outbox.write(runner)

    assert [jobs.status(job.id) for job in claimed] == ["completed", "pending", "completed"]
    [entry] = jobs.get(claimed[1].id)["errors"]
    assert entry["code"] == "invalid_output"


# The database refuses every move of a job whose text is "refuse", or those to "failed" only.
REFUSE = """
    create function refuse() returns trigger language plpgsql as $$
    begin raise exception 'refused by a trigger'; end $$;
    create trigger refuse before update on job for each row
    when (old.status = 'processing' and new.input ->> 'text' = 'refuse' and {condition})
    execute function refuse();
"""


@pytest.fixture
def refuse(jobs: Jobs) -> Iterator[Callable[[LiteralString], None]]:
    def refuse(condition: LiteralString) -> None:
        jobs.db.execute(SQL(REFUSE).format(condition=SQL(condition)))

    yield refuse
    jobs.db.execute("drop function if exists refuse cascade")


def test_an_outcome_that_the_database_refuses_in_any_form_holds_up_no_other(
    runner: BoundedConnection, jobs: Jobs, outbox: Outbox, refuse: Callable[[LiteralString], None]
) -> None:
    texts = ["one", "refuse", "three"]
    for text in texts:
        jobs.add(text)
    claimed = claim(runner)
    refuse("true")
    outbox.add([good(job) for job in claimed])

    outbox.write(runner)

    assert [jobs.status(job.id) for job in claimed] == ["completed", "processing", "completed"]
    assert len(outbox) == 0


def test_what_was_recorded_is_reported_though_the_next_statement_fails(
    runner: BoundedConnection,
    jobs: Jobs,
    outbox: Outbox,
    monkeypatch: pytest.MonkeyPatch,
    said: list[str],
) -> None:
    for _ in range(2):
        jobs.add()
    first, second = claim(runner)
    outbox.add([good(first), bad(second)])

    def lose(*_: object) -> None:
        raise psycopg.OperationalError("the connection is lost")

    with monkeypatch.context() as broken:
        broken.setattr(queue, "fail", lose)
        with pytest.raises(psycopg.OperationalError):
            outbox.write(runner)

    assert said == ["completed"]
    assert outbox.jobs == [second]
    outbox.write(runner)
    assert said == ["completed", "will_retry"]


def test_outcomes_are_held_back_only_while_many_more_are_about_to_come(
    runner: BoundedConnection, jobs: Jobs, outbox: Outbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    job = claim_one(runner, jobs)
    assert not outbox.holds_back(ahead=1000)

    outbox.add([good(job)])

    with monkeypatch.context() as long:
        long.setattr("jobrunner.outbox.HOLD_SECONDS", 60)
        assert outbox.holds_back(ahead=1000)
        assert not outbox.holds_back(ahead=1)
        outbox.add([good(job)] * ENOUGH)
        assert not outbox.holds_back(ahead=1000)


def test_outcomes_are_not_held_back_for_long(
    runner: BoundedConnection, jobs: Jobs, outbox: Outbox
) -> None:
    outbox.add([good(claim_one(runner, jobs))])

    wait_for(lambda: not outbox.holds_back(ahead=1000), "it is time", 10)


def test_outcomes_wait_for_a_database_that_is_away(
    runner: BoundedConnection, runner_url: str, jobs: Jobs, outbox: Outbox
) -> None:
    job = claim_one(runner, jobs)
    outbox.add([good(job)])
    query = "select pg_terminate_backend(%s, 5000)"
    jobs.db.execute(query, [runner.info.backend_pid])

    with pytest.raises(psycopg.OperationalError):
        outbox.write(runner)

    assert outbox.jobs == [job]
    with connect(runner_url) as again:
        outbox.write(again)
    assert jobs.status(job.id) == "completed"


def test_the_jobs_of_a_lost_runner_are_rescued_and_the_attempt_counts(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_runner("alive-1-abcd")
    lost = jobs.add(status="processing", claimed_by="gone-1-abcd")
    hopeless = jobs.add(status="processing", claimed_by="gone-1-abcd", attempt=3)
    held = jobs.add(status="processing", claimed_by="alive-1-abcd")

    rescued = queue.rescue(runner)

    assert {(job.id, job.status) for job in rescued} == {(lost, "pending"), (hopeless, "failed")}
    assert jobs.status(held) == "processing"
    row = jobs.get(lost)
    assert (row["attempt"], row["claimed_by"]) == (1, None)
    assert row["errors"][0]["code"] == "runner_lost"
    assert row["errors"][0]["runner"] == "gone-1-abcd"
    assert jobs.get(hopeless)["error"]["code"] == "runner_lost"


def test_a_rescue_does_not_wait_for_an_outcome_that_is_being_written(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    lost = jobs.add(status="processing", claimed_by="gone-1-abcd")

    with jobs.db.transaction():
        jobs.db.execute("select from job where id = %s for update", [lost])
        during = queue.rescue(runner)

    assert during == []
    assert [job.id for job in queue.rescue(runner)] == [lost]
