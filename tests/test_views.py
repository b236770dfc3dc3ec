"""The views for people in psql say what is there."""

from datetime import timedelta
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from helpers import Jobs, leave_dead_rows

Db = psycopg.Connection[Any]
Row = dict[str, Any]

SECOND = timedelta(seconds=1)

FILL = """
    insert into job (model, input)
    select
        %(model)s,
        '{"text": "I love it"}'
    from generate_series(1, %(count)s)
"""


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


# queue_health, table_health


def test_the_share_of_dead_rows_is_said_where_there_are_many(db: Db) -> None:
    db.execute("vacuum job")
    leave_dead_rows(db, 9_000)
    assert health(db)["dead_percent"] is None

    leave_dead_rows(db, 3_000)

    assert health(db)["dead_percent"] == 100


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


@pytest.mark.parametrize("before", [0, 1500])
def test_of_a_long_queue_the_oldest_is_the_first_that_is_pending(
    db: Db, jobs: Jobs, before: int
) -> None:
    db.execute("insert into model (name) values ('topic')")
    db.execute(FILL, {"model": "topic", "count": before})
    claimed = jobs.add(status="processing")
    db.execute(FILL, {"model": "sentiment", "count": 2000})
    [(oldest,)] = db.execute(
        "select min(created_at) from job where model = 'sentiment' and status = 'pending'"
    ).fetchall()

    found = {row["model"]: row for row in read(db, "model_queue")}

    row = found["sentiment"]
    assert (row["pending"], row["processing"]) == (2000, 1)
    assert jobs.get(claimed)["created_at"] < oldest == row["oldest_pending_at"]
    assert found["topic"]["pending"] == before
    assert (found["topic"]["oldest_pending_at"] is None) == (before == 0)


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


# waiting_job


def test_what_waits_is_listed_by_model_in_the_order_of_the_claim(db: Db, jobs: Jobs) -> None:
    db.execute("insert into model (name) values ('language')")
    later = jobs.add(priority=-1)
    retried = jobs.add(attempt=1, due_in="90 s")
    first, second = jobs.add(), jobs.add()
    urgent = jobs.add(priority=5)
    other = jobs.add(model="language")
    for status in ("processing", "completed", "failed"):
        jobs.add(status=status)

    rows = read(db, "waiting_job")

    listed = [str(row["job"]) for row in rows]
    assert listed == [other, urgent, first, second, retried, later]


def test_what_waits_says_since_when_and_until_when(db: Db, jobs: Jobs) -> None:
    jobs.add(created="10 min")
    jobs.add(attempt=1, due_in="90 s")

    due, delayed = read(db, "waiting_job")

    assert timedelta(minutes=10) <= due["waits_for"] <= timedelta(minutes=10, seconds=20)
    assert due["attempt"] == 0
    assert [due[name] for name in ("due_in", "last_error", "client")] == [None] * 3
    assert timedelta(seconds=60) < delayed["due_in"] < timedelta(seconds=90)
    assert delayed["due_in"].microseconds == due["waits_for"].microseconds == 0


def test_what_waits_says_why_its_last_attempt_failed(db: Db, jobs: Jobs) -> None:
    job_id = jobs.add(attempt=2)
    db.execute(
        "update job set errors = %s where id = %s",
        ['[{"code": "timeout"}, {"code": "worker_lost"}]', job_id],
    )

    [row] = read(db, "waiting_job")

    assert row["last_error"] == "worker_lost"


def test_of_a_long_queue_only_what_comes_next_is_listed(db: Db, jobs: Jobs) -> None:
    listed = jobs.add_many(25)[:20]

    assert [str(row["job"]) for row in read(db, "waiting_job")] == listed


# running_job


def test_a_job_in_work_says_who_has_it_and_since_when(db: Db, jobs: Jobs) -> None:
    add_runner(db, heartbeat_ago="4 s")
    jobs.add(status="processing", claimed_by="gone-1-abcd", finished="1 min")
    job_id = jobs.add(status="processing", claimed_by="here-1-abcd", finished="5 min")
    db.execute("insert into cancel_request (job_id) values (%s)", [job_id])
    db.execute("insert into job_progress values (%s, 1, 0.256, 'reading')", [job_id])
    for status in ("pending", "completed", "failed"):
        jobs.add(status=status)

    here, gone = read(db, "running_job")

    assert timedelta(minutes=5) <= here.pop("runs_for") <= timedelta(minutes=5, seconds=20)
    assert timedelta(seconds=4) <= here.pop("runner_heard_ago") <= timedelta(seconds=24)
    assert timedelta() <= here.pop("cancel_asked_ago") <= timedelta(seconds=20)
    assert here == {
        "job": UUID(job_id),
        "model": "sentiment",
        "runner": "here-1-abcd",
        "attempt": 1,
        "max_attempts": 3,
        "percent": 26,
        "progress": "reading",
    }
    assert gone["runner"] == "gone-1-abcd"
    unknown = ("percent", "progress", "runner_heard_ago", "cancel_asked_ago")
    assert [gone[name] for name in unknown] == [None] * 4


def test_progress_of_another_attempt_is_not_shown(db: Db, jobs: Jobs) -> None:
    job_id = jobs.add(status="processing", attempt=2)
    db.execute("insert into job_progress values (%s, 1, 0.5, 'reading')", [job_id])

    [row] = read(db, "running_job")

    assert (row["percent"], row["progress"]) == (None, None)


# failure_summary


def fail(
    db: Db, jobs: Jobs, message: str, *, code: str = "model_error", finished: str = "0 s"
) -> str:
    job_id = jobs.add(status="processing")
    db.execute(
        """
        update job
        set
            status = 'failed',
            lease_token = null,
            finished_at = clock_timestamp() - %s::interval,
            error = jsonb_build_object('code', %s::text, 'message', %s::text, 'retryable', true)
        where id = %s
        """,
        [finished, code, message, job_id],
    )
    return job_id


def test_alike_failures_are_one_row(db: Db, jobs: Jobs) -> None:
    fail(db, jobs, "no word 12 at 0xff", finished="2 h")
    last = fail(db, jobs, "no word 7 at 0x1a", finished="10 min")
    fail(db, jobs, "no word 7 at 0x1a", code="timeout", finished="1 h")
    fail(db, jobs, "no verb 7 at 0x1a", finished="1 h")
    jobs.add(status="completed")

    first, *others = read(db, "failure_summary")

    assert timedelta(hours=2) <= first.pop("first_ago") <= timedelta(hours=2, seconds=20)
    assert timedelta(minutes=10) <= first.pop("last_ago") <= timedelta(minutes=10, seconds=20)
    assert first == {
        "model": "sentiment",
        "code": "model_error",
        "message": "no word … at …",
        "jobs": 2,
        "last_job": UUID(last),
    }
    assert [(row["code"], row["message"], row["jobs"]) for row in others] == [
        ("model_error", "no verb … at …", 1),
        ("timeout", "no word … at …", 1),
    ]


def test_what_failed_more_than_a_day_ago_is_not_summed_up(db: Db, jobs: Jobs) -> None:
    jobs.add(status="failed", finished="25 h")

    assert read(db, "failure_summary") == []


@pytest.mark.parametrize(
    ("message", "shape"),
    [
        ("", ""),
        ("it broke", "it broke"),
        ("took 61.5 s, not 60", "took … s, not …"),
        ("job 01a20cb8-4fcc-7cce-9018-66bb635f7e86 is lost", "job … is lost"),
        ("KeyError: 'name'", "KeyError: …"),
        ('no "word" here', "no … here"),
        ("can't do what it doesn't know", "can't do what it doesn't know"),
        ("<object at 0x7f78d26199d0>", "<object at …>"),
        ("first line 1\nsecond line 2", "first line …"),
    ],
)
def test_a_message_has_a_shape(db: Db, message: str, shape: str) -> None:
    assert db.execute("select message_shape(%s)", [message]).fetchone() == (shape,)


# throughput


def record(db: Db, minute: str, **more: Any) -> None:
    """Insert what was done in a minute, of two claims and two inferences."""
    values = {"model": "sentiment", "minute": minute, "completed": 0, "failed": 0} | more
    db.execute(
        """
        insert into activity (
            model, minute, completed, failed, retried, released, rescued,
            waits, wait_seconds, inferences, inference_seconds
        )
        values (
            %(model)s,
            case
                when %(minute)s = '-infinity' then '-infinity'
                else date_trunc('minute', now()) - %(minute)s::interval
            end,
            %(completed)s, %(failed)s, 3, 0, 1,
            array_fill(0::bigint, array[15]) || 2::bigint, 5,
            array_fill(0::bigint, array[15]) || 2::bigint, 1
        )
        """,
        values,
    )


def test_each_minute_of_the_last_hour_says_what_was_done(db: Db) -> None:
    record(db, "-infinity", completed=1000)
    record(db, "2 min", completed=90, failed=2)
    record(db, "2 h", completed=77)

    rows = read(db, "throughput")

    assert len(rows) == 60
    [done] = [row for row in rows if row["completed"]]
    empty = {row["minute"]: row for row in rows if not row["completed"]}
    assert done["minute"] not in empty
    figures = ("model", "completed", "failed", "retried", "rescued")
    assert [done[name] for name in figures] == ["sentiment", 90, 2, 3, 1]
    means = ("per_second", "mean_wait_seconds", "mean_inference_seconds")
    assert [float(done[name]) for name in means] == [1.5, 2.5, 0.5]
    assert all(row["per_second"] == 0 for row in empty.values())
    assert all(row["mean_wait_seconds"] is None for row in empty.values())


def test_the_present_minute_comes_first_and_of_it_only_what_is_over_counts(db: Db) -> None:
    record(db, "-infinity")
    record(db, "0 s", completed=60)
    [(seconds,)] = db.execute("select extract(epoch from now() - date_trunc('minute', now()))")

    first, *_ = read(db, "throughput")

    # The minute may have ended meanwhile.
    most = 60 / max(1, float(seconds)) + 0.01
    assert first["completed"] == 0 or 1 <= first["per_second"] <= most


def test_a_model_that_has_never_done_anything_has_no_throughput(db: Db) -> None:
    assert read(db, "throughput") == []


# client_backlog


def test_who_has_most_in_the_queue_comes_first(db: Db, jobs: Jobs) -> None:
    for client, status in (
        ("few", "pending"),
        ("many", "pending"),
        ("many", "processing"),
        ("done", "completed"),
    ):
        job_id = jobs.add(status="pending")
        db.execute("update job set client_id = %s where id = %s", [client, job_id])
        if status != "pending":
            jobs.start(job_id)
        if status == "completed":
            jobs.finish(job_id)
    jobs.add()

    assert read(db, "client_backlog") == [
        {"client": "many", "jobs": 2},
        {"client": "few", "jobs": 1},
    ]


def test_no_view_shows_a_text_of_a_client(db: Db, jobs: Jobs) -> None:
    for status in ("pending", "processing", "completed", "failed"):
        jobs.add("a secret", status=status)
    add_runner(db, "somebody")

    views = (
        "queue_health", "runner_overview", "recent_failure", "waiting_job", "running_job",
        "failure_summary",
    )  # fmt: skip
    shown = [read(db, view) for view in views]

    assert all(shown)
    assert "secret" not in str(shown)
