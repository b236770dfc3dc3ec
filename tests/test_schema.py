"""The table ``job`` guards itself: what it refuses, whoever asks, and what it does unasked."""

import json
import re
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from helpers import ERROR, POSITIVE, Jobs, empty
from jobrunner import database, heartbeat, queue
from jobrunner import jobs as shown_jobs
from jobrunner.links import PLANNING
from jobrunner.outcome import Job, Outcome
from web.pages import LIST_JOBS

Db = psycopg.Connection[Any]
Row = dict[str, Any]

UNFINISHED = ["pending", "processing"]
FINAL = ["completed", "failed"]
STATUSES = UNFINISHED + FINAL

NOW = datetime.now(UTC)
BY_HAND = """insert into job (model, input) values ('sentiment', '{"text": "fine"}') returning id"""
# One more than the default, so that there is room for every move.
ATTEMPT = 2


@pytest.fixture
def db(owner: Db) -> Db:
    """The owner's connection to empty tables: one for all, since there are so many tests."""
    empty(owner)
    return owner


def insert(db: Db, table: str, row: Row) -> None:
    statement = sql.SQL("insert into {} ({}) values ({})").format(
        sql.Identifier(table),
        sql.SQL(", ").join(map(sql.Identifier, row)),
        sql.SQL(", ").join(map(sql.Placeholder, row)),
    )
    db.execute(statement, row)


def update(db: Db, job_id: UUID, row: Row) -> None:
    changes = [sql.SQL("{} = {}").format(sql.Identifier(k), sql.Placeholder(k)) for k in row]
    statement = sql.SQL("update job set {} where id = %(the_id)s").format(
        sql.SQL(", ").join(changes)
    )
    db.execute(statement, row | {"the_id": job_id})


def columns_for(status: str) -> Row:
    """What a row of that status has in the columns that go with it."""
    started, final = status in ("processing", "completed"), status in FINAL
    return {
        "status": status,
        "claimed_by": "here-1-abcd" if started else None,
        "lease_token": uuid4() if status == "processing" else None,
        "started_at": NOW if started else None,
        "finished_at": NOW if final else None,
        "result": Jsonb(POSITIVE) if status == "completed" else None,
        "error": Jsonb(ERROR) if status == "failed" else None,
    }


def job_row(status: str = "pending", **columns: Any) -> Row:
    return {"input": Jsonb({"text": "fine"})} | columns_for(status) | columns


# A row made by hand.


def test_a_row_inserted_by_hand_is_a_pending_job(db: Db, jobs: Jobs) -> None:
    before = datetime.now(UTC)

    inserted = db.execute(BY_HAND).fetchone()

    assert inserted
    row = jobs.get(inserted[0])
    for time in (row.pop("created_at"), row.pop("run_at")):
        assert before - timedelta(seconds=1) <= time <= datetime.now(UTC) + timedelta(seconds=1)
    assert row == {
        "id": inserted[0],
        "model": "sentiment",
        "input": {"text": "fine"},
        "priority": 0,
        "status": "pending",
        "attempt": 0,
        "max_attempts": 3,
        "claimed_by": None,
        "lease_token": None,
        "started_at": None,
        "finished_at": None,
        "result": None,
        "error": None,
        "errors": [],
        "idempotency_key": None,
        "input_hash": None,
        "batch_id": None,
        "batch_position": None,
        "retry_of": None,
        "client_id": None,
        "traceparent": None,
        "model_version": None,
        "batch_size": None,
        "inference_seconds": None,
    }


def test_a_row_inserted_by_hand_can_be_claimed_at_once(db: Db, jobs: Jobs) -> None:
    jobs.add_runner("here-1-abcd")
    inserted = db.execute(BY_HAND).fetchone()

    claimed = queue.claim(db, runner="here-1-abcd", model="sentiment", slots=1)

    assert inserted
    assert [job.id for job in claimed] == [str(inserted[0])]


def test_an_insert_works_whatever_the_search_path_is(db: Db, jobs: Jobs) -> None:
    with db.transaction():
        # As in the restore of a data-only dump, which sets it to nothing.
        db.execute("set local search_path = ''")

        db.execute("""insert into public.job (input) values ('{"text": "fine"}')""")

    assert jobs.count("pending") == 1


# Ids.


def test_ids_are_uuids_of_version_7_that_tell_the_time(db: Db) -> None:
    before = datetime.now(UTC)

    inserted = db.execute(BY_HAND).fetchone()

    assert inserted
    job_id: UUID = inserted[0]
    assert job_id.version == 7
    made_at = datetime.fromtimestamp((job_id.int >> 80) / 1000, UTC)
    assert before - timedelta(seconds=1) <= made_at <= datetime.now(UTC) + timedelta(seconds=1)


def test_ids_sort_in_the_order_of_creation(jobs: Jobs) -> None:
    made = [jobs.add() for _ in range(50)]

    assert made == sorted(made)


def test_ids_made_within_a_few_milliseconds_are_in_order(db: Db) -> None:
    made = [row[0] for row in db.execute("select uuidv7() from generate_series(1, 5000)")]

    # The first 64 bits are the time and its fraction; the rest may be random.
    times = [job_id.int >> 64 for job_id in made]
    assert times == sorted(times)
    assert len(set(made)) == 5000


# Moves.

LEGAL = {
    ("pending", "pending", 0),
    ("pending", "processing", 1),
    ("pending", "failed", 0),
    ("processing", "pending", 0),
    ("processing", "pending", -1),
    ("processing", "completed", 0),
    ("processing", "failed", 0),
}
EVERY = [(old, new, step) for old in STATUSES for new in STATUSES for step in (-2, -1, 0, 1, 2)]
ILLEGAL = [move for move in EVERY if move not in LEGAL]


@pytest.mark.parametrize(("old", "new", "step"), sorted(LEGAL))
def test_a_legal_move_is_made(db: Db, jobs: Jobs, old: str, new: str, step: int) -> None:
    job_id = jobs.add(status=old, attempt=ATTEMPT, max_attempts=10)

    update(db, job_id, columns_for(new) | {"attempt": ATTEMPT + step})

    row = jobs.get(job_id)
    assert (row["status"], row["attempt"]) == (new, ATTEMPT + step)


@pytest.mark.parametrize(("old", "new", "step"), ILLEGAL)
def test_every_other_move_is_refused(db: Db, jobs: Jobs, old: str, new: str, step: int) -> None:
    job_id = jobs.add(status=old, attempt=ATTEMPT, max_attempts=10)
    before = jobs.get(job_id)

    with pytest.raises(errors.RestrictViolation, match=str(job_id)):
        update(db, job_id, columns_for(new) | {"attempt": ATTEMPT + step})

    assert jobs.get(job_id) == before


@pytest.mark.parametrize("old", UNFINISHED)
def test_a_move_to_an_unknown_status_is_refused(db: Db, jobs: Jobs, old: str) -> None:
    job_id = jobs.add(status=old)

    with pytest.raises((errors.RestrictViolation, errors.CheckViolation)):
        db.execute("update job set status = 'cancelled' where id = %s", [job_id])

    assert jobs.status(job_id) == old


@pytest.mark.parametrize(("old", "new", "step"), sorted(LEGAL))
@pytest.mark.parametrize(
    "change",
    [
        {"id": UUID(int=7)},
        {"model": "other"},
        {"input": Jsonb({"text": "another"})},
        {"created_at": NOW - timedelta(days=1)},
    ],
    ids=lambda change: next(iter(change)),
)
def test_no_move_changes_what_was_asked(
    db: Db, jobs: Jobs, old: str, new: str, step: int, change: Row
) -> None:
    job_id = jobs.add(status=old, attempt=ATTEMPT, max_attempts=10)
    before = jobs.get(job_id)

    with pytest.raises(errors.RestrictViolation):
        update(db, job_id, columns_for(new) | {"attempt": ATTEMPT + step} | change)

    assert jobs.get(job_id) == before


def test_a_refused_move_says_which_it_was(db: Db, jobs: Jobs) -> None:
    job_id = jobs.add()

    with pytest.raises(errors.RestrictViolation) as refusal:
        update(db, job_id, columns_for("completed"))

    said = refusal.value.diag.message_primary
    assert said == f"job {job_id} may not go from pending (attempt 0) to completed (attempt 0)"


# A final row never changes.

CHANGES: Row = {
    "id": UUID(int=7),
    "model": "other",
    "input": Jsonb({"text": "another"}),
    "priority": 1,
    "status": "pending",
    "attempt": 2,
    "max_attempts": 4,
    "run_at": NOW,
    "claimed_by": "there-1-abcd",
    "lease_token": UUID(int=7),
    "created_at": NOW,
    "started_at": NOW,
    "finished_at": NOW,
    "result": Jsonb({"sentiment": "negative", "confidence": 0.5}),
    "error": Jsonb(ERROR | {"code": "timeout"}),
    "errors": Jsonb([ERROR]),
    "idempotency_key": "key",
    "input_hash": b"hash",
    "batch_id": UUID(int=7),
    "batch_position": 7,
    "retry_of": UUID(int=7),
    "client_id": "client",
    "traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
    "model_version": "2",
    "batch_size": 7,
    "inference_seconds": 0.5,
}


@pytest.mark.parametrize("status", FINAL)
@pytest.mark.parametrize("column", CHANGES)
def test_no_column_of_a_final_row_changes(db: Db, jobs: Jobs, status: str, column: str) -> None:
    job_id = jobs.add(status=status)
    before = jobs.get(job_id)

    with pytest.raises(errors.RestrictViolation, match=f"{job_id} is {status} and never changes"):
        update(db, job_id, {column: CHANGES[column]})

    assert jobs.get(job_id) == before
    assert before.keys() == CHANGES.keys()


@pytest.mark.parametrize("status", FINAL)
@pytest.mark.parametrize(
    "statement",
    [
        "update job set status = status",
        "update job set attempt = attempt, result = result, error = error",
        """
        insert into job (id, input)
        select id, input from job
        on conflict (id) do update set priority = excluded.priority
        """,
        """
        merge into job
        using (select id from job) as same
        on job.id = same.id
        when matched then update set run_at = clock_timestamp()
        """,
    ],
    ids=["one column as it was", "several columns as they were", "on conflict", "merge"],
)
def test_a_final_row_is_not_even_written_again(
    db: Db, jobs: Jobs, status: str, statement: str
) -> None:
    job_id = jobs.add(status=status)
    before = version_of_row(db)

    with pytest.raises(errors.RestrictViolation, match=str(job_id)):
        db.execute(statement)

    assert version_of_row(db) == before


def version_of_row(db: Db) -> list[Any]:
    return db.execute("select xmin, ctid, job from job").fetchall()


def test_one_final_row_keeps_a_whole_statement_from_moving(db: Db, jobs: Jobs) -> None:
    pending, completed = jobs.add(), jobs.add(status="completed")

    with pytest.raises(errors.RestrictViolation, match=str(completed)):
        db.execute("update job set priority = 5")

    assert jobs.get(pending)["priority"] == 0


# Deletion.


@pytest.mark.parametrize("status", UNFINISHED)
def test_an_unfinished_job_is_not_deleted(db: Db, jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)

    with pytest.raises(errors.RestrictViolation, match=f"{job_id} is {status} and is not deleted"):
        db.execute("delete from job")

    assert jobs.status(job_id) == status


@pytest.mark.parametrize("status", FINAL)
def test_a_final_job_is_deleted(db: Db, jobs: Jobs, status: str) -> None:
    jobs.add(status=status)

    deleted = db.execute("delete from job").rowcount

    assert deleted == 1
    assert jobs.count() == 0


# Checks.


def without(key: str) -> Jsonb:
    return Jsonb({name: value for name, value in ERROR.items() if name != key})


def confidence(value: Any) -> Jsonb:
    return Jsonb({"sentiment": "positive", "confidence": value})


def sentiment(value: Any) -> Jsonb:
    return Jsonb({"sentiment": value, "confidence": 0.5})


A_RESULT = Jsonb(POSITIVE)
AN_ERROR = Jsonb(ERROR)

REFUSED: dict[str, list[Row]] = {
    "status_is_known": [
        job_row(status="done"),
        job_row(status="Pending"),
        job_row(status=""),
    ],
    "input_is_an_object": [
        job_row(input=Jsonb([])),
        job_row(input=Jsonb("fine")),
        job_row(input=Jsonb(None)),
    ],
    "times_are_of_years_1_to_9999": [
        job_row(run_at="infinity"),
        job_row(run_at="-infinity"),
        job_row(created_at="infinity"),
        job_row(created_at="12000-01-01"),
        job_row(created_at="0002-01-01 BC"),
        job_row("completed", started_at="infinity"),
        job_row("completed", finished_at="infinity"),
        job_row("failed", finished_at="12000-01-01"),
    ],
    "priority_is_from_minus_100_to_100": [
        job_row(priority=101),
        job_row(priority=-101),
    ],
    "max_attempts_is_from_1_to_100": [
        job_row(max_attempts=0),
        job_row(max_attempts=101),
    ],
    "attempt_is_within_max_attempts": [
        job_row(attempt=-1),
        job_row(attempt=4),
        job_row("failed", attempt=2, max_attempts=1),
    ],
    "processing_job_has_a_claim": [
        job_row("processing", lease_token=None),
        job_row("processing", claimed_by=None),
        job_row("processing", lease_token=None, claimed_by=None),
        job_row("pending", lease_token=uuid4()),
        job_row("pending", claimed_by="here-1-abcd"),
        job_row("completed", lease_token=uuid4()),
        job_row("failed", lease_token=uuid4()),
    ],
    "started_job_has_started_at": [
        job_row("processing", started_at=None),
        job_row("completed", started_at=None),
        job_row("pending", started_at=NOW),
    ],
    "final_job_has_finished_at": [
        job_row("completed", finished_at=None),
        job_row("failed", finished_at=None),
        job_row("pending", finished_at=NOW),
        job_row("processing", finished_at=NOW),
    ],
    "completed_job_has_a_result": [
        job_row("completed", result=None),
        job_row("completed", result=None, model="other"),
        job_row("pending", result=A_RESULT),
        job_row("processing", result=A_RESULT),
        job_row("failed", result=A_RESULT),
    ],
    "failed_job_has_an_error": [
        job_row("failed", error=None),
        job_row("pending", error=AN_ERROR),
        job_row("processing", error=AN_ERROR),
        job_row("completed", error=AN_ERROR),
    ],
    "error_has_code_message_and_retryable": [
        job_row("failed", error=without("code")),
        job_row("failed", error=without("message")),
        job_row("failed", error=without("retryable")),
        job_row("failed", error=Jsonb(ERROR | {"code": 500})),
        job_row("failed", error=Jsonb(ERROR | {"message": None})),
        job_row("failed", error=Jsonb(ERROR | {"retryable": "true"})),
        job_row("failed", error=Jsonb("it broke")),
        job_row("failed", error=Jsonb([ERROR])),
        job_row("failed", error=Jsonb(None)),
    ],
    "errors_is_an_array": [
        job_row(errors=Jsonb({})),
        job_row(errors=Jsonb(None)),
    ],
    "sentiment_has_a_confidence_from_0_to_1": [
        job_row("completed", result=confidence(-0.01)),
        job_row("completed", result=confidence(1.0000001)),
        job_row("completed", result=confidence(10**400)),
        job_row("completed", result=confidence("0.9")),
        job_row("completed", result=confidence("NaN")),
        job_row("completed", result=confidence("Infinity")),
        job_row("completed", result=confidence(None)),
        job_row("completed", result=confidence(True)),
        job_row("completed", result=confidence([0.9])),
        job_row("completed", result=Jsonb({"sentiment": "positive"})),
        job_row("completed", result=sentiment("neutral")),
        job_row("completed", result=sentiment("Positive")),
        job_row("completed", result=sentiment(None)),
        job_row("completed", result=Jsonb({"confidence": 0.5})),
        job_row("completed", result=Jsonb({})),
        job_row("completed", result=Jsonb([POSITIVE])),
        job_row("completed", result=Jsonb("positive")),
        job_row("completed", result=Jsonb(None)),
    ],
    "idempotency_key_has_an_input_hash": [
        job_row(idempotency_key="key"),
        job_row(input_hash=b"hash"),
    ],
}

RUNNER: Row = {
    "id": "here-1-abcd",
    "host": "here",
    "pid": 1,
    "version": "0",
    "models": ["sentiment"],
    "workers": 2,
    "lease": timedelta(seconds=30),
}

REFUSED_RUNNERS: dict[str, list[Row]] = {
    "lost_runner_is_not_asleep": [RUNNER | {"lost_at": NOW, "sleeping": True}],
    "stop_now_is_a_stop_request": [RUNNER | {"stop_now": True}],
    "wake_channel_can_be_notified": [RUNNER | {"wake_channel": name} for name in ("", "c" * 64)],
    "heartbeat_at_is_of_years_1_to_9999": [
        RUNNER | {"heartbeat_at": time} for time in ("infinity", "-infinity", "12000-01-01")
    ],
    "started_at_is_of_years_1_to_9999": [RUNNER | {"started_at": "infinity"}],
    "lease_is_from_a_second_to_a_day": [
        RUNNER | {"lease": timedelta(seconds=seconds)} for seconds in (-1, 0, 86401)
    ],
}

REFUSED_MODELS: dict[str, list[Row]] = {
    "model_name_is_plain": [
        {"name": name} for name in ("", "Sentiment", "-x", ".x", "a b", "a/b", "ä", "x\n", "x" * 64)
    ],
}

EVERY_REFUSAL = {"job": REFUSED, "runner": REFUSED_RUNNERS, "model": REFUSED_MODELS}


@pytest.mark.parametrize(
    ("table", "constraint", "row"),
    [
        pytest.param(table, constraint, row, id=f"{constraint}-{number}")
        for table, refused in EVERY_REFUSAL.items()
        for constraint, rows in refused.items()
        for number, row in enumerate(rows)
    ],
)
def test_a_check_refuses_what_its_name_says(db: Db, table: str, constraint: str, row: Row) -> None:
    with pytest.raises(errors.CheckViolation) as refusal:
        insert(db, table, row)

    assert refusal.value.diag.constraint_name == constraint


@pytest.mark.parametrize("table", EVERY_REFUSAL)
def test_every_check_is_tested_here(db: Db, table: str) -> None:
    query = "select conname from pg_constraint where conrelid = %s::regclass and contype = 'c'"

    checks = {row[0] for row in db.execute(query, [table])}
    if "job_is_sound" in checks:
        [(source,)] = db.execute("select prosrc from pg_proc where proname = 'is_sound_job'")
        checks = {*re.findall(r"then '(\w+)'", source)}

    assert checks == EVERY_REFUSAL[table].keys()


@pytest.mark.parametrize(
    "row",
    [
        *(job_row(status) for status in STATUSES),
        job_row(priority=-100),
        job_row(priority=100),
        job_row(max_attempts=1),
        job_row("failed", attempt=100, max_attempts=100),
        job_row("completed", attempt=3, claimed_by="here-1-abcd", errors=Jsonb([ERROR, ERROR])),
        job_row("failed", started_at=NOW, claimed_by="here-1-abcd"),
        job_row("failed", error=Jsonb(ERROR | {"seen": "before"})),
        job_row("completed", result=confidence(0)),
        job_row("completed", result=confidence(1)),
        job_row("completed", result=confidence(1e-300)),
        job_row("completed", result=sentiment("negative")),
        job_row("completed", result=Jsonb({"anything": "else"}), model="other"),
        job_row("completed", result=Jsonb(None), model="other"),
        job_row(idempotency_key="key", input_hash=b"hash"),
    ],
    ids=range(18),
)
def test_the_checks_let_pass_what_is_right(db: Db, jobs: Jobs, row: Row) -> None:
    insert(db, "job", row)

    assert jobs.count(row["status"]) == 1


# By column its type, what is right for some status at least, more often, and what never is.
DAY, NEVER = "2026-11-28", "infinity"
EDGES = [
    "0001-01-03 00:00+00",
    "0001-01-02 23:59:59.999999+00",
    "9999-12-29 00:00+00",
    "9999-12-29 00:00:00.000001+00",
]
COLUMNS: dict[str, tuple[str, list[str | None]]] = {
    "model": ("text", ["sentiment"]),
    "input": ("jsonb", ["{}", "{}", "{}", "{}", "[]"]),
    "priority": ("smallint", ["0", "0", "0", "-100", "100", "-101", "101"]),
    "status": ("text", [*UNFINISHED, *UNFINISHED, *FINAL, "odd"]),
    "attempt": ("smallint", ["0", "1", "1", "1", "3", "4", "-1"]),
    "max_attempts": ("smallint", ["3", "3", "3", "3", "3", "1", "100", "0", "101"]),
    "run_at": ("timestamptz", [DAY, *EDGES, NEVER, f"-{NEVER}"]),
    "claimed_by": ("text", [None, "here-1-abcd"]),
    "lease_token": ("uuid", [None, str(uuid4())]),
    "created_at": ("timestamptz", [DAY, DAY, DAY, DAY, NEVER]),
    "started_at": ("timestamptz", [None, DAY, None, DAY, NEVER, f"-{NEVER}"]),
    "finished_at": ("timestamptz", [None, None, None, None, DAY]),
    "result": ("jsonb", [None, None, None, None, None, "{}"]),
    "error": ("jsonb", [None, None, None, None, None, "{}"]),
    "errors": ("jsonb", ["[]", "[]", "[]", "[]", "[]", "{}"]),
    "idempotency_key": ("text", [None, None, None, None, "key"]),
    "input_hash": ("bytea", [None, None, None, None, "hash"]),
}
NAMES = ", ".join(COLUMNS)
SOME_JOBS = f"""
    select {
    ", ".join(
        f"(%({column})s::{kind}[])[1 + floor(random() * {len(values)})] as {column}"
        for column, (kind, values) in COLUMNS.items()
    )
}
    from generate_series(1, 40000)
"""


def test_what_is_seen_to_be_sound_at_once_breaks_no_rule(owner: Db) -> None:
    """Most rows are not asked for all rules: with those that are it comes to the same."""
    [(source, arguments)] = owner.execute(
        "select prosrc, pg_get_function_arguments(oid) from pg_proc where proname = 'is_sound_job'"
    )
    all_rules = re.search(r"rule := (.*?);\s+if rule", source, re.DOTALL)
    assert all_rules
    owner.execute(
        f"""
        create or replace function pg_temp.keeps_all_rules({arguments}) returns boolean
        language plpgsql as $$
        begin
            return ({all_rules[1]}) is null;
        end $$;

        create or replace function pg_temp.is_let_pass({arguments}) returns boolean
        language plpgsql as $$
        begin
            return is_sound_job({NAMES});
        exception when check_violation then
            return false;
        end $$
        """
    )
    rows = owner.execute(
        f"""
        with job as materialized ({SOME_JOBS})
        select pg_temp.keeps_all_rules({NAMES}), pg_temp.is_let_pass({NAMES}), count(*)
        from job
        group by 1, 2
        """,
        {column: values for column, (_, values) in COLUMNS.items()},
    ).fetchall()

    assert {(kept, let_pass) for kept, let_pass, _ in rows} == {(True, True), (False, False)}
    assert min(count for _, _, count in rows) > 20


@pytest.mark.parametrize("number", ["NaN", "Infinity", "-Infinity"])
def test_a_confidence_that_is_no_number_is_no_json(db: Db, jobs: Jobs, number: str) -> None:
    job_id = jobs.add(status="processing")
    claim = Job(job_id, str(jobs.get(job_id)["lease_token"]), "sentiment", "{}", 1)
    result = json.dumps({"sentiment": "positive", "confidence": float(number)})

    with pytest.raises(errors.InvalidTextRepresentation):
        queue.complete(db, [Outcome(claim, 0.1, result=result)])

    assert jobs.status(job_id) == "processing"


# The wake-up.


@pytest.fixture
def hear(owner_url: str) -> Iterator[Callable[[Db, str], list[str]]]:
    """Says what was heard on a channel since it was asked last."""
    with psycopg.connect(owner_url, autocommit=True) as listener:
        listener.execute("listen job_submitted")
        listener.execute("listen runner_stop_requested")

        def hear(db: Db, channel: str) -> list[str]:
            # Notifications come in the order of the commits: nothing is behind the end.
            db.execute("select pg_notify(%s, 'the end')", [channel])
            heard: list[str] = []
            while "the end" not in heard:
                notes = listener.notifies(timeout=10, stop_after=1)
                heard += [note.payload for note in notes if note.channel == channel]
            return heard[:-1]

        yield hear


Hear = Callable[[Db, str], list[str]]


def add_sleeping_runner(db: Db, jobs: Jobs) -> None:
    jobs.add_runner("here-1-abcd")
    heartbeat.set_sleeping(db, "here-1-abcd", True)


def test_an_insert_wakes_a_sleeping_runner(db: Db, jobs: Jobs, hear: Hear) -> None:
    add_sleeping_runner(db, jobs)

    db.execute(BY_HAND)

    assert hear(db, "job_submitted") == [""]


@pytest.mark.parametrize("state", ["nobody is there", "busy", "woken", "lost"])
def test_an_insert_says_nothing_if_no_runner_sleeps(
    db: Db, jobs: Jobs, hear: Hear, state: str
) -> None:
    if state != "nobody is there":
        jobs.add_runner("here-1-abcd")
    if state == "woken":
        heartbeat.set_sleeping(db, "here-1-abcd", True)
        heartbeat.set_sleeping(db, "here-1-abcd", False)
    if state == "lost":
        db.execute("update runner set lost_at = clock_timestamp()")

    db.execute(BY_HAND)

    assert hear(db, "job_submitted") == []


def test_a_statement_notifies_once_however_many_rows_it_inserts(
    db: Db, jobs: Jobs, hear: Hear
) -> None:
    add_sleeping_runner(db, jobs)
    jobs.add_runner("there-1-abcd")
    heartbeat.set_sleeping(db, "there-1-abcd", True)

    db.execute("insert into job (input) select '{}' from generate_series(1, 100)")

    assert hear(db, "job_submitted") == [""]


def test_a_transaction_notifies_once_however_many_statements_it_has(
    db: Db, jobs: Jobs, hear: Hear
) -> None:
    add_sleeping_runner(db, jobs)

    with db.transaction():
        db.execute(BY_HAND)
        db.execute(BY_HAND)

    assert hear(db, "job_submitted") == [""]


def test_an_insert_that_is_rolled_back_wakes_nobody(db: Db, jobs: Jobs, hear: Hear) -> None:
    add_sleeping_runner(db, jobs)

    with db.transaction(force_rollback=True):
        db.execute(BY_HAND)

    assert hear(db, "job_submitted") == []


def test_a_stop_request_is_heard_by_its_runner(db: Db, jobs: Jobs, hear: Hear) -> None:
    jobs.add_runner("here-1-abcd")
    jobs.add_runner("there-1-abcd")

    heartbeat.request_stop(db, ["there-1-abcd"], now=False)

    assert hear(db, "runner_stop_requested") == ["there-1-abcd"]


def test_a_stop_request_is_heard_again_when_it_becomes_urgent(
    db: Db, jobs: Jobs, hear: Hear
) -> None:
    jobs.add_runner("here-1-abcd")

    for now in (False, False, True, True):
        heartbeat.request_stop(db, ["here-1-abcd"], now=now)

    assert hear(db, "runner_stop_requested") == ["here-1-abcd", "here-1-abcd"]


def test_a_heartbeat_is_not_a_stop_request(db: Db, jobs: Jobs, hear: Hear) -> None:
    jobs.add_runner("here-1-abcd")
    pulse = heartbeat.Pulse(
        True, 0, 0, [heartbeat.ModelPulse("sentiment", "1", 2, 2, 0.0, None, None, None)]
    )

    heartbeat.beat(db, "here-1-abcd", pulse)
    heartbeat.request_stop(db, ["here-1-abcd"], now=False)
    heartbeat.beat(db, "here-1-abcd", pulse)

    assert hear(db, "runner_stop_requested") == ["here-1-abcd"]


# What people read with \d+.


def test_every_table_and_view_has_a_comment(db: Db) -> None:
    silent = db.execute("""
        select relname
        from pg_class
        where
            relnamespace = 'public'::regnamespace
            and relkind in ('r', 'v', 'm', 'p')
            and obj_description(oid, 'pg_class') is null
    """).fetchall()

    assert silent == []


@pytest.mark.parametrize(
    "table",
    ["job", "runner", "model", "cancel_request", "model_queue", "waiting_job", "running_job",
     "failure_summary", "throughput", "client_backlog"],
)  # fmt: skip
def test_every_column_has_a_comment(db: Db, table: str) -> None:
    silent = db.execute(
        """
        select attname
        from pg_attribute
        where
            attrelid = %s::regclass
            and attnum > 0
            and not attisdropped
            and col_description(attrelid, attnum) is null
        """,
        [table],
    ).fetchall()

    assert silent == []


@pytest.mark.parametrize("role", ["job_web", "job_runner", "job_janitor"])
def test_every_role_has_a_comment(db: Db, role: str) -> None:
    comment = db.execute(
        "select shobj_description(oid, 'pg_authid') from pg_roles where rolname = %s", [role]
    ).fetchone()

    assert comment
    assert comment[0].startswith("jobrunner: ")


# Indexes.

MANY = 20_000

ADD_PENDING = """
    insert into job (input, priority, run_at)
    select '{"text": "fine"}', mod(n, 3), clock_timestamp() - n * interval '1 s'
    from generate_series(1, %s) as n
"""

ADD_FINAL = """
    insert into job (input, status, attempt, claimed_by, started_at, finished_at, result, error)
    select
        '{"text": "fine"}',
        case when mod(n, 10) = 0 then 'failed' else 'completed' end,
        1,
        'here-1-abcd',
        now(),
        now() - n * interval '1 s',
        case when mod(n, 10) <> 0 then '{"sentiment": "positive", "confidence": 1}'::jsonb end,
        case when mod(n, 10) = 0 then '{"code": "x", "message": "x", "retryable": true}'::jsonb end
    from generate_series(1, %s) as n
"""


def plan_of(db: Db, statement: str, parameters: Row) -> str:
    return "\n".join(row[0] for row in db.execute(f"explain (costs off) {statement}", parameters))


@pytest.mark.parametrize(
    ("pending", "final"), [(MANY, 0), (100, MANY)], ids=["a deep queue", "a long history"]
)
def test_a_claim_reads_the_index_of_unfinished_jobs_in_its_order(
    db: Db, jobs: Jobs, pending: int, final: int
) -> None:
    jobs.add_runner("here-1-abcd")
    db.execute(ADD_PENDING, [pending])
    db.execute(ADD_FINAL, [final])
    db.execute("analyze job")
    begin = {f"from_{name}": value for name, value in queue.FRONT._asdict().items()}
    claim = {"runner": "here-1-abcd", "model": "sentiment", "slots": 2, "ahead": True}

    plan = plan_of(db, queue.CLAIM, claim | begin | {"lease_token": uuid4(), "spent": []})

    assert "using job_unfinished_idx" in plan
    assert "Seq Scan on job" not in plan
    assert "Sort" not in plan


EVERYTHING = {"status": None, "model": None, "batch_id": None, "client": None, "before": None,
              "from_id": None, "to_id": None, "created_after": None, "created_before": None,
              "limit": 50}  # fmt: skip


@pytest.mark.parametrize(
    ("wanted", "index"),
    [
        ({}, "job_pkey"),
        ({"model": "rare"}, "job_model_idx"),
        ({"status": "failed"}, "job_failed_list_idx"),
        ({"status": "pending"}, "job_unfinished_list_idx"),
        ({"client": "shop"}, "job_client_idx"),
    ],
)
def test_an_index_serves_each_list_in_its_order(
    wanted: Row, index: str, db: Db, jobs: Jobs
) -> None:
    db.execute(ADD_FINAL, [MANY])
    db.execute(ADD_PENDING, [1000])
    jobs.add(model="rare")
    db.execute("alter table job disable trigger user")
    db.execute("update job set client_id = 'shop' where id in (select id from job limit 500)")
    db.execute("alter table job enable trigger user")
    db.execute("analyze job")

    plan = plan_of(db, LIST_JOBS, EVERYTHING | wanted)

    assert f"using {index}" in plan
    assert "Sort" not in plan


def test_the_failed_jobs_of_a_client_with_many_jobs_are_found_among_many_of_others(
    db: Db, jobs: Jobs
) -> None:
    db.execute(ADD_FINAL, [MANY])
    db.execute("alter table job disable trigger user")
    db.execute("update job set client_id = case when error is null then 'shop' else 'forum' end")
    db.execute("alter table job enable trigger user")
    db.execute("analyze job")

    plan = plan_of(db, LIST_JOBS, EVERYTHING | {"client": "shop", "status": "failed"})

    assert "job_client_failed_idx" in plan


def test_the_list_of_jobs_in_work_reads_neither_those_that_wait_nor_the_history(
    db: Db, jobs: Jobs
) -> None:
    db.execute(ADD_FINAL, [MANY])
    db.execute(ADD_PENDING, [1000])
    in_work = [jobs.add(status="processing") for _ in range(3)]
    db.execute("analyze job")
    wanted = EVERYTHING | {"status": "processing"}

    [(plan,)] = db.execute(f"explain (analyze, format json) {LIST_JOBS}", wanted).fetchall()

    assert [str(row[0]) for row in db.execute(LIST_JOBS, wanted)] == in_work[::-1]
    assert rows_read(plan[0]["Plan"], "job") == len(in_work)


def rows_read(node: Row, table: str) -> int:
    """How many rows of a table the nodes of a plan have seen."""
    own = node["Actual Rows"] + node.get("Rows Removed by Filter", 0)
    own = own if node.get("Relation Name") == table else 0
    return int(own + sum(rows_read(each, table) for each in node.get("Plans", [])))


FILTERS = (
    "status", "model", "batch_id", "created_after", "created_before", "from_id", "to_id",
)  # fmt: skip


@pytest.mark.parametrize(
    ("statement", "parameters", "index"),
    [
        (
            queue.DELETE_FINISHED,
            {"older_than": timedelta(hours=4), "limit": 10},
            "job_finished_idx",
        ),
        ("select job, code from recent_failure", {}, "job_failed_idx"),
        (shown_jobs.LIST, dict.fromkeys(FILTERS) | {"limit": 50}, "job_pkey"),
    ],
    ids=["the janitor", "recent_failure", "the newest"],
)
def test_an_index_serves_its_statement(
    db: Db, jobs: Jobs, statement: str, parameters: Row, index: str
) -> None:
    db.execute(ADD_FINAL, [MANY])
    db.execute("analyze job")

    plan = plan_of(db, statement, parameters)

    assert f"using {index}" in plan
    assert "Seq Scan on job" not in plan


OUTCOMES = {
    "ids": "{}",
    "lease_tokens": "{}",
    "results": "[]",
    "errors": "[]",
    "version": "1",
    "batch_sizes": "{}",
    "seconds": "{}",
}


@pytest.mark.parametrize(
    "statement", [queue.COMPLETE, queue.FAIL, queue.RELEASE], ids=["complete", "fail", "release"]
)
@pytest.mark.parametrize("known", [True, False], ids=["known", "thought to be empty"])
def test_what_comes_of_jobs_is_written_by_their_ids_whatever_the_statistics_say(
    db: Db, owner_url: str, jobs: Jobs, statement: str, known: bool
) -> None:
    db.execute("truncate job cascade")
    db.execute("analyze job")
    db.execute(ADD_FINAL, [MANY])
    if known:
        db.execute("analyze job")

    with database.connect(owner_url, role="job_runner", session=PLANNING) as connection:
        names = {name: value for name, value in OUTCOMES.items() if f"%({name})s" in statement}
        plan = plan_of(connection, statement, names)

    assert "Index Cond: (id = ANY" in plan
    assert "Seq Scan on job" not in plan
    assert "Function Scan" not in plan


def test_a_claim_touches_no_index(db: Db, jobs: Jobs, owner_url: str) -> None:
    """It is a heap-only update: the job stays where it stood in the index."""
    db.execute("truncate job cascade")
    jobs.add_runner("here-1-abcd")
    jobs.add()
    query = """
        select pg_stat_get_xact_tuples_updated('job'::regclass),
            pg_stat_get_xact_tuples_hot_updated('job'::regclass)
    """

    with psycopg.connect(owner_url, autocommit=True) as own, own.transaction():
        before = own.execute(query).fetchone()
        claimed = queue.claim(own, runner="here-1-abcd", model="sentiment", slots=1)
        after = own.execute(query).fetchone()

    assert before
    assert after
    assert len(claimed) == 1
    assert (after[0] - before[0], after[1] - before[1]) == (1, 1)
