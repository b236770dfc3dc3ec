"""The command line: what it does, its exit codes, and errors of one line that say what to do."""

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import IO, Any

import click
import psycopg
import pytest
from click.testing import CliRunner, Result

from helpers import Jobs, only_line, wait_for
from jobrunner import migrations
from jobrunner.cli import main, tables
from jobrunner.cli.arguments import MODEL_NAME
from jobrunner.janitor import JANITOR_LOCK
from processes import TOLD, Process, System, environment, system

Command = Callable[..., Result]

COMMANDS = sorted(main.commands)
ID = "01890a5d-ac96-774b-bcce-b302099a8057"
NEEDS_A_DATABASE = [
    ["migrate"],
    ["migrate", "--status"],
    ["start"],
    ["start", "--detach"],
    ["stop", "--all"],
    ["status"],
    ["list"],
    ["show", ID],
    ["cancel", ID],
    ["retry", ID],
    ["cleanup", "--older-than", "7d"],
    ["psql"],
]
WAITS_FOR_A_LOCK = "select from pg_locks where locktype = 'advisory' and not granted"
NEEDS_TABLES = [command for command in NEEDS_A_DATABASE if command[0] not in ("migrate", "psql")]


@pytest.fixture
def jobrunner(runner_url: str, tmp_path: Path) -> Command:
    """Runs a command with a runner's login, here in this process."""

    def jobrunner(*arguments: str, **changes: str) -> Result:
        env = {"DATABASE_URL": runner_url, "JOBRUNNER_HOME": str(tmp_path)} | changes
        return CliRunner().invoke(main, arguments, env=env, prog_name="jobrunner")

    return jobrunner


@pytest.fixture
def processes(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as processes:
        yield processes


def execute(
    url: str, *arguments: str, stdout: int | IO[str] = subprocess.PIPE, **settings: object
) -> subprocess.CompletedProcess[str]:
    """Run a command as a user does: a process with streams of its own."""
    return subprocess.run(
        [sys.executable, "-m", "jobrunner", *arguments],
        stdout=stdout, stderr=subprocess.PIPE, text=True, env=environment(url, **settings),
        timeout=30,
    )  # fmt: skip


def add_many(db: psycopg.Connection[Any], count: int, finished: str) -> None:
    db.execute(
        """
        insert into job (
            input, status, attempt, claimed_by, created_at, started_at, finished_at, result
        )
        select
            '{"text": "x"}', 'completed', 1, 'somebody', at, at, at,
            '{"sentiment": "positive", "confidence": 0.9}'
        from
            generate_series(1, %(count)s),
            (select now() - %(finished)s::interval) as finished (at)
        """,
        {"count": count, "finished": finished},
    )


# Help.


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help_with_an_example(name: str, jobrunner: Command) -> None:
    result = jobrunner(name, "--help")

    assert result.exit_code == 0
    assert re.search(rf"Example:\n +(\w+=\w+ )*jobrunner {name}\b", result.stdout)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_says_what_it_is_for(name: str) -> None:
    options = [param for param in main.commands[name].params if isinstance(param, click.Option)]

    assert [option.name for option in options if not option.help] == []


def test_the_overview_lists_every_command_in_a_line_that_is_not_cut_off(jobrunner: Command) -> None:
    result = jobrunner("--help")

    listed = result.stdout.split("Commands:\n")[1].splitlines()
    assert sorted(line.split()[0] for line in listed) == COMMANDS
    assert all(line.endswith(".") and not line.endswith("...") for line in listed)


def test_the_version_is_that_of_the_package(jobrunner: Command) -> None:
    assert re.fullmatch(r"jobrunner \d+\.\d+\.\d+\n", jobrunner("--version").stdout)


# Wrong usage.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--frobnicate"], "No such option"),
        (["frobnicate"], "No such command"),
        (["show"], "Missing argument"),
        (["show", "not-an-id"], "not a valid UUID"),
        (["list", "--status", "done"], "is not one of"),
        (["list", "--limit", "0"], "not in the range"),
        (["list", "--since", "yesterday"], "a number and a unit, like 30d"),
        (["list", "--older-than", "1y"], "a number and a unit, like 30d"),
        (["list", "--batch", "7"], "not a valid UUID"),
        (["list", "--model", "BAD NAME"], "should be a name of at most 63 lower-case letters"),
        (["retry", "not-an-id"], "not a valid UUID"),
        (["cleanup"], "Missing option '--older-than'"),
        (["cleanup", "--older-than", "soon"], "a number and a unit, like 30d"),
        (["cleanup", "--older-than", "999999w"], "should be at most 36500d"),
        (["start", "--workers", "0"], "not in the range"),
        (["start", "--model", "=mock"], "sentiment=mock"),
        (["start", "--model", "sentiment="], "sentiment=mock"),
        (["start", "--model", "sentiment"], "neither one of mock, vader"),
        (["up", "--model", "no_such:Thing"], "there is no module no_such"),
        (["stop"], "or --all"),
        (["stop", "a", "--all"], "or --all"),
        (["stop", "--all", "--timeout", "soon"], "a number of seconds"),
        (["stop", "--all", "--timeout", "-1"], "0 or more and finite"),
        (["stop", "--all", "--timeout", "nan"], "0 or more and finite"),
        (["stop", "--all", "--timeout", "inf"], "0 or more and finite"),
        (["stop", "--all", "--timeout", "-inf"], "0 or more and finite"),
        (["start", "--model", "BAD NAME=mock"], "lower-case letters, digits"),
        (["start", "--detach", "--model", "x\n=mock"], "lower-case letters, digits"),
        (["up", "--model", "BAD NAME=mock"], "lower-case letters, digits"),
        (["start", "--model", "a=mock", "--model", "a=x:Y"], "each model can be served once"),
        (["up", "--model", "a=mock", "--model", "a=mock"], "each model can be served once"),
    ],
)
def test_wrong_usage_is_one_line_that_leads_to_the_help_and_exit_code_2(
    arguments: list[str], said: str, jobrunner: Command
) -> None:
    error = only_line(jobrunner(*arguments), code=2)

    assert said in error
    assert re.search(r"see `jobrunner( \w+)? --help`$", error)


@pytest.mark.parametrize(
    "name", ["a", "0", "a" * 63, "a" * 64, "a.b-c_d", ".a", "-a", "A", "a b", "a\n", "ä", "٣"]
)
def test_a_model_may_be_called_what_the_database_accepts_and_nothing_else(
    name: str, db: psycopg.Connection[Any]
) -> None:
    try:
        db.execute("insert into model (name) values (%s)", [name])
        accepted = True
    except psycopg.errors.CheckViolation:
        accepted = False

    assert bool(MODEL_NAME.fullmatch(name)) == accepted


# Where the output can't be written, and Ctrl-C.


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no full device on this machine")
@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["status"]], ids=str)
def test_an_output_that_can_not_be_written_is_one_line(
    arguments: list[str], runner_url: str
) -> None:
    with open("/dev/full", "w") as full:
        done = execute(runner_url, *arguments, stdout=full)

    said = "Error: the output can not be written: No space left on device\n"
    assert (done.returncode, done.stderr) == (1, said)


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["status"]], ids=str)
def test_nobody_who_reads_is_no_error_to_speak_of(arguments: list[str], runner_url: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    with open(writer, "w") as closed:
        done = execute(runner_url, *arguments, stdout=closed)

    assert done.stderr == ""


@pytest.mark.parametrize(
    "way_in", [["-m", "jobrunner"], ["-c", "from jobrunner.__main__ import main; main()"]]
)
def test_ctrl_c_while_modules_are_imported_says_nothing(way_in: list[str], tmp_path: Path) -> None:
    interrupt = "import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n"
    (tmp_path / "psycopg.py").write_text(interrupt)
    env = os.environ | {"PYTHONPATH": str(tmp_path)}

    done = subprocess.run(
        [sys.executable, *way_in, "status"],
        env=env, capture_output=True, text=True, timeout=30,
    )  # fmt: skip

    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_ctrl_c_while_a_command_waits_says_nothing(
    jobs: Jobs, db: psycopg.Connection[Any], runner_url: str, tmp_path: Path
) -> None:
    with db.transaction():
        db.execute("select pg_advisory_xact_lock(%s)", [JANITOR_LOCK])
        command = ["-m", "jobrunner", "cleanup", "--older-than", "7d"]
        process = Process(command, environment(runner_url), tmp_path / "cleanup.log")
        wait_for(lambda: db.execute(WAITS_FOR_A_LOCK).fetchone() is not None, "cleanup waits")
        process.send(signal.SIGINT)

        assert (process.wait(), process.log) == (130, "")


# No database.


@pytest.mark.parametrize("arguments", NEEDS_A_DATABASE, ids=" ".join)
def test_without_a_database_the_error_names_the_two_ways_to_one(
    arguments: list[str], jobrunner: Command
) -> None:
    error = only_line(jobrunner(*arguments, DATABASE_URL=""))

    assert "DATABASE_URL is not set" in error
    assert "`jobrunner up`" in error


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("postgresql://u:hunter2@127.0.0.1:1/d", "Connection refused"),
        ("postgresql://u:hunter2@nowhere.invalid/d", "nowhere.invalid"),
        ("gibberish hunter2", "should be a PostgreSQL URL"),
        ("mysql://u:hunter2@h/d", "should be a PostgreSQL URL"),
    ],
)
def test_a_database_that_can_not_be_reached_is_one_line_without_the_password(
    url: str, said: str, jobrunner: Command
) -> None:
    error = only_line(jobrunner("status", DATABASE_URL=url))

    assert said in error
    assert "DATABASE_URL" in error
    assert "hunter2" not in error


@pytest.mark.parametrize("arguments", [["status"], ["start"], ["stop", "--all"]], ids=" ".join)
def test_a_wrong_password_is_one_line(
    arguments: list[str], runner_url: str, jobrunner: Command
) -> None:
    url = runner_url.replace("runner_login:runner_login@", "runner_login:hunter2@")

    error = only_line(jobrunner(*arguments, DATABASE_URL=url))

    assert "password authentication failed" in error
    assert error.endswith("check DATABASE_URL and the server")


@pytest.mark.parametrize("arguments", NEEDS_TABLES, ids=" ".join)
def test_a_database_without_tables_sends_to_jobrunner_migrate(
    arguments: list[str], owner_url: str, jobrunner: Command
) -> None:
    empty = owner_url.rpartition("/")[0] + "/postgres"

    assert "run `jobrunner migrate`" in only_line(jobrunner(*arguments, DATABASE_URL=empty))


@pytest.mark.parametrize("arguments", [["status"], ["retry", ID], ["stop", "--all"]], ids=" ".join)
def test_tables_of_an_older_version_send_to_jobrunner_migrate(
    arguments: list[str],
    owner_url: str,
    db: psycopg.Connection[Any],
    jobrunner: Command,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    db.execute("drop database if exists fresh")
    db.execute("create database fresh")
    fresh = owner_url.rpartition("/")[0] + "/fresh"
    older = [migration for migration in migrations.available() if migration.version <= 22]
    with monkeypatch.context() as patch:
        patch.setattr(migrations, "available", lambda: older)
        assert jobrunner("migrate", DATABASE_URL=fresh).exit_code == 0

    assert "run `jobrunner migrate`" in only_line(jobrunner(*arguments, DATABASE_URL=fresh))


def test_a_bad_setting_is_one_line_that_names_the_variable(jobrunner: Command) -> None:
    assert only_line(jobrunner("status", PORT="http")).startswith("PORT: should be ")


def test_an_error_of_a_process_is_on_standard_error_alone_without_a_traceback(
    tmp_path: Path,
) -> None:
    done = execute("postgresql://u@127.0.0.1:1/d", "start", JOBRUNNER_HOME=tmp_path)

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: .*Connection refused.*\n", done.stderr)


# migrate


def test_migrate_has_nothing_to_do_the_second_time(owner_url: str, jobrunner: Command) -> None:
    result = jobrunner("migrate", DATABASE_URL=owner_url)

    assert result.exit_code == 0
    assert result.stdout == "Nothing to apply: the schema is up to date.\n"


def test_migrate_names_what_it_applies_and_status_shows_before_and_after(
    owner_url: str, db: psycopg.Connection[Any], jobrunner: Command
) -> None:
    db.execute("drop database if exists fresh")
    db.execute("create database fresh")
    fresh = owner_url.rpartition("/")[0] + "/fresh"
    names = [f"{m.version:04d}_{m.name}" for m in migrations.available()]

    before = jobrunner("migrate", "--status", DATABASE_URL=fresh)
    applied = jobrunner("migrate", DATABASE_URL=fresh)
    after = jobrunner("migrate", "--status", DATABASE_URL=fresh)

    assert all(line.endswith("-") for line in before.stdout.splitlines()[1:])
    assert applied.stdout == f"Applied {', '.join(names)}.\n"
    lines = after.stdout.splitlines()
    assert lines[0].split("  ")[0] == "version"
    assert ["_".join(line.split()[:2]) for line in lines[1:]] == names
    assert all(line.endswith("Z") for line in lines[1:])


def test_migrate_says_the_same_in_json(jobrunner: Command) -> None:
    found = json.loads(jobrunner("migrate", "--status", "--json").stdout)

    assert [row["name"] for row in found] == [m.name for m in migrations.available()]
    assert all(re.fullmatch(r"\d{4}-.*T.*Z", row["applied_at"]) for row in found)


# status


def test_status_shows_queue_and_runners_alike_to_people_and_programs(
    jobs: Jobs, jobrunner: Command
) -> None:
    for _ in range(3):
        jobs.add(created="90 s")
    jobs.add(due_in="1 h", attempt=1)
    jobs.add_runner("here-1-abcd")
    jobs.add(status="processing", claimed_by="here-1-abcd")

    table, said = jobrunner("status"), json.loads(jobrunner("status", "--json").stdout)

    [queue] = said["queues"]
    assert queue["pending"] == 4
    assert queue["waiting_to_retry"] == 1
    assert queue["processing"] == 1
    assert 90 <= queue["oldest_pending_age"] < 100
    assert (queue["runners"], queue["workers"]) == (1, 2)
    [runner] = said["runners"]
    assert (runner["runner"], runner["state"], runner["busy"]) == ("here-1-abcd", "working", 1)
    assert runner["models"] == ["sentiment"]
    lines = table.stdout.splitlines()
    assert lines[1].split()[:4] == ["sentiment", "4", "1", "1"]
    assert lines[4].split()[:5] == ["here-1-abcd", "working", "here", "1", "sentiment"]


def test_status_without_a_runner_says_how_to_start_one(jobs: Jobs, jobrunner: Command) -> None:
    assert "No runner: start one with `jobrunner start`." in jobrunner("status").stdout


def test_status_stands_a_database_in_which_no_model_was_registered(
    db: psycopg.Connection[Any], jobrunner: Command
) -> None:
    db.execute("delete from model")

    assert jobrunner("status").exit_code == 0


# list and show


def test_list_has_the_newest_first_and_keeps_to_its_limit(jobs: Jobs, jobrunner: Command) -> None:
    ids = [str(jobs.add()) for _ in range(3)]

    listed = json.loads(jobrunner("list", "--limit", "2", "--json").stdout)

    assert [job["id"] for job in listed] == ids[:0:-1]


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed"])
def test_list_can_be_of_one_status(status: str, jobs: Jobs, jobrunner: Command) -> None:
    for each in ("pending", "processing", "completed", "failed"):
        jobs.add(status=each)

    [job] = json.loads(jobrunner("list", "--status", status, "--json").stdout)

    assert job["status"] == status
    assert job["error_code"] == ("model_error" if status == "failed" else None)


def test_list_can_be_of_one_model(jobs: Jobs, jobrunner: Command) -> None:
    jobs.add(model="other")
    job_id = jobs.add()

    [job] = json.loads(jobrunner("list", "--model", "sentiment", "--json").stdout)

    assert job["id"] == job_id
    assert jobrunner("list", "--model", "nobody").stdout == "No jobs.\n"


def test_list_can_be_of_one_batch(jobs: Jobs, jobrunner: Command) -> None:
    jobs.add()
    query = "insert into job (input, batch_id) values ('{}', %s) returning id::text"
    [(job_id,)] = jobs.db.execute(query, [ID]).fetchall()

    [job] = json.loads(jobrunner("list", "--batch", ID, "--json").stdout)

    assert job["id"] == job_id


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--since", "2h"], ["now", "1 h"]),
        (["--older-than", "30m"], ["1 h", "3 h"]),
        (["--since", "2h", "--older-than", "30m"], ["1 h"]),
        (["--since", "4h", "--older-than", "2h", "--status", "pending"], ["3 h"]),
        (["--older-than", "36500d"], []),
        (["--since", "36500d"], ["now", "1 h", "3 h"]),
    ],
)
def test_list_can_be_of_what_was_submitted_since_or_before(
    arguments: list[str], expected: list[str], jobs: Jobs, jobrunner: Command
) -> None:
    ages = {}
    for age in ("3 h", "1 h"):
        # As the database would have made it then: its id says when.
        query = """
            insert into job (id, input, created_at, run_at)
            select
                (lpad(to_hex((extract(epoch from at) * 1000)::bigint), 12, '0')
                || '7000800000000000' || '0000')::uuid,
                '{}', at, at
            from (select now() - %s::interval as at) as past
            returning id::text
        """
        [(job_id,)] = jobs.db.execute(query, [age]).fetchall()
        ages[job_id] = age
    ages[jobs.add()] = "now"

    listed = json.loads(jobrunner("list", *arguments, "--json").stdout)

    assert [ages[job["id"]] for job in listed] == expected


def test_list_shows_no_texts(jobs: Jobs, jobrunner: Command) -> None:
    jobs.add("my secret", status="completed")

    for result in (jobrunner("list"), jobrunner("list", "--json")):
        assert result.exit_code == 0
        assert "secret" not in result.stdout
        assert "positive" not in result.stdout


def test_an_empty_list_says_so(jobs: Jobs, jobrunner: Command) -> None:
    assert jobrunner("list").stdout == "No jobs.\n"
    assert json.loads(jobrunner("list", "--json").stdout) == []


def test_a_reader_who_leaves_early_is_no_error_to_speak_of(
    db: psycopg.Connection[Any], runner_url: str
) -> None:
    add_many(db, 2000, "1 h")

    command = f"{sys.executable} -m jobrunner list --limit 2000 | head -1"
    done = subprocess.run(
        ["sh", "-c", command], env=environment(runner_url), capture_output=True, text=True
    )

    assert done.stdout.startswith("id ")
    assert done.stderr == ""


def test_show_has_the_whole_job(jobs: Jobs, jobrunner: Command) -> None:
    job_id = str(jobs.add("schön ☃", status="completed"))

    said = json.loads(jobrunner("show", job_id, "--json").stdout)
    lines = dict(line.split(maxsplit=1) for line in jobrunner("show", job_id).stdout.splitlines())

    assert (said["id"], said["status"]) == (job_id, "completed")
    assert said["input"] == {"text": "schön ☃"}
    assert said["result"] == {"sentiment": "positive", "confidence": 0.95}
    assert said["errors"] == []
    assert "model_version" in said
    assert lines.keys() == said.keys()
    assert lines["input"] == '{"text": "schön ☃"}'


def test_show_of_an_unknown_job_is_an_error(jobs: Jobs, jobrunner: Command) -> None:
    assert only_line(jobrunner("show", ID)) == f"there is no job {ID}"


STRANGE = {
    "nested 3000 deep": f"{'[' * 3000}{']' * 3000}",
    "a number of 131001 digits": f"1{'0' * 131_000}",
}


@pytest.mark.parametrize("strange", STRANGE.values(), ids=STRANGE.keys())
def test_show_has_also_what_python_can_not_read(
    strange: str, jobs: Jobs, db: psycopg.Connection[Any], jobrunner: Command
) -> None:
    # As a client that inserts jobs by hand may.
    strange_input = f'{{"text": "I love it", "strange": {strange}}}'
    query = "insert into job (input) values (%s) returning id"
    [(job_id,)] = db.execute(query, [strange_input]).fetchall()

    shown, as_json = jobrunner("show", str(job_id)), jobrunner("show", str(job_id), "--json")

    assert (shown.exit_code, as_json.exit_code) == (0, 0)
    assert strange in shown.stdout
    said = json.loads(as_json.stdout.replace(strange, "[]"))
    assert said["input"] == {"text": "I love it", "strange": []}


def test_json_of_the_database_is_passed_on_as_it_is_also_deep_inside() -> None:
    raw = tables.JsonText('{"huge": 1e131000}')

    assert raw in tables.to_json({"rows": [{"input": raw, "name": "schön"}], "none": []})
    said = tables.to_json([[], {}, {"a": [tables.JsonText("[1]")]}])
    assert json.loads(said) == [[], {}, {"a": [[1]]}]


def test_show_lets_no_text_steer_the_terminal(jobs: Jobs, jobrunner: Command) -> None:
    job_id = str(jobs.add("\x1b[2J\x07\x9b2J"))

    shown = jobrunner("show", job_id).stdout

    assert r"\u001b[2J\u0007\u009b2J" in shown
    assert json.loads(jobrunner("show", job_id, "--json").stdout)["input"] == {
        "text": "\x1b[2J\x07\x9b2J"
    }


# cancel


@pytest.mark.parametrize(
    ("status", "then"), [("pending", "failed"), ("processing", "processing"), ("failed", "failed")]
)
def test_cancel_says_in_json_what_became_of_the_job(
    status: str, then: str, jobs: Jobs, jobrunner: Command
) -> None:
    job_id = str(jobs.add(status=status))

    said = json.loads(jobrunner("cancel", job_id, "--json").stdout)

    assert said == {"id": job_id, "status": then}


# retry


def test_retry_submits_a_failed_job_anew(jobs: Jobs, web_url: str, jobrunner: Command) -> None:
    job_id = jobs.add("again", status="failed", priority=7, max_attempts=5)

    said = json.loads(jobrunner("retry", job_id, "--json", DATABASE_URL=web_url).stdout)

    assert said["retry_of"] == job_id
    new = jobs.get(said["id"])
    assert (new["status"], new["attempt"], str(new["retry_of"])) == ("pending", 0, job_id)
    assert (new["input"], new["priority"], new["max_attempts"]) == ({"text": "again"}, 7, 5)
    assert jobs.status(job_id) == "failed"


def test_retry_says_which_job_repeats_which(jobs: Jobs, web_url: str, jobrunner: Command) -> None:
    job_id = jobs.add(status="failed")

    said = re.fullmatch(
        r"Job (\S+) repeats job (\S+)\.\n", jobrunner("retry", job_id, DATABASE_URL=web_url).stdout
    )

    assert said
    assert (jobs.status(said[1]), said[2]) == ("pending", job_id)


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_only_a_failed_job_can_be_retried(
    status: str, jobs: Jobs, web_url: str, jobrunner: Command
) -> None:
    job_id = jobs.add(status=status)

    error = only_line(jobrunner("retry", job_id, DATABASE_URL=web_url))

    said = f"only a failed job can be retried; this one is {status}"
    assert error == f"job {job_id} can not be retried: {said}"
    assert jobs.count() == 1


def test_retry_of_an_unknown_job_is_an_error(jobs: Jobs, web_url: str, jobrunner: Command) -> None:
    assert f"there is no job '{ID}'" in only_line(jobrunner("retry", ID, DATABASE_URL=web_url))


# cleanup


def test_cleanup_says_in_json_how_many_it_deleted(jobs: Jobs, jobrunner: Command) -> None:
    jobs.add(status="completed", finished="8 days")

    result = jobrunner("cleanup", "--older-than", "7d", "--json")

    assert json.loads(result.stdout) == {"deleted": 1}


def test_cleanup_deletes_what_ended_long_ago_in_more_than_one_batch(
    jobs: Jobs, db: psycopg.Connection[Any], jobrunner: Command
) -> None:
    add_many(db, 2300, "8 days")
    jobs.add(status="failed", finished="8 days")
    young = [jobs.add(status=status, finished="6 days") for status in ("completed", "failed")]
    unfinished = [jobs.add(status=status, created="9 d") for status in ("pending", "processing")]

    result = jobrunner("cleanup", "--older-than", "7d")

    assert (result.exit_code, result.stdout) == (0, "Deleted 2301 jobs.\n")
    assert {row[0] for row in db.execute("select id::text from job")} == {*young, *unfinished}


def test_cleanup_waits_for_another_janitor_rather_than_leave_old_jobs(
    jobs: Jobs, db: psycopg.Connection[Any], runner_url: str, tmp_path: Path
) -> None:
    jobs.add(status="completed", finished="8 days")

    with db.transaction():
        db.execute("select pg_advisory_xact_lock(%s)", [JANITOR_LOCK])
        command = ["-m", "jobrunner", "cleanup", "--older-than", "7d"]
        process = Process(command, environment(runner_url), tmp_path / "cleanup.log")
        wait_for(lambda: db.execute(WAITS_FOR_A_LOCK).fetchone() is not None, "cleanup waits")

    assert process.wait() == 0
    assert process.log == "Deleted 1 jobs.\n"


def test_cleanup_with_a_login_that_may_not_delete_says_what_to_grant(
    jobs: Jobs, web_url: str, jobrunner: Command
) -> None:
    jobs.add(status="completed", finished="8 days")

    error = only_line(jobrunner("cleanup", "--older-than", "7d", DATABASE_URL=web_url))

    assert "run `grant job_janitor to <login>`" in error
    assert jobs.count() == 1


# start


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        ("nowhere.at_all:Model", "there is no module nowhere"),
        ("strange_models:Nobody", "has no attribute 'Nobody'"),
        ("nothing", "transformers:PATH nor what an installed package offers, nor module:Class"),
    ],
)
@pytest.mark.process
def test_start_with_a_model_that_does_not_exist_ends_with_one_error(
    implementation: str, said: str, runner_url: str
) -> None:
    done = execute(runner_url, "start", "--workers", "1", "--model", f"sentiment={implementation}")

    assert (done.returncode, done.stdout) == (1, "")
    last = done.stderr.splitlines()[-1]
    assert last.startswith("Error: the model sentiment could not be loaded: ")
    assert said in last
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("implementation", "said"),
    [
        ("strange_models:Nameless", "has no name of its own: write NAME=strange_models:Nameless"),
        ("strange_models:Misnamed", "should be a name of at most 63 lower-case letters"),
        ("strange_models:Nobody", "has no attribute 'Nobody'"),
        ("broken_model:Model", "broken_model:Model: RuntimeError: broken on purpose"),
    ],
)
@pytest.mark.process
def test_a_model_without_a_good_name_has_to_be_given_one(
    implementation: str, said: str, runner_url: str
) -> None:
    done = execute(runner_url, "start", "--model", implementation)

    assert (done.returncode, done.stdout) == (2, "")
    assert said in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


@pytest.mark.process
def test_a_model_is_served_under_the_name_that_it_gives_itself(runner_url: str, jobs: Jobs) -> None:
    models = ["--model", "strange_models:Named", "--model", "other=strange_models:Named"]

    done = execute(runner_url, "start", "--workers", "1", "--drain", *models)

    assert done.returncode == 0
    assert "models=strange.one,other " in done.stderr


@pytest.mark.process
def test_two_models_of_one_name_are_told_apart_by_nobody(runner_url: str) -> None:
    models = ["--model", "strange_models:Named", "--model", "strange.one=mock"]

    done = execute(runner_url, "start", *models)

    assert done.returncode == 2
    assert "each model can be served once" in done.stderr


def test_start_with_a_login_that_is_no_runner_says_what_to_grant(
    web_url: str, jobrunner: Command
) -> None:
    error = only_line(jobrunner("start", DATABASE_URL=web_url))

    assert "run `grant job_runner to <login>`" in error


@pytest.mark.process
def test_start_drain_ends_when_nothing_is_left_also_not_what_waits_for_its_retry(
    jobs: Jobs, runner_url: str
) -> None:
    ids = [jobs.add(), jobs.add(), jobs.add(due_in="1.5 s", attempt=1)]

    done = execute(runner_url, "start", "--drain", MOCK_DELAY_SECONDS=0.1)

    assert done.returncode == 0
    assert [jobs.status(job_id) for job_id in ids] == ["completed"] * 3
    assert jobs.db.execute("select from runner").fetchall() == []


@pytest.mark.process
def test_start_detach_prints_the_id_of_a_runner_that_works_on(
    jobs: Jobs, runner_url: str, jobrunner: Command, tmp_path: Path
) -> None:
    settings = {"JOBRUNNER_HOME": tmp_path, "MOCK_DELAY_SECONDS": 0.1}

    done = execute(runner_url, "start", "--detach", "--workers", "1", **settings)

    log = tmp_path / "runner.log"
    said = re.fullmatch(rf"Runner (\S+) works in the background; its log is {log}\.\n", done.stdout)
    assert said, done.stdout + done.stderr
    jobs.wait(jobs.add(), "completed")
    assert f"runner={said[1]}" in log.read_text()
    stopped = jobrunner("stop", said[1])
    assert (stopped.exit_code, stopped.stdout) == (0, f"runner {said[1]} has stopped\n")


@pytest.mark.process
def test_start_detach_tells_the_reason_when_the_runner_does_not_start(
    db: psycopg.Connection[Any], jobrunner: Command
) -> None:
    error = only_line(jobrunner("start", "--detach", "--model", "sentiment=nothing"))

    assert error.startswith("the runner did not start: the model sentiment could not be loaded")
    assert "runner.log" in error


@pytest.mark.process
def test_start_detach_drain_of_an_empty_queue_is_no_failure(
    jobs: Jobs, runner_url: str, tmp_path: Path
) -> None:
    done = execute(runner_url, "start", "--detach", "--drain", JOBRUNNER_HOME=tmp_path)

    assert (done.returncode, done.stderr) == (0, "")
    wait_for(lambda: not jobs.db.execute("select from runner").fetchall(), "the runner has ended")


def test_start_detach_in_a_home_that_can_not_be_written_is_one_line(
    jobrunner: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()

    error = only_line(jobrunner("start", "--detach", JOBRUNNER_HOME=str(tmp_path / "file")))

    assert error.endswith("set JOBRUNNER_HOME to a folder of your own")


@pytest.mark.process
def test_start_detach_outlives_the_terminal_it_was_started_from(
    jobs: Jobs, runner_url: str, jobrunner: Command, tmp_path: Path
) -> None:
    command = [sys.executable, "-m", "jobrunner", "start", "--detach", "--workers", "1"]
    env = environment(runner_url, JOBRUNNER_HOME=tmp_path, MOCK_DELAY_SECONDS=0.1)
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(command[0], command, env)
    said = b""
    with suppress(OSError):
        while b"in the background" not in said:
            said += os.read(terminal, 65536)

    os.close(terminal)
    os.waitpid(pid, 0)

    assert b"in the background" in said
    jobs.wait(jobs.add(), "completed")
    assert jobrunner("stop", "--all").exit_code == 0


@pytest.mark.process
def test_a_closed_terminal_is_a_stop_that_lets_the_job_in_hand_finish_even_if_said_twice(
    jobs: Jobs, processes: System, tmp_path: Path
) -> None:
    runner = processes.runner("--workers", "1", *TOLD, TOLD_TIMEOUT_SECONDS=600)
    job_id = jobs.add(f"await {tmp_path / 'go'}")
    wait_for((tmp_path / "go.begun").exists, "the job is in hand")

    runner.send(signal.SIGHUP)
    wait_for(lambda: runner.lines("stopping"), "it is stopping")
    runner.send(signal.SIGHUP)
    (tmp_path / "go").touch()

    assert runner.wait() == 0
    assert jobs.status(job_id) == "completed"


@pytest.mark.process
def test_with_nohup_a_closed_terminal_is_nothing(jobs: Jobs, processes: System) -> None:
    former = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        runner = processes.runner("--workers", "1", MOCK_DELAY_SECONDS=0.1)
    finally:
        signal.signal(signal.SIGHUP, former)

    runner.send(signal.SIGHUP)

    jobs.wait(jobs.add(), "completed")
    assert not runner.lines("stopping")


# stop


@pytest.mark.process
def test_stop_by_the_beginning_of_the_id_lets_the_job_in_hand_finish(
    jobs: Jobs, processes: System, runner_url: str, tmp_path: Path
) -> None:
    runner = processes.runner("--workers", "1", *TOLD, TOLD_TIMEOUT_SECONDS=600)
    job_id = jobs.add(f"await {tmp_path / 'go'}")
    runner_id = jobs.wait(job_id, "processing")["claimed_by"]

    command = ["-m", "jobrunner", "stop", runner_id[:-2]]
    stop = Process(command, environment(runner_url), tmp_path / "stop.log")
    wait_for(lambda: runner.lines("stopping"), "it is stopping")
    (tmp_path / "go").touch()

    assert (stop.wait(), stop.log) == (0, f"runner {runner_id} has stopped\n")
    assert jobs.status(job_id) == "completed"
    assert runner.wait() == 0


@pytest.mark.process
def test_stop_now_hands_the_job_back_uncounted(
    jobs: Jobs, processes: System, jobrunner: Command
) -> None:
    runner = processes.runner("--workers", "1", MOCK_DELAY_SECONDS=60)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")

    result = jobrunner("stop", "--all", "--now")

    assert result.exit_code == 0
    row = jobs.get(job_id)
    assert (row["status"], row["attempt"], row["errors"]) == ("pending", 0, [])
    assert runner.wait() == 0


@pytest.mark.process
def test_stop_of_a_dead_runner_says_so_and_frees_its_jobs(
    jobs: Jobs, processes: System, jobrunner: Command
) -> None:
    runner = processes.runner("--workers", "1", MOCK_DELAY_SECONDS=60)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")
    runner_id = jobs.get(job_id)["claimed_by"]
    runner.send(signal.SIGKILL)
    runner.wait()

    result = jobrunner("stop", runner_id)

    assert (result.exit_code, result.stdout) == (0, f"runner {runner_id} was dead\n")
    row = jobs.get(job_id)
    assert (row["status"], row["attempt"]) == ("pending", 1)
    assert [error["code"] for error in row["errors"]] == ["runner_lost"]


def test_stop_gives_up_after_its_timeout_and_says_who_is_still_there(
    jobs: Jobs, jobrunner: Command
) -> None:
    jobs.add_runner("here-1-busy")

    error = only_line(jobrunner("stop", "--all", "--timeout", "0.3"))

    assert error.startswith("after 0.3 s still running: here-1-busy")
    assert "`--now`" in error
    row = jobs.db.execute("select stop_requested_at is not null, stop_now from runner").fetchone()
    assert row == (True, False)


def test_stop_of_an_unknown_runner_is_an_error(jobs: Jobs, jobrunner: Command) -> None:
    jobs.add_runner("here-1-aaaa")

    error = only_line(jobrunner("stop", "there"))

    assert error == "no runner is called there: `jobrunner status` lists them"


def test_stop_of_an_ambiguous_beginning_is_an_error_and_stops_nobody(
    jobs: Jobs, jobrunner: Command
) -> None:
    jobs.add_runner("here-1-aaaa")
    jobs.add_runner("here-1-aabb")

    error = only_line(jobrunner("stop", "here-1-aa"))

    assert error == "2 runners begin with here-1-aa: give more of the id"
    asked = jobs.db.execute("select from runner where stop_requested_at is not null").fetchall()
    assert asked == []


def test_stop_all_without_any_runner_says_so(jobs: Jobs, jobrunner: Command) -> None:
    result = jobrunner("stop", "--all")

    assert (result.exit_code, result.stdout) == (0, "no runner is there to be stopped\n")


# API keys.


def test_a_key_is_printed_once_and_alone(owner_url: str, jobs: Jobs, jobrunner: Command) -> None:
    made = jobrunner("keys", "create", "shop", "--max-pending", "7", DATABASE_URL=owner_url)

    key = made.stdout.strip()
    assert re.fullmatch(r"jr_[0-9a-f]{8}_[\w-]{43}", key)
    assert "shop" in made.stderr
    assert key not in made.stderr
    listed = jobrunner("keys", "list", DATABASE_URL=owner_url)
    assert key[3:11] in listed.stdout
    assert key[12:] not in listed.stdout
    [row] = json.loads(jobrunner("keys", "list", "--json", DATABASE_URL=owner_url).stdout)
    assert (row["client"], row["operator"], row["max_pending"]) == ("shop", False, 7)


def test_a_key_is_revoked_by_its_id_or_by_itself(
    owner_url: str, jobs: Jobs, jobrunner: Command
) -> None:
    for name in ("id", "key"):
        made = json.loads(
            jobrunner("keys", "create", "a", "--operator", "--json", DATABASE_URL=owner_url).stdout
        )
        done = jobrunner("keys", "revoke", made[name], DATABASE_URL=owner_url)
        assert done.stdout == f"Key {made['id']} is revoked.\n"

    rows = json.loads(jobrunner("keys", "list", "--json", DATABASE_URL=owner_url).stdout)
    assert [bool(row["revoked_at"]) for row in rows] == [True, True]


def test_without_keys_the_list_says_so(owner_url: str, jobs: Jobs, jobrunner: Command) -> None:
    assert jobrunner("keys", "list", DATABASE_URL=owner_url).stdout == "No keys.\n"


def test_a_key_that_is_not_there_can_not_be_revoked(
    owner_url: str, jobs: Jobs, jobrunner: Command
) -> None:
    said = only_line(jobrunner("keys", "revoke", "00000000", DATABASE_URL=owner_url))

    assert said == "there is no key 00000000: `jobrunner keys list` has all"


@pytest.mark.parametrize(
    "arguments",
    [["create"], ["create", ""], ["create", "a b"], ["create", "x" * 64], ["create", "ä"],
     ["create", "shop", "--max-pending", "0"], ["revoke", "x"], ["revoke"], ["nothing"]],
)  # fmt: skip
def test_a_key_that_makes_no_sense_is_wrong_usage(
    arguments: list[str], jobs: Jobs, jobrunner: Command
) -> None:
    assert "--help`" in only_line(jobrunner("keys", *arguments), 2)


def test_a_key_that_is_mistyped_is_not_repeated(jobs: Jobs, jobrunner: Command) -> None:
    said = only_line(jobrunner("keys", "revoke", "jr_1f0c9a7x_very-secret"), 2)

    assert "secret" not in said


def test_who_may_make_no_keys_is_told_in_one_line(jobs: Jobs, jobrunner: Command) -> None:
    assert "permission denied" in only_line(jobrunner("keys", "create", "shop"))


# Completion by the shell.


def complete(url: str, *words: str, **more: Any) -> list[str]:
    """What bash is offered for the last word."""
    command = Path(sys.executable).parent / "jobrunner"
    env = environment(
        url,
        _JOBRUNNER_COMPLETE="bash_complete",
        COMP_WORDS=" ".join(["jobrunner", *words]),
        COMP_CWORD=len(words),
        **more,
    )
    done = subprocess.run([command], env=env, capture_output=True, text=True, timeout=30)
    assert (done.returncode, done.stderr) == (0, "")
    return [line.removeprefix("plain,") for line in done.stdout.splitlines() if line]


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_a_shell_can_be_taught_to_complete(shell: str, runner_url: str) -> None:
    command = Path(sys.executable).parent / "jobrunner"
    env = environment(runner_url, _JOBRUNNER_COMPLETE=f"{shell}_source")

    done = subprocess.run([command], env=env, capture_output=True, text=True, timeout=30)

    assert f"_JOBRUNNER_COMPLETE={shell}_complete" in done.stdout


def test_commands_and_options_are_completed(runner_url: str) -> None:
    assert complete(runner_url, "st") == ["start", "stop", "status"]
    assert complete(runner_url, "keys", "re") == ["revoke"]
    assert complete(runner_url, "status", "--w") == ["--watch"]
    assert complete(runner_url, "list", "--status", "c") == ["completed"]


def test_runners_and_jobs_are_completed(jobs: Jobs, runner_url: str) -> None:
    jobs.add_runner("here-1-abcd")
    jobs.add_runner("there-2-ffff")
    pending, failed = jobs.add(), jobs.add(status="failed")

    def offered(*words: str) -> list[str]:
        """The first offer: where the database takes longer than a second there is none."""
        return wait_for(lambda: complete(runner_url, *words), "something is offered")

    assert offered("stop", "here") == ["here-1-abcd"]
    assert set(offered("show", "0")) == {pending, failed}
    assert offered("cancel", "0") == [pending]
    assert offered("retry", "0") == [failed]


@pytest.mark.parametrize("url", ["postgresql://127.0.0.1:1/x", "", "gibberish"])
def test_without_a_database_nothing_is_offered_and_nothing_said(url: str, tmp_path: Path) -> None:
    # Elsewhere than in this checkout, where the database of `make up` may run.
    assert complete(url, "stop", "h", JOBRUNNER_HOME=tmp_path) == []
    assert complete(url, "show", "0", JOBRUNNER_HOME=tmp_path) == []
