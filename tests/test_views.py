"""The views for people in psql say what is there."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from helpers import Jobs

Db = psycopg.Connection[Any]
Row = dict[str, Any]

SECOND = timedelta(seconds=1)


def read(db: Db, view: str) -> list[Row]:
    with db.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(f"select * from {view}").fetchall()


def health(db: Db, model: str = "sentiment") -> Row:
    [row] = [row for row in read(db, "queue_health") if row["model"] == model]
    return row


def overview(db: Db, runner: str = "here-1-abcd") -> Row:
    [row] = [row for row in read(db, "runner_overview") if row["runner"] == runner]
    return row


def add_runner(
    db: Db, runner: str = "here-1-abcd", models: str = "{sentiment}", **row: Any
) -> None:
    """Insert the row of a runner that is well and has nothing to do, but for what is given."""
    values = {
        "runner": runner,
        "models": models,
        "heartbeat_ago": "1 s",
        "up_for": "1 h",
        "lost_ago": None,
        "stop_asked_ago": None,
        "ready": 2,
        "jobs_per_second": 0,
        "inference_seconds": None,
    } | row
    db.execute(
        """
        insert into runner (
            id, host, pid, version, models, workers, lease, started_at, heartbeat_at, lost_at,
            stop_requested_at, ready_workers, completed, failed, jobs_per_second, inference_seconds
        )
        values (
            %(runner)s, 'here', 17, '1.0', %(models)s, 2, '30 s',
            now() - %(up_for)s::interval, now() - %(heartbeat_ago)s::interval,
            now() - %(lost_ago)s::interval, now() - %(stop_asked_ago)s::interval,
            %(ready)s, 40, 2, %(jobs_per_second)s, %(inference_seconds)s
        )
        """,
        values,
    )


# queue_health


def test_an_empty_queue_without_runners_is_all_zeros(db: Db) -> None:
    [row] = read(db, "queue_health")

    # How many rows are dead depends on what was there before.
    del row["dead_percent"]
    assert row == {
        "model": "sentiment",
        "pending": 0,
        "waiting_to_retry": 0,
        "processing": 0,
        "oldest_pending_age": None,
        "runners": 0,
        "workers": 0,
        "jobs_per_second": 0,
        "held_by": None,
        "held_for": None,
        "held_by_query": None,
        "advice": None,
        "versions": None,
    }


def test_unfinished_jobs_are_counted_by_status(db: Db, jobs: Jobs) -> None:
    for status, number in (("pending", 3), ("processing", 2), ("completed", 1), ("failed", 1)):
        for _ in range(number):
            jobs.add(status=status)
    jobs.add(attempt=1, due_in="1 h")

    row = health(db)

    assert (row["pending"], row["waiting_to_retry"], row["processing"]) == (4, 1, 2)


def test_the_age_is_that_of_the_oldest_job_that_is_pending(db: Db, jobs: Jobs) -> None:
    jobs.add(status="processing", created="3 h")
    jobs.add(status="completed", created="2 h")
    jobs.add(created="10 min")
    jobs.add(created="1 min")

    age = health(db)["oldest_pending_age"]

    assert timedelta(minutes=10) <= age <= timedelta(minutes=10, seconds=20)
    assert age.microseconds == 0


def test_each_model_has_its_own_row_in_the_order_of_names(db: Db, jobs: Jobs) -> None:
    db.execute("insert into model (name) values ('topic'), ('language')")
    jobs.add(model="topic")
    add_runner(db, models="{topic,language}")

    rows = read(db, "queue_health")

    assert [(row["model"], row["pending"], row["runners"]) for row in rows] == [
        ("language", 0, 1),
        ("sentiment", 0, 0),
        ("topic", 1, 1),
    ]


def test_only_live_runners_count(db: Db) -> None:
    add_runner(db, "one", jobs_per_second=1.25)
    add_runner(db, "two", jobs_per_second=2.5, stop_asked_ago="1 s")
    add_runner(db, "lost", jobs_per_second=100, lost_ago="1 s")
    add_runner(db, "silent", jobs_per_second=100, heartbeat_ago="31 s")

    row = health(db)

    assert (row["runners"], row["workers"], float(row["jobs_per_second"])) == (2, 4, 3.75)


# runner_overview


@pytest.mark.parametrize(
    ("state", "row"),
    [
        ("idle", {}),
        ("idle", {"ready": 1}),
        ("starting", {"ready": 0}),
        ("stopping", {"stop_asked_ago": "1 s"}),
        ("stopping", {"stop_asked_ago": "1 s", "ready": 0}),
        ("silent", {"heartbeat_ago": "31 s"}),
        ("silent", {"heartbeat_ago": "31 s", "stop_asked_ago": "40 s"}),
        ("lost", {"lost_ago": "1 s"}),
        ("lost", {"lost_ago": "1 s", "heartbeat_ago": "31 s", "stop_asked_ago": "40 s"}),
        ("idle", {"heartbeat_ago": "25 s"}),
    ],
)
def test_a_runner_is_in_that_state(db: Db, state: str, row: Row) -> None:
    add_runner(db, **row)

    assert overview(db)["state"] == state


def test_a_runner_that_holds_jobs_is_working(db: Db, jobs: Jobs) -> None:
    add_runner(db)
    add_runner(db, "there-1-abcd")
    for _ in range(2):
        jobs.add(status="processing", claimed_by="here-1-abcd")
    jobs.add(status="completed", claimed_by="there-1-abcd")
    jobs.add(status="failed", claimed_by="there-1-abcd")

    here, there = overview(db), overview(db, "there-1-abcd")

    assert (here["state"], here["busy"]) == ("working", 2)
    assert (there["state"], there["busy"]) == ("idle", 0)


def test_a_runner_that_is_asked_to_stop_still_says_what_it_holds(db: Db, jobs: Jobs) -> None:
    add_runner(db, stop_asked_ago="1 s")
    jobs.add(status="processing", claimed_by="here-1-abcd")

    row = overview(db)

    assert (row["state"], row["busy"]) == ("stopping", 1)


def test_a_runner_says_who_it_is_and_what_it_has_done(db: Db) -> None:
    add_runner(db, jobs_per_second=0.123456, inference_seconds=5.0123456)

    row = overview(db)

    assert timedelta() <= row.pop("last_heartbeat_ago") - SECOND <= 20 * SECOND
    assert timedelta() <= row.pop("up_for") - timedelta(hours=1) <= 20 * SECOND
    assert row | {
        "jobs_per_second": str(row["jobs_per_second"]),
        "inference_seconds": str(row["inference_seconds"]),
    } == {
        "runner": "here-1-abcd",
        "state": "idle",
        "host": "here",
        "pid": 17,
        "models": ["sentiment"],
        "workers": 2,
        "ready": 2,
        "busy": 0,
        "completed": 40,
        "failed": 2,
        "jobs_per_second": "0.12",
        "inference_seconds": "5.012",
        "trouble": None,
        "versions": None,
        "memory_mb": None,
    }


def test_runners_are_listed_in_the_order_in_which_they_started(db: Db) -> None:
    add_runner(db, "a", up_for="1 min")
    add_runner(db, "c", up_for="1 h")
    add_runner(db, "b", up_for="2 h")

    assert [row["runner"] for row in read(db, "runner_overview")] == ["b", "c", "a"]


def test_there_is_no_runner_where_none_runs(db: Db, jobs: Jobs) -> None:
    jobs.add(status="processing", claimed_by="gone-1-abcd")

    assert read(db, "runner_overview") == []


# recent_failure


def test_a_failure_says_what_why_and_where(db: Db, jobs: Jobs) -> None:
    job_id = jobs.add(status="failed", attempt=3, claimed_by="here-1-abcd")

    job = jobs.get(job_id)
    assert read(db, "recent_failure") == [
        {
            "job": UUID(job_id),
            "model": "sentiment",
            "code": "model_error",
            "message": "it broke",
            "attempt": 3,
            "max_attempts": 3,
            "runner": "here-1-abcd",
            "created_at": job["created_at"],
            "finished_at": job["finished_at"],
        }
    ]


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_what_has_not_failed_is_not_listed(db: Db, jobs: Jobs, status: str) -> None:
    jobs.add(status=status)

    assert read(db, "recent_failure") == []


def test_the_latest_failure_comes_first(db: Db, jobs: Jobs) -> None:
    old = jobs.add(status="failed", finished="2 h")
    new = jobs.add(status="failed", finished="1 min")
    older = jobs.add(status="failed", finished="3 h")

    assert [str(row["job"]) for row in read(db, "recent_failure")] == [new, old, older]


def test_only_the_last_hundred_failures_are_listed(db: Db, jobs: Jobs) -> None:
    oldest = jobs.add(status="failed", finished="1 h")
    for _ in range(100):
        jobs.add(status="failed")

    listed = {row["job"] for row in read(db, "recent_failure")}

    assert len(listed) == 100
    assert oldest not in listed


def test_no_view_shows_a_text_of_a_client(db: Db, jobs: Jobs) -> None:
    for status in ("pending", "processing", "completed", "failed"):
        jobs.add("a secret", status=status)
    add_runner(db, "somebody")

    shown = [read(db, view) for view in ("queue_health", "runner_overview", "recent_failure")]

    assert all(shown)
    assert "secret" not in str(shown)
