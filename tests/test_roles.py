"""Who may do what: the web inserts and reads, a runner moves jobs, the janitor deletes."""

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any

import psycopg
import pytest
from psycopg import errors

from helpers import CARD, LOGINS, POSITIVE, Jobs, empty, login_url
from jobrunner import database, heartbeat, janitor, queue, registry
from jobrunner.activity import Activity
from jobrunner.outcome import Failure, Outcome

Db = psycopg.Connection[Any]
As = Callable[[str], Db]

RUNNER = "here-1-abcd"
ROLES = ["job_web", "job_runner", "job_janitor"]
VIEWS = [
    "queue_health", "runner_overview", "recent_failure", "table_health", "horizon_holder",
    "model_crew", "serving_version", "waiting_job", "running_job", "failure_summary",
    "throughput", "client_backlog", "model_queue", "claimed_job", "missing_runner",
    "sleeping_runner",
]  # fmt: skip


@pytest.fixture
def db(owner: Db) -> Db:
    """The owner's connection to empty tables: one for all, since there are so many tests."""
    empty(owner)
    return owner


@pytest.fixture(scope="module")
def logins(owner_url: str) -> Iterator[dict[str, Db]]:
    """A connection for each login of a deployment."""
    with ExitStack() as stack:
        yield {
            login: stack.enter_context(
                psycopg.connect(login_url(owner_url, login), autocommit=True)
            )
            for login in LOGINS
        }


@pytest.fixture
def act_as(logins: dict[str, Db], db: Db) -> As:
    return logins.__getitem__


@pytest.fixture
def web(act_as: As) -> Db:
    return act_as("web_login")


@pytest.fixture
def runner(act_as: As, jobs: Jobs) -> Db:
    jobs.add_runner(RUNNER)
    return act_as("runner_login")


@pytest.fixture
def cleaner(act_as: As) -> Db:
    return act_as("janitor_login")


def everything(db: Db) -> list[Any]:
    tables = (
        "job", "job_claim", "job_progress", "cancel_request", "runner", "runner_model", "roll_call",
        "model", "model_version", "activity", "migration",
    )  # fmt: skip
    return [db.execute(f"select t from {table} as t order by 1").fetchall() for table in tables]


# Who they are.


@pytest.mark.parametrize("role", ROLES)
def test_a_role_can_not_log_in_and_is_nothing_special(db: Db, role: str) -> None:
    query = """
        select rolcanlogin, rolsuper, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls
        from pg_roles
        where rolname = %s
    """

    assert db.execute(query, [role]).fetchone() == (False,) * 6


def test_no_role_is_a_member_of_another(db: Db) -> None:
    query = "select rolname from pg_auth_members join pg_roles on member = pg_roles.oid"

    members = {row[0] for row in db.execute(query)}

    assert members.isdisjoint(ROLES)


@pytest.mark.parametrize("login", LOGINS)
def test_a_login_acts_as_its_role_from_the_start(act_as: As, login: str) -> None:
    acts_as = act_as(login).execute("select session_user, current_user").fetchone()

    assert acts_as == (login, LOGINS[login][0])


@pytest.mark.parametrize(
    ("login", "role"),
    [
        ("web_login", "job_runner"),
        ("web_login", "job_janitor"),
        ("web_login", "postgres"),
        ("runner_login", "job_web"),
        ("runner_login", "postgres"),
        ("janitor_login", "job_web"),
        ("janitor_login", "job_runner"),
    ],
)
def test_a_login_can_not_take_another_role(act_as: As, login: str, role: str) -> None:
    connection = act_as(login)

    with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
        connection.execute(f"set role {role}")


@pytest.mark.parametrize("role", ROLES)
def test_somebody_mightier_is_held_to_the_role_as_well(
    owner_url: str, jobs: Jobs, role: str
) -> None:
    jobs.add()

    with (
        database.connect(owner_url, role=role) as connection,
        pytest.raises(errors.InsufficientPrivilege),
    ):
        connection.execute("update job set priority = 1")


# The whole matrix.

SUBMITTED = {
    "model", "input", "priority", "max_attempts",
    "idempotency_key", "input_hash", "batch_id", "batch_position", "retry_of", "client_id",
    "traceparent",
}  # fmt: skip

MOVED = {
    "status", "attempt", "run_at", "claimed_by", "lease_token",
    "started_at", "finished_at", "result", "error", "errors",
    "model_version", "batch_size", "inference_seconds",
}  # fmt: skip

READ = {"SELECT"}
WRITE = {"SELECT", "INSERT", "UPDATE", "DELETE"}
READABLE = [
    "job", "job_claim", "job_progress", "cancel_request", "runner", "runner_model", "roll_call",
    "model", "model_version", "activity", "migration", *VIEWS,
]  # fmt: skip

MAY: dict[str, dict[str, set[str]]] = {
    "job_web": dict.fromkeys([*READABLE, "secret", "api_key"], READ),
    "job_runner": dict.fromkeys(READABLE, READ)
    | {"runner": WRITE, "runner_model": WRITE, "activity": WRITE}
    | {"job_claim": WRITE, "job_progress": WRITE, "roll_call": WRITE - {"UPDATE"}}
    | {"model": READ | {"INSERT"}, "model_version": READ | {"INSERT"}},
    "job_janitor": dict.fromkeys(READABLE, READ) | {"job": READ | {"DELETE"}},
    "public": {},
}

MAY_ON_COLUMNS: dict[str, dict[tuple[str, str], set[str]]] = {
    "job_web": {("job", "INSERT"): SUBMITTED, ("cancel_request", "INSERT"): {"job_id"}},
    "job_runner": {
        ("job", "UPDATE"): MOVED,
        ("cancel_request", "INSERT"): {"job_id"},
        ("roll_call", "UPDATE"): {"may_claim"},
    },
    "job_janitor": {},
    "public": {},
}


@pytest.mark.parametrize("role", MAY)
def test_a_role_has_exactly_these_rights_on_each_relation(db: Db, role: str) -> None:
    rows = db.execute(
        """
        select relname, privilege
        from pg_class
        cross join unnest(array[
            'SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE', 'REFERENCES', 'TRIGGER'
        ]) as privilege
        where
            relnamespace = 'public'::regnamespace
            and relkind in ('r', 'p', 'v', 'm', 'f')
            and has_table_privilege(%s, pg_class.oid, privilege)
        """,
        [role],
    )

    rights: dict[str, set[str]] = {}
    for relation, privilege in rows:
        rights.setdefault(relation, set()).add(privilege)
    assert rights == MAY[role]


@pytest.mark.parametrize("role", MAY_ON_COLUMNS)
def test_a_role_has_exactly_these_rights_on_single_columns(db: Db, role: str) -> None:
    rows = db.execute(
        """
        select relname, privilege, attname
        from pg_class
        join pg_attribute on attrelid = pg_class.oid
        cross join unnest(array['SELECT', 'INSERT', 'UPDATE', 'REFERENCES']) as privilege
        where
            relnamespace = 'public'::regnamespace
            and relkind in ('r', 'p', 'v', 'm', 'f')
            and attnum > 0
            and not attisdropped
            and has_column_privilege(%(role)s, attrelid, attnum, privilege)
            and not has_table_privilege(%(role)s, attrelid, privilege)
        """,
        {"role": role},
    )

    rights: dict[tuple[str, str], set[str]] = {}
    for relation, privilege, column in rows:
        rights.setdefault((relation, privilege), set()).add(column)
    assert rights == MAY_ON_COLUMNS[role]


# What they do with it.


@pytest.mark.parametrize("login", LOGINS)
@pytest.mark.parametrize("relation", READABLE)
def test_everybody_reads_everything(act_as: As, jobs: Jobs, login: str, relation: str) -> None:
    job_id = jobs.add(status="failed")
    jobs.add(status="processing")
    jobs.db.execute("insert into job (input, client_id) values ('{}', 'shop')")
    jobs.add_runner(RUNNER)
    jobs.db.execute("insert into cancel_request (job_id) values (%s)", [job_id])
    jobs.db.execute("insert into job_progress values (%s, 1, 0.5, 'half')", [job_id])
    done = Activity()
    done.begin(jobs.db)
    done.add_rescued("sentiment", "pending")
    done.record(jobs.db)
    heartbeat.register(jobs.db, "there-1-abcd", models={"sentiment": 1}, lease_seconds=30)
    heartbeat.set_sleeping(jobs.db, "there-1-abcd", True)
    registry.register_model(jobs.db, "sentiment", CARD)
    jobs.db.execute("delete from roll_call where runner = 'there-1-abcd'")

    found = act_as(login).execute(f"select * from {relation}").rowcount

    assert found >= (relation != "horizon_holder")  # which may well be empty


def test_the_web_inserts_what_a_client_may_set(web: Db, jobs: Jobs) -> None:
    inserted = web.execute("""
        insert into job (
            model, input, priority, max_attempts,
            idempotency_key, input_hash, batch_id, retry_of, client_id, traceparent
        )
        values ('sentiment', '{}', 7, 5, 'key', 'hash', uuidv7(), uuidv7(), 'client', null)
        returning id
    """).fetchone()

    assert inserted
    row = jobs.get(inserted[0])
    assert (row["status"], row["priority"], row["max_attempts"]) == ("pending", 7, 5)


def test_the_web_wakes_a_sleeping_runner(web: Db, db: Db, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)
    heartbeat.set_sleeping(db, RUNNER, True)
    db.execute("listen job_submitted")

    web.execute("insert into job (input) values ('{}')")

    heard = [note.channel for note in db.notifies(timeout=10, stop_after=1)]
    db.execute("unlisten *")
    assert heard == ["job_submitted"]


def test_a_runner_leads_a_whole_life(runner: Db, jobs: Jobs) -> None:
    for _ in range(3):
        jobs.add()
    lost = jobs.add(status="processing", claimed_by="gone-1-abcd")

    heartbeat.register(runner, "there-1-abcd", models={"another": 1}, lease_seconds=30)
    registry.register_model(runner, "another", CARD)
    model = heartbeat.ModelPulse("sentiment", "1", 2, 2, 0.0, None, None, None)
    heartbeat.beat(runner, RUNNER, heartbeat.Pulse(True, 0, 0, [model]))
    heartbeat.tell_models(runner, RUNNER, [model])
    first, second, third = queue.claim(runner, runner=RUNNER, model="sentiment", slots=3)
    queue.complete(runner, [Outcome(first, 0.1, result=json.dumps(POSITIVE))])
    queue.fail(runner, [Outcome(second, 0.1, failure=Failure("x", "x", retryable=False))])
    queue.release(runner, [third])
    queue.rescue(runner)
    heartbeat.sign_off(runner, RUNNER)

    statuses = [jobs.status(job_id) for job_id in (first.id, second.id, third.id, lost)]
    assert statuses == ["completed", "failed", "pending", "pending"]
    rows = jobs.db.execute("select id from runner union all select name from model")
    assert {row[0] for row in rows} == {"there-1-abcd", "sentiment", "another"}


def test_the_janitor_deletes_final_jobs(cleaner: Db, jobs: Jobs) -> None:
    for status in ("completed", "failed"):
        jobs.add(status=status, finished="2 h")

    deleted = queue.delete_finished(cleaner, older_than=timedelta(hours=1), limit=10)

    assert deleted == 2
    assert jobs.count() == 0


def test_a_runner_cleans_up_as_the_janitor(runner: Db, jobs: Jobs) -> None:
    jobs.add(status="completed", finished="2 h")

    deleted = janitor.clean(runner, timedelta(hours=1))

    assert deleted == 1
    assert runner.execute("select current_user").fetchone() == ("job_runner",)


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_the_janitor_can_not_delete_an_unfinished_job(cleaner: Db, jobs: Jobs, status: str) -> None:
    job_id = jobs.add(status=status)

    with pytest.raises(errors.RestrictViolation, match=str(job_id)):
        cleaner.execute("delete from job")

    assert jobs.status(job_id) == status


# What is refused.

FIXED = ["id", "model", "input", "priority", "created_at", "max_attempts"]
KEYS = [
    "idempotency_key", "input_hash", "batch_id", "batch_position", "retry_of", "client_id",
    "traceparent",
]  # fmt: skip

VALUES = {
    "id": "gen_random_uuid()",
    "status": "'pending'",
    "attempt": "0",
    "run_at": "now()",
    "claimed_by": "null",
    "lease_token": "null",
    "created_at": "now()",
    "started_at": "null",
    "finished_at": "null",
    "result": "null",
    "error": "null",
    "errors": "'[]'",
    "model_version": "'2'",
    "batch_size": "2",
    "inference_seconds": "0.5",
}

LOCKING = [
    "select id from job for update",
    "select id from job for no key update",
    "select id from job for share",
    "select id from job for key share",
]

# Who may delete rows may lock the table as well: the janitor may.
LOCK_ALL = "lock table job in access exclusive mode"

# Nobody but the owner changes what the tables are.
DEFINING = [
    "truncate job cascade",
    "truncate cancel_request",
    "truncate runner",
    "truncate model",
    "alter table job disable trigger job_makes_legal_moves_only",
    "alter table job add column more text",
    "drop table job",
    "drop view queue_health",
    "drop function judge_job_move() cascade",
    "create index on job (client_id)",
    "create table another (id integer)",
    "create function another() returns integer language sql return 1",
    "set session_replication_role = replica",
    "insert into migration (version, name, sha256) values (9999, 'x', 'x')",
    "update migration set sha256 = 'x'",
    "delete from migration",
    "insert into cancel_request select id, now() from job",
    "update cancel_request set requested_at = now()",
    "delete from cancel_request",
    "update model set registered_at = now()",
    "delete from model",
]

A_RUNNER = """
    insert into runner (id, host, pid, version, models, workers, lease)
    values ('x', 'x', 1, '0', '{}', 1, '30 s')
"""

WEB_REFUSED = [
    *(f"insert into job (input, {name}) values ('{{}}', {VALUES[name]})" for name in VALUES),
    *(f"update job set {column} = {column}" for column in sorted(SUBMITTED | MOVED | {"id"})),
    "insert into job (input) values ('{}') on conflict (id) do update set priority = 1",
    """
    merge into job
    using (select id from job) as same
    on job.id = same.id
    when matched then delete
    """,
    "delete from job",
    "delete from job where finished_at is not null",
    *LOCKING,
    LOCK_ALL,
    *DEFINING,
    A_RUNNER,
    "update runner set stop_requested_at = now()",
    "delete from runner",
    "insert into model (name) values ('another')",
]

RUNNER_REFUSED = [
    "insert into job (input) values ('{}')",
    *(f"update job set {column} = {column}" for column in (*FIXED, *KEYS)),
    "update job set status = 'failed', priority = 1",
    "delete from job",
    "delete from job where finished_at is not null",
    LOCK_ALL,
    *DEFINING,
]

JANITOR_REFUSED = [
    "insert into job (input) values ('{}')",
    *(f"update job set {column} = {column}" for column in sorted(SUBMITTED | MOVED | {"id"})),
    *LOCKING,
    *DEFINING,
    A_RUNNER,
    "update runner set lost_at = now()",
    "insert into model (name) values ('another')",
]


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        pytest.param(login, statement, id=f"{login.partition('_')[0]}: {statement}")
        for login, refused in [
            ("web_login", WEB_REFUSED),
            ("runner_login", RUNNER_REFUSED),
            ("janitor_login", JANITOR_REFUSED),
        ]
        for statement in (" ".join(text.split()) for text in refused)
    ],
)
def test_the_database_refuses(act_as: As, jobs: Jobs, login: str, statement: str) -> None:
    jobs.add()
    jobs.add(status="completed")
    jobs.add_runner(RUNNER)
    connection = act_as(login)
    before = everything(jobs.db)

    with pytest.raises(errors.InsufficientPrivilege), connection.transaction():
        connection.execute(statement)

    assert everything(jobs.db) == before


def test_every_column_is_either_for_the_web_or_refused_to_it(db: Db) -> None:
    query = "select attname from pg_attribute where attrelid = 'job'::regclass and attnum > 0"

    columns = {row[0] for row in db.execute(query)}

    assert columns == SUBMITTED | VALUES.keys()
    assert columns == MOVED | {*FIXED, *KEYS}


# A type that hides the one of that name from its session, and is null whatever is put into it.
FALSE_TEXT = """
    create type pg_temp.text as enum ('x');
    create function pg_temp.nothing(pg_catalog.text) returns pg_temp.text
    language sql as 'select null::pg_temp.text';
    create cast (pg_catalog.text as pg_temp.text)
    with function pg_temp.nothing(pg_catalog.text) as assignment
"""


@pytest.mark.parametrize(
    ("login", "statement"),
    [
        ("web_login", "insert into job (input, priority) values ('[]', 1000)"),
        (
            "runner_login",
            """
            update job
            set
                status = 'processing',
                attempt = 1,
                lease_token = gen_random_uuid(),
                started_at = now()
            """,
        ),
    ],
)
def test_no_type_of_a_login_s_own_switches_the_rules_off(
    db: Db, jobs: Jobs, owner_url: str, login: str, statement: str
) -> None:
    jobs.add()

    with psycopg.connect(login_url(owner_url, login), autocommit=True) as connection:
        connection.execute(FALSE_TEXT)
        with pytest.raises(errors.CheckViolation):
            connection.execute(statement)
