"""What a person at a terminal sees: tables as wide as that, colours, bars, and no tricks."""

import json
import re
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from helpers import Jobs
from jobrunner.cli.safe import safe
from processes import environment
from terminal import Terminal

Db = psycopg.Connection[Any]
OnTerminal = Callable[..., Terminal]

# Controls, a line of its own, letters that turn around, marks that rich takes for styles.
HOSTILE = "\x1b[2J\x07\x9b31m [red]red[/red] :smile: \u202eevil\u2066 a\nb\u2028c"


@pytest.fixture
def on_terminal(runner_url: str) -> OnTerminal:
    def on_terminal(*arguments: str, columns: int = 80, **settings: object) -> Terminal:
        env = environment(runner_url, **settings)
        env.pop("NO_COLOR", None)
        env |= {name: str(value) for name, value in settings.items()}
        with Terminal(*arguments, env=env, columns=columns) as terminal:
            terminal.end()
        return terminal

    return on_terminal


def piped(url: str, *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "jobrunner", *arguments],
        env=environment(url), capture_output=True, text=True, timeout=30, check=True,
    ).stdout  # fmt: skip


# Tables.


@pytest.mark.parametrize("columns", [80, 200])
def test_a_list_is_coloured_and_as_wide_as_the_terminal(
    columns: int, jobs: Jobs, on_terminal: OnTerminal
) -> None:
    ids = [jobs.add(), jobs.add(status="failed", claimed_by="a-runner-with-a-long-name-1-abcd")]

    terminal = on_terminal("list", columns=columns)

    assert terminal.code == 0
    assert terminal.is_coloured
    assert max(map(len, terminal.text.splitlines())) <= columns
    for job_id in ids:
        assert job_id in terminal.text
    assert ("a-runner-with-a-long-name-1-abcd" in terminal.text) == (columns > 80)


def test_a_narrow_terminal_still_has_the_whole_id(jobs: Jobs, on_terminal: OnTerminal) -> None:
    job_id = jobs.add()

    terminal = on_terminal("list", columns=60)

    assert job_id in terminal.text
    assert max(map(len, terminal.text.splitlines())) <= 60


@pytest.mark.parametrize("columns", [40, 30])
def test_where_the_id_leaves_no_room_it_goes_on_in_the_next_line(
    columns: int, jobs: Jobs, on_terminal: OnTerminal
) -> None:
    job_id = str(jobs.add())

    lines = on_terminal("list", columns=columns).text.splitlines()

    assert lines[0].split() == ["job", "status", "model", "age"]
    assert "".join(line.split(" ")[0] for line in lines[1:]) == job_id
    assert max(map(len, lines)) <= columns


def test_a_very_narrow_terminal_still_has_the_values(jobs: Jobs, on_terminal: OnTerminal) -> None:
    job_id = str(jobs.add())

    lines = on_terminal("show", job_id, columns=16).text.splitlines()

    values = lines[0].index(job_id[0], len("id"))
    assert "".join(line[values:].strip() for line in lines).startswith(f"{job_id}sentiment")


@pytest.mark.parametrize(
    "command", [["list"], ["status"], ["migrate", "--status"], ["doctor"]], ids=" ".join
)
def test_no_color_is_honoured(command: list[str], jobs: Jobs, on_terminal: OnTerminal) -> None:
    jobs.add()

    assert on_terminal(*command).is_coloured
    assert not on_terminal(*command, NO_COLOR="1").is_coloured


def test_a_pipe_gets_no_codes_and_all_that_there_is(jobs: Jobs, runner_url: str) -> None:
    name = "a-runner-with-a-very-long-name-of-many-many-letters-and-more-of-them-1-abcd"
    jobs.add(status="failed", claimed_by=name)
    jobs.add_runner(name)
    jobs.db.execute("update runner set trouble = %s", ["x" * 300])

    listed, status = piped(runner_url, "list"), piped(runner_url, "status")

    assert "\x1b" not in listed + status
    assert name in listed
    assert name in status
    assert "x" * 300 in status
    assert "versions" in status


def test_status_on_a_terminal_has_what_failed_last(jobs: Jobs, on_terminal: OnTerminal) -> None:
    jobs.add_runner("here-1-abcd")
    jobs.add(status="failed")
    jobs.db.execute(
        """
        insert into runner_model (runner, model, version, workers)
        values ('here-1-abcd', 'sentiment', 'v7', 2)
        """
    )

    text = on_terminal("status", columns=120).text

    assert re.search(r"^sentiment +0 .* v7", text, re.MULTILINE)
    assert re.search(r"^here-1-abcd +idle +2/2 .* sentiment v7", text, re.MULTILINE)
    assert re.search(r"sentiment +model_error +it broke", text)


def test_keys_are_a_table_as_well(db: Db, on_terminal: OnTerminal, owner_url: str) -> None:
    url = owner_url
    piped(url, "keys", "create", "shop")

    text = on_terminal("keys", "list", DATABASE_URL=url).text

    assert re.search(r"^[0-9a-f]{8} +shop +no +- ", text, re.MULTILINE)


def test_without_runners_and_jobs_status_says_how_to_begin(db: Db, on_terminal: OnTerminal) -> None:
    assert "No runner: start one with `jobrunner start`." in on_terminal("status").text


# Texts.


def test_no_text_steers_a_terminal_or_is_taken_for_a_style(
    jobs: Jobs, on_terminal: OnTerminal, runner_url: str
) -> None:
    job_id = jobs.add(HOSTILE, status="failed")
    error = json.dumps({"code": "model_error", "message": HOSTILE, "retryable": True})
    with jobs.db.transaction():
        jobs.db.execute("set local session_replication_role = replica")
        jobs.db.execute("update job set error = %s", [error])
    jobs.add_runner("here-1-abcd")
    jobs.db.execute("update runner set trouble = %s", [HOSTILE])

    for command in (["show", job_id], ["status"], ["doctor"]):
        terminal = on_terminal(*command, columns=300)
        assert r"\u001b[2J\u0007\u009b31m [red]red[/red] :smile: \u202eevil" in terminal.text
        assert not re.search("[\x07\x9b\u202e\u2066\u2028]|\x1b\\[2J", terminal.raw)
    for command in (["show", job_id], ["status"], ["show", job_id, "--json"]):
        text = piped(runner_url, *command)
        assert not re.search("[\x1b\x07\x9b\u202e\u2066\u2028]", text)


def test_what_an_old_encoding_has_no_letter_for_is_no_traceback(
    jobs: Jobs, runner_url: str
) -> None:
    job_id = jobs.add("schön ☃")

    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "show", job_id],
        env=environment(runner_url, PYTHONIOENCODING="latin1"), capture_output=True, timeout=30,
    )  # fmt: skip

    assert (done.returncode, done.stderr) == (0, b"")
    assert r"schön \u2603" in done.stdout.decode("latin1")


def test_json_that_is_made_safe_says_the_same() -> None:
    value = {"text": HOSTILE}

    assert json.loads(safe(json.dumps(value, ensure_ascii=False))) == value


# Bars.


def test_a_long_command_has_a_bar_that_is_gone_in_the_end(
    jobs: Jobs, on_terminal: OnTerminal
) -> None:
    for _ in range(3):
        jobs.add(status="completed", finished="8 days")

    terminal = on_terminal("cleanup", "--older-than", "7d")

    assert "Deleting ━" in terminal.text
    assert "3/3" in terminal.text
    assert terminal.raw.rstrip().endswith("Deleted 3 jobs.")
    assert "\x1b[?25h" in terminal.raw


def test_who_waits_for_runners_to_stop_sees_how_many_are_gone(jobs: Jobs, runner_url: str) -> None:
    jobs.add_runner("here-1-busy")

    command = "stop", "--all", "--timeout", "600"
    with Terminal(*command, env=environment(runner_url)) as terminal:
        terminal.wait_for("Stopping ━", "0/1")
        jobs.db.execute("delete from runner")

        assert terminal.end() == 0
    assert "runner here-1-busy has stopped" in terminal.text


def test_who_waits_for_too_long_is_told_who_is_still_there(
    jobs: Jobs, on_terminal: OnTerminal
) -> None:
    jobs.add_runner("here-1-busy")

    terminal = on_terminal("stop", "--all", "--timeout", "0.5")

    assert "still running: here-1-busy" in terminal.text


# What it costs.


@pytest.mark.parametrize("module", ["jobrunner.cli", "jobrunner.worker", "jobrunner.runner"])
def test_the_library_that_draws_is_not_imported_before_there_is_a_terminal(module: str) -> None:
    code = f"import sys, {module}; print([name for name in sys.modules if 'rich' in name])"

    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)

    assert done.stdout == "[]\n"
