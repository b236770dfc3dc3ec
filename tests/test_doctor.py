"""`jobrunner doctor` finds what is wrong, says how to mend it, and nothing where all is well."""

import json
import re
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from helpers import Jobs, leave_dead_rows, login_url
from jobrunner import doctor as checks
from jobrunner import embedded
from jobrunner.cli import main
from jobrunner.doctor import finding, listening, storage
from jobrunner.doctor import server as server_checks

Db = psycopg.Connection[Any]
Doctor = Callable[..., Result]

RUNNER = "here-1-abcd"
AGE_TRANSACTIONS = """
    create or replace view horizon_holder as
    select
        'transaction' as kind,
        '4711' collate "C" as holder,
        interval '2 hours' as held_for,
        'select * from  job' as query
"""


@pytest.fixture
def doctor(owner_url: str, tmp_path: Path) -> Doctor:
    def doctor(*arguments: str, **changes: str) -> Result:
        env = {"DATABASE_URL": owner_url, "JOBRUNNER_HOME": str(tmp_path)} | changes
        return CliRunner().invoke(main, ["doctor", *arguments], env=env, prog_name="jobrunner")

    return doctor


@pytest.fixture(autouse=True)
def quick_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of the tests does without fsync, which is no finding here."""
    monkeypatch.setattr(server_checks, "DURABLE", ("full_page_writes",))


@pytest.fixture
def healthy(jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)


@pytest.fixture
def pinned(db: Db) -> Iterator[None]:
    """A transaction that has been open for two hours: the view is made to say so."""
    row = db.execute("select pg_get_viewdef('horizon_holder'::regclass)").fetchone()
    assert row
    db.execute(AGE_TRANSACTIONS)
    yield
    db.execute("create or replace view horizon_holder as " + row[0])


@pytest.fixture
def set_database(db: Db) -> Iterator[Callable[[str, str], None]]:
    """Sets what a new connection finds set."""
    names: list[str] = []

    def set_database(name: str, value: str) -> None:
        db.execute(f"alter database jobrunner set {name} = '{value}'")
        names.append(name)

    yield set_database
    for name in names:
        db.execute(f"alter database jobrunner reset {name}")


@pytest.fixture
def other_url(owner_url: str, db: Db) -> Iterator[Callable[[str], str]]:
    """Another database on the same server, made with some options."""

    def other_url(options: str = "") -> str:
        db.execute(f"create database other {options}")
        return owner_url.replace("/jobrunner", "/other")

    yield other_url
    db.execute("drop database if exists other with (force)")


def found(result: Result, level: str) -> list[tuple[str, str]]:
    """What was found of that level, each with its advice."""
    lines = [*result.stdout.splitlines(), ""]
    return [
        (line[9:], then.removeprefix("         → ") if "→" in then else "")
        for line, then in pairwise(lines)
        if line.split(" ")[0] == level
    ]


def problems(result: Result) -> list[tuple[str, str]]:
    assert result.exit_code == 1
    return found(result, "problem")


def warnings(result: Result) -> list[tuple[str, str]]:
    """Without any problem there are only warnings, which are no failure."""
    assert (result.exit_code, found(result, "problem")) == (0, [])
    return found(result, "warning")


@pytest.mark.usefixtures("healthy")
def test_where_all_is_well_it_says_so(doctor: Doctor) -> None:
    result = doctor()

    assert (result.exit_code, warnings(result)) == (0, []), result.stdout
    assert f"ok       runner {RUNNER} is idle, 2 of 2 workers ready" in result.stdout
    assert result.stdout.endswith("\nAll is well.\n")


@pytest.mark.usefixtures("healthy")
def test_it_says_the_same_as_json(doctor: Doctor) -> None:
    result = doctor("--json")

    said = json.loads(result.stdout)
    queue = {"level": "ok", "what": "model sentiment: 0 pending, 0 in work", "advice": None}
    assert queue in said
    levels = [finding["level"] for finding in said]
    # The disk of a server that is not embedded.
    assert set(levels) == {"ok", "unseen"}
    assert levels.count("unseen") == 1
    assert len(levels) == len(WELL) + 1


WELL = [
    "the runner's settings are valid",
    r"PostgreSQL \d+",
    "full_page_writes: on",
    "autovacuum is on",
    "the database takes writes: it is no standby, and not read-only",
    "encoding UTF8: it holds every text",
    r"\d+ of \d+ connections are used",
    "the clock of this machine agrees with the database's",
    "no pooler stands between",
    "notifications arrive at DATABASE_URL",
    "roles job_web, job_runner, job_janitor are there, and let this login look",
    r"all \d+ migrations are applied",
    "logins of job_web: .*; this one is postgres",
    f"runner {RUNNER} is idle, 2 of 2 workers ready",
    "model sentiment: 0 pending, 0 in work",
    "no job is in work far beyond the timeout of its model",
    "few dead rows in job",
    "this login sees the transactions of all others",
    r"the database takes .*, of which .* are jobs",
    "no replication slot keeps write-ahead log",
]


@pytest.mark.usefixtures("healthy")
def test_all_that_it_looks_at_has_a_line_where_it_is_well(doctor: Doctor) -> None:
    said = [what for what, _ in found(doctor(), "ok")]

    assert len(said) == len(WELL), said
    for what, expected in zip(said, WELL, strict=True):
        assert re.fullmatch(expected, what)


@pytest.mark.usefixtures("healthy")
def test_every_check_says_something(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is done alone, so that a line of another one is not taken for its own."""
    for check in checks.CHECKS:
        monkeypatch.setattr(checks, "CHECKS", (check,))
        lines = doctor().stdout.splitlines()
        # The settings, it, an empty line and the sum.
        assert len(lines) > 3, check.__name__


def test_problems_and_warnings_are_counted_in_the_end(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)
    jobs.db.execute("update runner set lost_at = now(), heartbeat_at = now() - interval '1 h'")

    assert doctor().stdout.endswith("\n1 problem, 1 warning.\n")


@pytest.mark.usefixtures("healthy")
def test_tables_that_are_newer_than_the_program_are_a_warning(doctor: Doctor, db: Db) -> None:
    db.execute("insert into migration values (9999, 'add_future', repeat('0', 64))")
    try:
        [(what, advice)] = warnings(doctor())
    finally:
        db.execute("delete from migration where version = 9999")

    assert what == "the tables are newer than this program, by 1 migration"
    assert advice.startswith("it works on them")


# Settings and the way to the database.


def test_a_bad_setting_is_found(doctor: Doctor) -> None:
    [(what, advice)] = problems(doctor(JOBRUNNER_LEASE_SECONDS="soon"))

    assert what.startswith("JOBRUNNER_LEASE_SECONDS: should be ")
    assert "the README" in advice


def test_a_database_that_is_away_is_one_finding(doctor: Doctor) -> None:
    [(what, advice)] = problems(doctor(DATABASE_URL="postgresql://127.0.0.1:1/x"))

    assert what.startswith("the database does not answer")
    assert "see to it first" in advice


def test_without_a_database_it_says_how_to_get_one(doctor: Doctor) -> None:
    [(what, _)] = problems(doctor(DATABASE_URL=""))

    assert "jobrunner up" in what


@pytest.mark.usefixtures("healthy")
def test_a_listener_that_can_not_connect_is_found(doctor: Doctor) -> None:
    [(what, advice)] = warnings(doctor(JOBRUNNER_LISTEN_URL="postgresql://127.0.0.1:1/x"))

    assert what.startswith("JOBRUNNER_LISTEN_URL: ")
    assert advice.startswith("runners poll")


@pytest.mark.usefixtures("healthy")
def test_a_listener_that_hears_nothing_is_found(
    doctor: Doctor, other_url: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(listening, "ARRIVAL_SECONDS", 0.3)

    [(what, _)] = warnings(doctor(JOBRUNNER_LISTEN_URL=other_url("")))

    assert what == "a notification did not arrive at JOBRUNNER_LISTEN_URL in 0.3 s"


@pytest.mark.usefixtures("healthy")
def test_a_listener_that_hears_is_said_to(doctor: Doctor, owner_url: str) -> None:
    result = doctor(JOBRUNNER_LISTEN_URL=owner_url)

    assert ("notifications arrive at JOBRUNNER_LISTEN_URL", "") in found(result, "ok")


# The server.


@pytest.mark.usefixtures("healthy")
def test_a_server_that_is_too_old_is_found(doctor: Doctor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server_checks, "OLDEST_SUPPORTED", 99)

    [(what, advice)] = problems(doctor())

    assert re.fullmatch(r"PostgreSQL \d+", what)
    assert advice == "too old: upgrade to 99 or newer"


@pytest.mark.usefixtures("healthy")
def test_a_server_that_was_never_tried_is_a_warning(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server_checks, "NEWEST_TRIED", 14)
    monkeypatch.setattr(server_checks, "OLDEST_SUPPORTED", 14)

    [(_, advice)] = warnings(doctor())

    assert "14 is the newest that was" in advice


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("setting", ["fsync", "synchronous_commit"])
def test_a_server_that_may_lose_what_it_has_committed_is_found(
    setting: str,
    doctor: Doctor,
    set_database: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_checks, "DURABLE", (setting,))
    if setting != "fsync":
        set_database(setting, "off")

    assert problems(doctor()) == [
        (f"{setting} is off", f"accepted jobs can be lost in a crash: set {setting} on")
    ]


@pytest.mark.usefixtures("healthy")
def test_a_server_that_does_not_clear_up_is_found(
    doctor: Doctor, set_database: Callable[[str, str], None]
) -> None:
    set_database("track_counts", "off")

    [(what, advice)] = warnings(doctor())

    assert what == "track_counts is off"
    assert "dead rows" in advice


@pytest.mark.usefixtures("healthy")
def test_a_database_that_takes_no_jobs_is_found(
    doctor: Doctor, set_database: Callable[[str, str], None]
) -> None:
    set_database("default_transaction_read_only", "on")

    assert ("default_transaction_read_only is on", "nothing can be written: set it off") in (
        problems(doctor())
    )


def test_a_server_that_only_follows_is_looked_at_as_far_as_it_can_be(
    own_server: embedded.Server, tmp_path: Path
) -> None:
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        Jobs(admin).add_runner(RUNNER)
    own_server.stop()
    (own_server.data / "standby.signal").touch()
    url = own_server.start()

    env = {"DATABASE_URL": url, "JOBRUNNER_HOME": str(tmp_path)}
    result = CliRunner().invoke(main, ["doctor"], env=env, prog_name="jobrunner")

    assert [what for what, _ in problems(result)] == ["this server is a standby"]
    assert f"runner {RUNNER} is idle, 2 of 2 workers ready" in result.output


@pytest.mark.usefixtures("healthy")
def test_what_a_standby_does_not_say_is_unseen(
    doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "READ_STANDBY", "select true")

    result = doctor()

    assert [what for what, _ in problems(result)] == ["this server is a standby"]
    assert [each for each in found(result, "unseen") if "primary" in each[1]] == [
        ("whether notifications arrive", "a standby sends none: ask the primary"),
        ("what replication slots keep", "a standby does not say: ask the primary"),
    ]


@pytest.mark.parametrize("encoding", ["SQL_ASCII", "LATIN1"])
def test_a_database_that_can_not_hold_every_text_is_found(
    encoding: str, doctor: Doctor, other_url: Callable[[str], str]
) -> None:
    options = f"encoding '{encoding}' template template0 lc_collate 'C' lc_ctype 'C'"
    if encoding == "LATIN1":
        options = options.replace("template0", "template0 locale_provider libc")

    result = doctor(DATABASE_URL=other_url(options))

    [(what, advice)] = found(result, "warning")
    assert what.startswith(f"encoding {encoding}: it can not hold every text")
    assert "encoding 'UTF8'" in advice


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("limit", "look"), [("MANY", warnings), ("ALMOST_ALL", problems)])
def test_connections_that_run_out_are_found(
    limit: str,
    look: Callable[[Result], list[tuple[str, str]]],
    doctor: Doctor,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(server_checks, limit, 0.0)

    [(what, advice)] = look(doctor())

    assert re.fullmatch(r"\d+ of \d+ connections are used", what)
    assert "max_connections" in advice


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(("seconds", "word"), [(60, "ahead"), (-60, "behind")])
def test_a_clock_that_is_wrong_is_found(
    seconds: int, word: str, doctor: Doctor, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Both clocks stand still, however long it takes to read them.
    monkeypatch.setattr(server_checks, "READ_CLOCK", "select 1000000.0::float8")
    monkeypatch.setattr(server_checks, "time", SimpleNamespace(time=lambda: 1_000_000.0 + seconds))

    [(what, advice)] = warnings(doctor())

    assert re.match(rf"the clock of this machine is 60 s {word}: ", what)
    assert "NTP" in advice


# Roles, tables, rights.


def test_a_login_without_any_role_is_told_so(doctor: Doctor, db: Db, owner_url: str) -> None:
    db.execute("create role stranger login password 'stranger'")
    try:
        url = login_url(owner_url, "stranger")
        assert [what for what, _ in problems(doctor(DATABASE_URL=url))] == [
            "this login may act as none of the roles"
        ]
    finally:
        db.execute("drop role stranger")


@pytest.mark.usefixtures("healthy")
def test_it_says_who_logs_in(doctor: Doctor) -> None:
    [said] = [what for what, _ in found(doctor(), "ok") if what.startswith("logins of ")]

    assert "job_web: web_login; job_runner: runner_login; job_janitor: janitor_login" in said


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize("login", ["web_login", "runner_login"])
def test_a_login_of_a_service_sees_almost_all_and_is_told_what_it_does_not(
    login: str, doctor: Doctor, owner_url: str
) -> None:
    result = doctor(DATABASE_URL=login_url(owner_url, login))

    assert warnings(result) == []
    [_, (what, advice)] = found(result, "unseen")
    assert what == "transactions of other logins, which may keep dead rows"
    assert advice == f"to look at them too: grant pg_read_all_stats to {login}"


@pytest.mark.usefixtures("healthy")
def test_what_a_login_may_not_look_at_keeps_it_from_nothing_else(
    doctor: Doctor, db: Db, web_url: str
) -> None:
    db.execute("revoke select on runner_overview from job_web")
    try:
        result = doctor(DATABASE_URL=web_url)
    finally:
        db.execute("grant select on runner_overview to job_web")

    assert warnings(result) == []
    [_, (what, advice), _] = found(result, "unseen")
    assert what == "this login may not: look who is at work"
    assert advice.startswith("permission denied for view runner_overview")
    assert "model sentiment: 0 pending, 0 in work" in result.stdout


@pytest.mark.usefixtures("healthy")
def test_a_login_that_does_not_inherit_its_role_sees_as_much(
    doctor: Doctor, db: Db, owner_url: str
) -> None:
    db.execute("create role app login noinherit password 'app'")
    db.execute("grant job_runner to app")
    try:
        assert warnings(doctor(DATABASE_URL=login_url(owner_url, "app"))) == []
    finally:
        db.execute("drop role app")


def test_tables_that_are_too_old_are_found(doctor: Doctor, other_url: Callable[[str], str]) -> None:
    result = doctor(DATABASE_URL=other_url(""))

    assert [advice for _, advice in problems(result)] == ["run `jobrunner migrate`"]


# Runners.


@pytest.mark.usefixtures("jobs")
def test_no_runner_is_missed(doctor: Doctor) -> None:
    assert ("no runner", "start one with `jobrunner start`") in problems(doctor())


def test_a_runner_that_others_wait_for_after_a_crash_is_found(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)
    jobs.db.execute("truncate roll_call")

    [(what, advice)] = problems(doctor())

    assert what == (
        f"runner {RUNNER} has not said what it holds since the server crashed: nobody claims jobs"
    )
    assert advice.endswith("else look at process 1 on here")


def test_a_silent_runner_is_found_with_the_place_to_look(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add_runner(RUNNER, heartbeat_ago="5 min")

    [(what, advice)] = problems(doctor())

    assert what == f"runner {RUNNER} is silent, last heard of 5 min ago"
    assert advice == "look at process 1 on here and its log"


@pytest.mark.usefixtures("healthy")
def test_a_runner_that_was_lost_is_a_warning_while_another_works(
    doctor: Doctor, jobs: Jobs
) -> None:
    jobs.add_runner("gone", heartbeat_ago="3 h")
    jobs.db.execute("update runner set lost_at = now() where id = 'gone'")

    assert [what for what, _ in warnings(doctor())] == [
        "runner gone is lost, last heard of 3 h ago"
    ]


@pytest.mark.usefixtures("healthy")
def test_what_a_runner_says_of_itself_is_found(doctor: Doctor, db: Db) -> None:
    db.execute("update runner set trouble = 'is not told of anything, polls'")

    [(what, _)] = warnings(doctor())

    assert what == f"runner {RUNNER}: is not told of anything, polls"


@pytest.mark.usefixtures("healthy")
def test_what_a_runner_says_steers_no_terminal(doctor: Doctor, db: Db) -> None:
    db.execute("update runner set trouble = %s", ["\x1b[2J\u202e"])

    for result in (doctor(), doctor("--json")):
        assert "\x1b" not in result.stdout
        assert "\u202e" not in result.stdout


# Jobs.


def test_jobs_of_a_model_that_nobody_serves_are_found(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add()

    [(what, advice)] = [each for each in problems(doctor()) if "model" in each[0]]

    assert what == "1 job waits for model sentiment, which no runner serves"
    assert advice == "start a runner with `jobrunner start --model sentiment=module:Class`"


@pytest.mark.usefixtures("healthy")
def test_jobs_of_a_model_that_was_never_registered_are_found(doctor: Doctor, db: Db) -> None:
    for _ in range(2):
        db.execute("insert into job (model, input) values ('sentimnet', '{}')")

    assert [what for what, _ in problems(doctor())] == [
        "2 jobs wait for model sentimnet, which no runner serves"
    ]


@pytest.mark.usefixtures("healthy")
def test_a_model_that_nobody_serves_is_found_before_anybody_asks_for_it(
    doctor: Doctor, db: Db
) -> None:
    db.execute("insert into model (name) values ('forgotten')")

    assert [what for what, _ in warnings(doctor())] == [
        "no runner serves model forgotten; the web takes jobs for it"
    ]


@pytest.mark.usefixtures("jobs")
def test_that_there_is_no_model_is_said(doctor: Doctor, db: Db) -> None:
    kept = db.execute("select name, registered_at from model").fetchall()
    db.execute("delete from model")
    try:
        result = doctor()
    finally:
        with db.cursor() as cursor:
            cursor.executemany("insert into model (name, registered_at) values (%s, %s)", kept)

    assert ("no model was ever registered, and no job waits", "") in found(result, "ok")


@pytest.mark.usefixtures("healthy")
def test_an_old_job_that_waits_for_its_time_is_not_late(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add(created="3 h", due_in="50 s")
    jobs.add()

    assert warnings(doctor()) == []


@pytest.mark.usefixtures("healthy")
def test_jobs_that_wait_for_long_are_found(doctor: Doctor, jobs: Jobs) -> None:
    jobs.add(created="3 h", due_in="-3 h")

    [(what, advice)] = warnings(doctor())

    assert what == "1 job waits for model sentiment, the oldest for 3 h"
    assert "more workers" in advice


@pytest.mark.usefixtures("healthy")
def test_jobs_that_are_in_work_far_beyond_their_timeout_are_found(
    doctor: Doctor, jobs: Jobs, db: Db
) -> None:
    jobs.add(status="processing", claimed_by=RUNNER, created="3 h", finished="3 h")
    jobs.add(status="processing", claimed_by=RUNNER, created="90 s", finished="90 s")

    [(what, advice)] = problems(doctor())

    assert what == "in work far beyond the timeout of model sentiment: 1, for up to 3 h"
    assert f"`jobrunner stop {RUNNER} --now`" in advice


@pytest.mark.usefixtures("healthy")
def test_a_job_within_the_timeout_of_its_model_is_left_alone(
    doctor: Doctor, jobs: Jobs, db: Db
) -> None:
    jobs.add(status="processing", claimed_by=RUNNER, created="3 h", finished="3 h")
    db.execute(
        """
        insert into model_version (model, version, max_batch_size, max_wait_ms, timeout_seconds)
        values ('sentiment', 'slow', 1, 0, 7200)
        """
    )
    db.execute("update runner set heartbeat_at = now()")

    assert warnings(doctor()) == []


# What is kept.


@pytest.mark.usefixtures("healthy")
def test_the_dead_rows_of_a_small_table_are_not_made_much_of(doctor: Doctor) -> None:
    assert ("few dead rows in job", "") in found(doctor(), "ok")


@pytest.mark.usefixtures("healthy")
def test_the_share_of_dead_rows_is_said_of_a_large_table(
    doctor: Doctor, db: psycopg.Connection[Any]
) -> None:
    leave_dead_rows(db, 12_000)

    assert re.search(r"^ok +[\d.]+% of the rows of job are dead$", doctor().stdout, re.MULTILINE)


@pytest.mark.usefixtures("healthy", "pinned")
def test_who_keeps_dead_rows_is_named_with_what_to_do(doctor: Doctor) -> None:
    [(what, advice)] = warnings(doctor())

    assert what.endswith("; transaction 4711 keeps them for 2:00:00: select * from job")
    assert advice.endswith("select pg_terminate_backend(4711)")


@pytest.mark.usefixtures("healthy", "pinned")
def test_queue_health_names_it_as_well(db: Db) -> None:
    query = "select held_by, held_by_query, advice from queue_health where model = 'sentiment'"

    row = db.execute(query).fetchone()

    assert row
    assert row[:2] == ("transaction 4711", "select * from  job")
    assert "pg_terminate_backend(4711)" in row[2]


@pytest.mark.usefixtures("healthy")
def test_a_slot_is_blamed_for_much_write_ahead_log_only(
    doctor: Doctor, db: Db, monkeypatch: pytest.MonkeyPatch
) -> None:
    db.execute("select pg_create_physical_replication_slot('standby', true)")
    try:
        assert warnings(doctor()) == []
        monkeypatch.setattr(storage, "MUCH_WAL", 0)
        [(what, advice)] = warnings(doctor())
    finally:
        db.execute("select pg_drop_replication_slot('standby')")

    assert what.startswith("replication slot standby keeps ")
    assert advice.endswith("select pg_drop_replication_slot('standby')")


@pytest.mark.usefixtures("healthy")
@pytest.mark.parametrize(
    ("free", "level"), [(50 * 2**30, "ok"), (2**30, "warning"), (2**20, "problem")]
)
def test_the_disk_of_the_embedded_database_is_looked_at(
    free: int,
    level: str,
    doctor: Doctor,
    owner_url: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "database_url").write_text(owner_url)
    usage = SimpleNamespace(free=free)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda _: usage)

    result = doctor(DATABASE_URL="")

    [(what, _)] = [each for each in found(result, level) if " are free in " in each[0]]
    assert what.endswith(str(tmp_path))
    assert found(result, "unseen") == []


@pytest.mark.usefixtures("healthy")
def test_the_disk_of_a_database_elsewhere_is_unseen_with_what_to_ask(
    doctor: Doctor, db: Db
) -> None:
    [(what, advice)] = found(doctor(), "unseen")

    assert what == "how much is free on the disk of this database, which is not embedded"
    (query,) = re.findall(r"select .*", advice)
    assert db.execute(query.encode()).fetchone()


def test_an_open_transaction_is_seen(db: Db, owner_url: str) -> None:
    with psycopg.connect(owner_url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select from job")
        query = "select kind, query from horizon_holder where holder = %s"

        found = db.execute(query, [str(reader.info.backend_pid)]).fetchall()

    assert found == [("transaction", "select from job")]
