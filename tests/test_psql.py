"""psql on the project's database: any psql, with the password kept from other users."""

import os
import pty
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from time import monotonic

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from helpers import Jobs, wait_for
from jobrunner import binaries, psql, shortcuts
from jobrunner.cli.database import psql_command
from jobrunner.errors import EmbeddedError, JobrunnerError

Psql = Callable[..., subprocess.CompletedProcess[str]]

PATIENCE_SECONDS = 60
DATABASE = "select current_database() || ' ' || session_user"


@pytest.fixture
def run(web_url: str) -> Psql:
    """Runs ``jobrunner psql`` with the login of the web."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobrunner", "psql", *arguments]
        env = os.environ | {"DATABASE_URL": web_url} | changes
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30)

    return run


def test_it_opens_the_database_with_the_login_of_the_url(run: Psql) -> None:
    done = run("-Atc", DATABASE)

    assert (done.returncode, done.stdout) == (0, "jobrunner web_login\n")


def test_a_machine_without_psql_has_that_of_the_embedded_postgresql(run: Psql) -> None:
    done = run("-Atc", DATABASE, PATH="/nowhere")

    assert (done.returncode, done.stdout) == (0, "jobrunner web_login\n")


def test_the_exit_code_is_that_of_psql(run: Psql) -> None:
    done = run("-c", "select * from nowhere")

    assert done.returncode == 1
    assert 'relation "nowhere" does not exist' in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows the arguments")
def test_the_password_is_not_among_the_arguments_that_everybody_can_read(run: Psql) -> None:
    done = run("-c", r"\! tr '\0' '\n' < /proc/$PPID/cmdline")

    arguments = done.stdout.splitlines()
    assert "user=web_login" in arguments[1]
    assert "password" not in done.stdout
    assert done.stdout.count("web_login") == 1


def test_a_secret_that_has_no_place_but_the_arguments_is_refused(run: Psql, web_url: str) -> None:
    done = run("-Atc", DATABASE, DATABASE_URL=f"{web_url}?sslpassword=hunter2")

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: psql takes sslpassword from .* a service file: .*\n", done.stderr)
    assert "hunter2" not in done.stderr


def test_the_service_file_that_it_advises_works(run: Psql, web_url: str, tmp_path: Path) -> None:
    parts = {**conninfo_to_dict(web_url), "sslpassword": "hunter2"}
    lines = [f"{name}={value}\n" for name, value in parts.items()]
    (tmp_path / "services").write_text("[mine]\n" + "".join(lines))
    settings = {"PGSERVICEFILE": str(tmp_path / "services"), "DATABASE_URL": "service=mine"}

    assert run("-Atc", DATABASE, **settings).stdout == "jobrunner web_login\n"
    arguments = run("-c", r"\! tr '\0' '\n' < /proc/$PPID/cmdline", **settings).stdout
    assert arguments.splitlines()[1] == "service=mine"


def test_without_a_database_it_says_how_to_get_one(run: Psql, tmp_path: Path) -> None:
    done = run(DATABASE_URL="", JOBRUNNER_HOME=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr == (
        "Error: DATABASE_URL is not set and no embedded PostgreSQL runs in"
        f" {tmp_path}: set it, or start one with `jobrunner up`\n"
    )


def test_where_there_is_no_psql_at_all_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_binaries() -> Path:
        raise EmbeddedError

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binaries, "find_binaries", find_binaries)

    with pytest.raises(JobrunnerError, match="install PostgreSQL's client"):
        psql.find_psql()


# Before a person: a few shortcuts.


@pytest.fixture(params=[15, 16, 17, 18])
def bin_folder(request: pytest.FixtureRequest) -> Path:
    """The folder of a psql of each version that is on this machine."""
    try:
        folder = binaries.find_binaries(request.param)
    except EmbeddedError:
        pytest.skip(f"PostgreSQL {request.param} is not on this machine")
    if not (folder / "psql").exists():
        pytest.skip(f"psql {request.param} is not on this machine")
    return folder


@pytest.fixture
def at_terminal(web_url: str, tmp_path: Path) -> Callable[..., str]:
    """Runs ``jobrunner psql`` on a terminal, types lines, and gives all that is shown."""

    def at_terminal(lines: Sequence[str], *arguments: str, **changes: str) -> str:
        here, there = pty.openpty()
        env = os.environ | {
            "DATABASE_URL": web_url,
            "HOME": str(tmp_path),
            "PSQL_HISTORY": "/dev/null",
            "PSQL_PAGER": "cat",
            "TERM": "dumb",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "jobrunner", "psql", *arguments],
            stdin=there, stdout=there, stderr=there, env=env | changes, start_new_session=True,
        )  # fmt: skip
        os.close(there)
        os.write(here, "".join(f"{line}\n" for line in [*lines, r"\q"]).encode())
        try:
            return shown_on(here)
        finally:
            process.kill()
            process.wait()
            os.close(here)

    return at_terminal


def shown_on(terminal: int, seconds: float = 30) -> str:
    """Read until the other side is closed."""
    shown, deadline = b"", monotonic() + seconds
    while select.select([terminal], [], [], max(0, deadline - monotonic()))[0]:
        try:
            part = os.read(terminal, 4096)
        except OSError:  # what Linux says at the end
            part = b""
        if not part:
            return shown.decode().replace("\r", "")
        shown += part
    raise AssertionError(f"it did not end: {shown.decode()}")


def test_each_psql_knows_the_shortcuts_and_says_so_in_one_line(
    at_terminal: Callable[..., str], bin_folder: Path, jobs: Jobs
) -> None:
    jobs.add()
    jobs.add(status="failed")

    shown = at_terminal(
        [":queues", ":failures", r"\echo it is :VERSION_NUM"],
        PATH=f"{bin_folder}:{os.environ['PATH']}",
    )

    assert shown.count(shortcuts.HINT) == 1
    assert re.search(r"\n sentiment \| +1 \| +0 \| +0 \|", shown)
    assert re.search(r"\n sentiment \| model_error \| it broke \| +1 \|", shown)
    assert f"it is {binaries.major_version(bin_folder)}" in shown
    assert "ERROR" not in shown


@pytest.mark.parametrize("name", shortcuts.SHORTCUTS)
def test_a_shortcut_is_a_query_that_works(run: Psql, name: str) -> None:
    query = " ".join(shortcuts.SHORTCUTS[name].split())

    done = run("-c", query)

    assert (done.returncode, done.stderr) == (0, "")
    assert f":{name}" in shortcuts.HINT
    assert f":{name}" in (psql_command.help or "")


def test_who_waits_for_a_lock_is_shown_with_who_holds_it(
    run: Psql, owner_url: str, jobs: Jobs
) -> None:
    job_id = jobs.add()
    query = " ".join(shortcuts.SHORTCUTS["locks"].split())
    touch = sql.SQL("update job set priority = 1 where id = {}").format(job_id)
    seconds = f"set lock_timeout = '{PATIENCE_SECONDS}s'"

    def shown() -> list[str]:
        return run("-Atc", query, DATABASE_URL=owner_url).stdout.splitlines()

    with psycopg.connect(owner_url) as holder, psycopg.connect(owner_url) as waiting:
        holder.execute(touch)
        waiting.execute(seconds)
        waiter = Thread(target=waiting.execute, args=[touch])
        waiter.start()
        try:
            [line] = wait_for(shown, "somebody waits")
        finally:
            holder.rollback()
            waiter.join()

        parts = line.split("|")
        assert [parts[0], parts[3]] == [str(each.info.backend_pid) for each in (waiting, holder)]
        assert parts[2].startswith("update job set priority = 1")
        assert parts[5] == "idle in transaction"
    assert shown() == []


def test_the_user_s_own_psqlrc_is_read_and_has_the_last_word(
    at_terminal: Callable[..., str], tmp_path: Path
) -> None:
    (tmp_path / ".psqlrc").write_text("\\set queues 'select 6 * 7;'\n\\echo from my file\n")

    shown = at_terminal([":queues", ":slow"])

    assert "from my file" in shown
    assert re.search(r"\n +42\n", shown)
    assert "live_rows" in shown


def test_an_argument_of_the_user_s_has_the_last_word_as_well(
    at_terminal: Callable[..., str],
) -> None:
    shown = at_terminal([":queues"], "-X", "-v", "queues=select 6 * 7;")

    assert re.search(r"\n +42\n", shown)


def test_what_is_shown_goes_through_the_user_s_pager(
    at_terminal: Callable[..., str], tmp_path: Path
) -> None:
    pager = tmp_path / "pager"
    pager.write_text("#!/bin/sh\nsed 's/^/through my pager: /'\n")
    pager.chmod(0o755)

    shown = at_terminal([r"\pset pager always", ":queues"], PSQL_PAGER=str(pager))

    assert "through my pager:  sentiment" in shown


def test_a_quiet_psql_has_the_shortcuts_and_no_hint(at_terminal: Callable[..., str]) -> None:
    shown = at_terminal([":slow"], "-q")

    assert "live_rows" in shown
    assert "Type :queues" not in shown


@pytest.mark.parametrize(
    "arguments",
    [
        ("-c", "select 1"),
        ("-Atcselect 1",),
        ("-At", "--command", "select 1"),
        ("--comm=select 1",),
        ("-f", "/dev/null"),
        ("-l",),
        ("--version",),
        ("--help",),
        ("-?",),
    ],
)
def test_psql_that_is_told_what_to_do_has_nothing_of_it(
    at_terminal: Callable[..., str], arguments: Sequence[str]
) -> None:
    shown = at_terminal([], *arguments)

    assert "Type :queues" not in shown
    assert shortcuts.for_psql(arguments) == []


def test_through_a_pipe_there_is_nothing_of_it(run: Psql, web_url: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "psql", "-AtX"],
        input="select 'one';\n\\echo :queues\n",
        capture_output=True,
        text=True,
        env=os.environ | {"DATABASE_URL": web_url},
        timeout=30,
    )

    assert (done.returncode, done.stdout, done.stderr) == (0, "one\n:queues\n", "")


def test_an_option_that_psql_does_not_know_is_left_to_psql(at_terminal: Callable[..., str]) -> None:
    shown = at_terminal([], "--no-such-option")

    assert "no-such-option" in shown
    assert "Type :queues" not in shown
