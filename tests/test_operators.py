"""What an operator does by hand in psql: jobs submitted, cancelled and run again by functions."""

from collections.abc import Iterator
from datetime import timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from psycopg import errors

from helpers import LOGINS, Jobs, login_url
from jobrunner import queue
from processes import System

Db = psycopg.Connection[Any]
Row = dict[str, Any]

FUNCTIONS = {
    "enqueue_job": """select enqueue_job('sentiment', '{"text": "fine"}')""",
    "cancel_job": "select cancel_job(gen_random_uuid())",
    "retry_job": "select retry_job(gen_random_uuid())",
    "retry_failed": "select retry_failed('sentiment', now())",
}
FINAL = ["completed", "failed"]
HOUR = timedelta(hours=1)


@pytest.fixture
def operator(jobs: Jobs, web_url: str) -> Iterator[Db]:
    """Somebody with the rights of job_web."""
    with psycopg.connect(web_url, autocommit=True) as connection:
        yield connection


def ask(connection: Db, query: str, values: Row | None = None) -> Any:
    row = connection.execute(query.encode(), values).fetchone()
    assert row
    return row[0]


def enqueue(connection: Db, arguments: str = """'sentiment', '{"text": "fine"}'""") -> str:
    return str(ask(connection, f"select enqueue_job({arguments})"))


def cancel(connection: Db, job_id: str) -> str:
    return str(ask(connection, "select cancel_job(%(id)s)", {"id": job_id}))


def retry(connection: Db, job_id: str) -> str:
    return str(ask(connection, "select retry_job(%(id)s)", {"id": job_id}))


def retry_failed(
    connection: Db, *, model: str = "sentiment", since: timedelta = HOUR, **more: Any
) -> int:
    values: Row = {"model": model, "since": since, "up_to": 1000, "code": None} | more
    call = "select retry_failed(%(model)s, now() - %(since)s, %(up_to)s, %(code)s)"
    return int(ask(connection, call, values))


def retries(jobs: Jobs) -> list[str]:
    """Of which jobs there are retries, in the order in which they were submitted."""
    query = "select retry_of::text from job where retry_of is not null order by id"
    return [row[0] for row in jobs.db.execute(query)]


def fail_with(jobs: Jobs, code: str) -> str:
    job_id = jobs.add(status="processing")
    jobs.db.execute(
        """
        update job
        set
            status = 'failed',
            lease_token = null,
            finished_at = clock_timestamp(),
            error = jsonb_build_object('code', %s::text, 'message', '', 'retryable', true)
        where id = %s
        """,
        [code, job_id],
    )
    return job_id


# enqueue_job


def test_a_job_that_is_enqueued_is_as_a_client_s(operator: Db, jobs: Jobs) -> None:
    row = jobs.get(enqueue(operator))

    assert (row["model"], row["input"], row["status"]) == (
        "sentiment",
        {"text": "fine"},
        "pending",
    )
    assert (row["priority"], row["attempt"], row["max_attempts"]) == (0, 0, 3)
    assert row["client_id"] is None


def test_priority_attempts_and_client_can_be_named(operator: Db, jobs: Jobs) -> None:
    row = jobs.get(
        enqueue(operator, "'sentiment', '{}', -7, max_attempts => 1, client_id => 'shop'")
    )

    assert (row["priority"], row["max_attempts"], row["client_id"]) == (-7, 1, "shop")


def test_the_owner_may_say_when_a_job_is_due(db: Db, jobs: Jobs) -> None:
    job_id = enqueue(db, "'sentiment', '{}', run_at => now() + interval '1 hour'")

    row = jobs.get(job_id)
    assert timedelta(minutes=59) < row["run_at"] - row["created_at"] < timedelta(minutes=61)


def test_what_is_due_since_long_ago_waits_from_now_on(db: Db, jobs: Jobs) -> None:
    row = jobs.get(enqueue(db, "'sentiment', '{}', run_at => '1000-01-01'"))

    assert abs(row["run_at"] - row["created_at"]) < timedelta(minutes=1)


def test_who_may_not_set_when_a_job_is_due_may_not_by_the_function_either(
    operator: Db, jobs: Jobs
) -> None:
    with pytest.raises(errors.InsufficientPrivilege):
        enqueue(operator, "'sentiment', '{}', run_at => now()")

    assert jobs.count() == 0


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ("'unheard-of', '{}'", errors.InvalidParameterValue, "there is no model 'unheard-of'"),
        ("null, '{}'", errors.InvalidParameterValue, "there is no model NULL"),
        ("'sentiment', '{}', 101", errors.InvalidParameterValue, "from -100 to 100"),
        ("'sentiment', '{}', 70000", errors.InvalidParameterValue, "from -100 to 100"),
        ("'sentiment', '{}', null", errors.InvalidParameterValue, "from -100 to 100"),
        ("'sentiment', '[]'", errors.InvalidParameterValue, "not a JSON object"),
        ("'sentiment', null", errors.InvalidParameterValue, "not a JSON object"),
        ("'sentiment', '{}', max_attempts => 0", errors.InvalidParameterValue, "from 1 to 100"),
        ("'sentiment', '{}', max_attempts => null", errors.InvalidParameterValue, "from 1 to 100"),
    ],
)
def test_what_is_no_job_is_refused_with_a_reason(
    operator: Db, jobs: Jobs, arguments: str, error: type[errors.Error], said: str
) -> None:
    with pytest.raises(error, match=said):
        enqueue(operator, arguments)

    assert jobs.count() == 0


def test_a_model_that_is_not_there_comes_with_a_hint(operator: Db) -> None:
    with pytest.raises(errors.InvalidParameterValue) as caught:
        enqueue(operator, "'unheard-of', '{}'")

    assert "table model" in str(caught.value.diag.message_hint)


@pytest.mark.process
def test_enqueue_job_wakes_a_sleeping_runner(services: System, admin: Db) -> None:
    services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_POLL_SECONDS=60)

    assert Jobs(admin).start_quickly(lambda: enqueue(admin))


# cancel_job


def test_a_pending_job_is_cancelled_at_once(operator: Db, jobs: Jobs) -> None:
    job_id = jobs.add()

    assert cancel(operator, job_id) == "cancelled"
    assert (jobs.status(job_id), jobs.get(job_id)["error"]["code"]) == ("failed", "cancelled")


def test_of_a_job_in_work_the_runner_is_asked(operator: Db, jobs: Jobs) -> None:
    job_id = jobs.add(status="processing")
    jobs.db.execute("listen cancel_requested")

    assert cancel(operator, job_id) == "its runner is asked to end it"
    assert cancel(operator, job_id) == "its runner is asked to end it"
    heard = [note.payload for note in jobs.db.notifies(timeout=10, stop_after=1)]
    assert (heard, jobs.status(job_id)) == ([job_id], "processing")


@pytest.mark.parametrize("status", FINAL)
def test_a_final_job_is_not_touched_by_a_cancel(operator: Db, jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)
    before = jobs.get(job_id)

    assert cancel(operator, job_id) == f"was {status} already"
    assert jobs.get(job_id) == before
    assert ask(jobs.db, "select count(*) from cancel_request") == 0


def test_who_cancels_twice_is_told_that_it_was_done(operator: Db, jobs: Jobs) -> None:
    job_id = jobs.add()
    cancel(operator, job_id)

    assert cancel(operator, job_id) == "was cancelled already"


@pytest.mark.parametrize("call", [cancel, retry])
def test_a_job_that_is_not_there_is_an_error_with_a_hint(operator: Db, call: Any) -> None:
    job_id = str(uuid4())

    with pytest.raises(errors.NoDataFound, match=f"there is no job '{job_id}'") as caught:
        call(operator, job_id)

    assert "JOBRUNNER_RETENTION" in str(caught.value.diag.message_hint)


# retry_job


def test_a_failed_job_is_run_again_as_a_new_one(operator: Db, jobs: Jobs) -> None:
    old_id = jobs.add("again", status="failed", priority=5, max_attempts=7)
    before = jobs.get(old_id)

    new = jobs.get(retry(operator, old_id))

    assert (new["status"], new["attempt"], str(new["retry_of"])) == ("pending", 0, old_id)
    same = ("model", "input", "priority", "max_attempts", "client_id")
    assert [new[name] for name in same] == [before[name] for name in same]
    assert jobs.get(old_id) == before


def test_a_retry_is_its_client_s(db: Db, operator: Db, jobs: Jobs) -> None:
    old_id = enqueue(db, "'sentiment', '{}', client_id => 'shop'")
    cancel(db, old_id)

    assert jobs.get(retry(operator, old_id))["client_id"] == "shop"


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_only_a_failed_job_can_be_retried(operator: Db, jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)

    with pytest.raises(errors.ObjectNotInPrerequisiteState, match=f"this one is {status}"):
        retry(operator, job_id)

    assert jobs.count() == 1


# retry_failed


def test_what_has_failed_since_then_is_run_again_the_oldest_first(operator: Db, jobs: Jobs) -> None:
    jobs.db.execute("insert into model (name) values ('other')")
    second = jobs.add(status="failed", finished="10 min")
    first = jobs.add(status="failed", finished="50 min")
    jobs.add(status="failed", finished="70 min")
    jobs.add(status="failed", model="other")
    for status in ("pending", "processing", "completed"):
        jobs.add(status=status)

    assert retry_failed(operator) == 2
    assert retries(jobs) == [first, second]


def test_a_second_call_goes_on_where_the_first_one_stopped(operator: Db, jobs: Jobs) -> None:
    failed = [jobs.add(status="failed", finished=f"{age} min") for age in (50, 40, 30)]

    assert [retry_failed(operator, up_to=2) for _ in range(3)] == [2, 1, 0]
    assert retries(jobs) == failed


def test_calls_at_the_same_time_repeat_no_job_twice(
    operator: Db, jobs: Jobs, owner_url: str
) -> None:
    failed = [jobs.add(status="failed") for _ in range(5)]

    with psycopg.connect(owner_url) as other:
        assert retry_failed(other) == 5
        # What is not committed yet it can not see, and waits for.
        operator.execute("set lock_timeout = '100 ms'")
        with pytest.raises(errors.LockNotAvailable):
            retry_failed(operator)
    assert retry_failed(operator) == 0
    assert sorted(retries(jobs)) == sorted(failed)


def test_a_retry_that_has_failed_as_well_is_run_again(operator: Db, jobs: Jobs) -> None:
    jobs.add(status="failed")
    retry_failed(operator)
    [again] = [row[0] for row in jobs.db.execute("select id::text from job where error is null")]
    cancel(operator, again)

    assert retry_failed(operator, code="cancelled") == 1
    assert retries(jobs)[-1] == again


def test_what_was_cancelled_is_left_alone_unless_it_is_asked_for(operator: Db, jobs: Jobs) -> None:
    job_id = jobs.add()
    cancel(operator, job_id)

    assert retry_failed(operator) == 0
    assert retry_failed(operator, code="cancelled") == 1


def test_with_a_code_only_what_failed_with_it_is_run_again(operator: Db, jobs: Jobs) -> None:
    late = fail_with(jobs, "timeout")
    fail_with(jobs, "model_error")

    assert retry_failed(operator, code="timeout") == 1
    assert retries(jobs) == [late]


def test_of_a_model_that_is_not_there_nothing_is_run_again(operator: Db) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="there is no model 'sentimnet'"):
        retry_failed(operator, model="sentimnet")


def test_without_a_time_nothing_is_run_again(operator: Db) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="no time since when"):
        operator.execute("select retry_failed('sentiment', null)")


@pytest.mark.parametrize("up_to", [0, -1, None])
def test_a_limit_that_is_none_is_refused(operator: Db, jobs: Jobs, up_to: int | None) -> None:
    jobs.add(status="failed")

    with pytest.raises(errors.InvalidParameterValue, match="up_to should be at least 1"):
        retry_failed(operator, up_to=up_to)

    assert jobs.count() == 1


# Who may call them, and from where.


@pytest.mark.parametrize("name", FUNCTIONS)
@pytest.mark.parametrize("login", ["runner_login", "janitor_login"])
def test_who_may_not_submit_may_not_call_them(
    jobs: Jobs, owner_url: str, login: str, name: str
) -> None:
    assert login in LOGINS
    with (
        psycopg.connect(login_url(owner_url, login), autocommit=True) as connection,
        pytest.raises(errors.InsufficientPrivilege, match=f"function {name}"),
    ):
        connection.execute(FUNCTIONS[name].encode())

    assert jobs.count() == 0


@pytest.mark.parametrize("name", FUNCTIONS)
def test_each_acts_with_the_rights_of_its_caller_and_says_what_it_does(db: Db, name: str) -> None:
    [(definer, config, comment)] = db.execute(
        """
        select prosecdef, proconfig, obj_description(oid, 'pg_proc')
        from pg_proc
        where proname = %s
        """,
        [name],
    ).fetchall()

    assert not definer
    assert config == ["search_path=public, pg_temp"]
    assert comment


def test_a_table_of_one_s_own_does_not_take_the_place_of_the_jobs(operator: Db, jobs: Jobs) -> None:
    operator.execute("create temporary table job (like public.job)")
    operator.execute("set search_path = pg_temp, public")

    job_id = ask(operator, """select public.enqueue_job('sentiment', '{"text": "fine"}')""")

    assert jobs.status(str(job_id)) == "pending"


def test_what_is_enqueued_can_be_claimed(operator: Db, db: Db, jobs: Jobs) -> None:
    job_id = enqueue(operator)
    jobs.add_runner("here-1-abcd")

    claimed = queue.claim(db, runner="here-1-abcd", model="sentiment", slots=5)

    assert [str(job.id) for job in claimed] == [job_id]
