"""`jobrunner status --watch`: a live board that leaves the terminal as it was."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from rich.console import Console

from helpers import Jobs, login_url
from jobrunner import board as board_module
from jobrunner import embedded
from jobrunner.board import Board
from jobrunner.cli.board import screenful, share
from jobrunner.cli.cells import brief, sparkline
from processes import environment
from terminal import Terminal

Db = psycopg.Connection[Any]

RUNNER = "here-1-abcd"
OPEN, CLOSED = "\x1b[?1049h", "\x1b[?1049l"
WATCH = ("status", "--watch", "--interval", "0.2")


@pytest.fixture
def terminal(runner_url: str) -> Iterator[Terminal]:
    with Terminal(*WATCH, env=environment(runner_url)) as terminal:
        yield terminal


# What it shows.


def test_it_shows_what_changes(jobs: Jobs, terminal: Terminal) -> None:
    terminal.wait_for("0 pending", "No runner: start one with `jobrunner start`.")

    jobs.add_runner(RUNNER)
    ids = [jobs.add(claimed_by=RUNNER, status="processing"), jobs.add()]
    jobs.add(status="failed")
    jobs.db.execute(
        "insert into job_progress (job_id, attempt, fraction, word) values (%s, 1, 0.5, 'half')",
        [ids[0]],
    )

    terminal.wait_for("1 pending", "1 running", RUNNER, "working", "model_error", "it broke", "50%")


def test_it_reads_all_that_there_is_to_know(jobs: Jobs) -> None:
    jobs.add_runner(RUNNER)
    failed = jobs.add(status="failed")
    jobs.db.execute(
        """
        insert into activity (
            model, minute, completed, failed, retried, released, rescued,
            waits, wait_seconds, inferences, inference_seconds
        )
        select
            'sentiment', date_trunc('minute', now()) - ago * interval '1 minute', completed,
            0, 0, 0, 0, counts, 0, counts, 0
        from
            (values (0, 7), (3, 9), (60, 99)) as done (ago, completed),
            (select array_fill(0::bigint, array[16])) as none (counts)
        """
    )

    board = board_module.read(jobs.db, failures=5)

    [queue] = board.queues
    # A minute may have begun meanwhile.
    assert queue["completed_by_minute"] in ([0] * 16 + [9, 0, 0, 7], [0] * 15 + [9, 0, 0, 7, 0])
    assert [runner["runner"] for runner in board.runners] == [RUNNER]
    assert [str(failure["job"]) for failure in board.failures] == [failed]


def many(count: int) -> Board:
    """A board of so many of each."""
    now, span = datetime.now(UTC), timedelta(seconds=5)
    queue = {
        "model": "sentiment-in-many-words", "pending": 123_456, "waiting_to_retry": 3,
        "processing": 2, "oldest_pending_age": span, "runners": 1, "workers": 2,
        "jobs_per_second": 12.5, "versions": ["v1"], "completed_by_minute": list(range(20)),
    }  # fmt: skip
    runner = {
        "runner": RUNNER, "state": "working", "host": "here", "pid": 1, "models": ["sentiment"],
        "workers": 2, "ready": 2, "busy": 2, "last_heartbeat_ago": span, "up_for": span,
        "completed": 1, "failed": 0, "jobs_per_second": 12.5, "inference_seconds": 1.0,
        "trouble": "it is in trouble\n" * 20, "versions": ["v1"], "memory_mb": 100,
    }  # fmt: skip
    progress = {
        "job": "01890a5d-ac96-774b-bcce-b302099a8057", "model": "sentiment", "percent": 50,
        "progress": "step " * 30, "running_for": span,
    }  # fmt: skip
    failure = {
        "job": progress["job"], "model": "sentiment", "code": "timeout",
        "message": "it broke\n" * 30, "attempt": 3, "finished_at": now,
    }  # fmt: skip
    return Board(now, [queue] * count, [runner] * count, [progress] * count, [failure] * count)


@pytest.mark.parametrize("columns", [20, 40, 80, 140, 300])
@pytest.mark.parametrize("lines", [5, 10, 24, 40])
@pytest.mark.parametrize("count", [0, 1, 100])
def test_it_fits_any_terminal(columns: int, lines: int, count: int) -> None:
    to = Console(width=columns, height=lines, force_terminal=True)

    drawn = to.render_lines(screenful(many(count), "no database " * 9, to), pad=False)

    assert len(drawn) == lines
    for line in drawn:
        assert sum(segment.cell_length for segment in line) <= columns


def test_what_a_screen_has_no_room_for_is_counted() -> None:
    to = Console(width=80, height=24, force_terminal=True, color_system=None)

    with to.capture() as captured:
        to.print(screenful(many(100), None, to))

    assert re.search(r"^… 9\d more", captured.get(), re.MULTILINE)


def test_lines_are_shared_out_so_that_each_table_has_some() -> None:
    assert share([100, 2, 100], 10) == [4, 2, 4]
    assert share([1, 1], 10) == [1, 1]
    assert share([3, 3], 0) == [0, 0]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (99, "99s"), (100, "1m"), (5999, "99m"), (6000, "1h40"), (200_000, "2d")],
)
def test_a_span_is_brief(seconds: int, text: str) -> None:
    assert brief(timedelta(seconds=seconds)) == text


def test_a_sparkline_is_as_high_as_its_highest() -> None:
    assert sparkline([0, 1, 50, 100]).plain == "▁▂▅█"
    assert sparkline([0, 0]).plain == "▁▁"


# How it ends.


@pytest.mark.parametrize("key", ["q", "\x03", "\x04"])
def test_a_key_ends_it_and_the_terminal_is_as_it_was(key: str, runner_url: str) -> None:
    with Terminal("--version", env=environment(runner_url)) as untouched:
        before = untouched.modes()
    with Terminal(*WATCH, env=environment(runner_url)) as terminal:
        terminal.wait_for("q or Ctrl-C ends")
        assert terminal.modes() != before
        terminal.press(key)

        assert terminal.end() == 0
        assert terminal.modes() == before
    assert terminal.raw.count(OPEN) == terminal.raw.count(CLOSED) == 1
    assert terminal.raw.rstrip().endswith(CLOSED)
    assert "Traceback" not in terminal.raw


def test_a_signal_ends_it_as_well(terminal: Terminal) -> None:
    terminal.wait_for("q or Ctrl-C ends")

    os.kill(terminal.pid, signal.SIGTERM)

    assert terminal.end() == 0
    assert terminal.raw.rstrip().endswith(CLOSED)


def test_ctrl_z_gives_the_terminal_back_for_a_while(terminal: Terminal) -> None:
    terminal.wait_for("q or Ctrl-C ends")
    modes = terminal.modes()

    terminal.press("\x1a")
    terminal.wait_for_code(CLOSED)
    assert os.WIFSTOPPED(os.waitpid(terminal.pid, os.WUNTRACED)[1])
    assert terminal.modes() != modes

    os.kill(terminal.pid, signal.SIGCONT)
    terminal.wait_for("q or Ctrl-C ends")
    assert terminal.modes() == modes
    terminal.press("q")
    assert terminal.end() == 0


def test_other_keys_are_nothing(terminal: Terminal) -> None:
    terminal.wait_for("q or Ctrl-C ends")

    terminal.press("x \x1b[A")
    terminal.wait_for("q or Ctrl-C ends")
    terminal.press("q")

    assert terminal.end() == 0


def test_it_follows_the_size_of_the_window(jobs: Jobs, terminal: Terminal) -> None:
    jobs.add_runner(RUNNER)
    terminal.wait_for("versions")
    assert "done a minute" not in terminal.text

    terminal.resize(140, 40)

    terminal.wait_for("done a minute")
    terminal.press("q")
    assert terminal.end() == 0


# A database that is away.


@pytest.mark.process
def test_it_says_that_the_database_is_away_and_goes_on_by_itself(
    own_server: embedded.Server,
) -> None:
    url, began, seconds = login_url(own_server.url, "runner_login"), monotonic(), 0
    with Terminal(*WATCH, env=environment(url)) as terminal:
        terminal.wait_for("0 pending")

        own_server.stop()
        while not seconds:
            terminal.wait_for("No figures for ", " s: ")
            seconds = int(re.findall(r"No figures for (\d+) s: ", terminal.text)[-1])
        assert seconds <= monotonic() - began
        own_server.start()

        terminal.wait_for("0 pending")
        terminal.press("q")
        assert terminal.end() == 0


def test_a_database_that_is_not_there_at_the_start_is_an_error(tmp_path: Path) -> None:
    env = environment("postgresql://127.0.0.1:1/x", JOBRUNNER_HOME=tmp_path)
    with Terminal(*WATCH, env=env) as terminal:
        assert terminal.end() == 1
    assert terminal.text.startswith("Error: the database does not answer")
    assert OPEN not in terminal.raw


# Not on a terminal.


def run(url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobrunner", *arguments],
        env=environment(url), capture_output=True, text=True, timeout=30,
    )  # fmt: skip


def test_into_a_pipe_it_says_what_to_do_instead(runner_url: str) -> None:
    done = run(runner_url, *WATCH)

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("Error: --watch wants a terminal: add --json")
    assert done.stderr.count("\n") == 1


def test_on_a_terminal_that_can_not_be_drawn_on_it_says_so_too(runner_url: str) -> None:
    with Terminal(*WATCH, env=environment(runner_url), kind="dumb") as terminal:
        assert terminal.end() == 2

    assert "--watch wants a terminal" in terminal.text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["status", "--interval", "2"], "--interval goes with --watch"),
        (["status", "--watch", "--interval", "0"], "from 0.2 to 3600"),
        (["status", "--watch", "--interval", "soon"], "a number of seconds"),
    ],
)
def test_an_interval_that_makes_no_sense_is_wrong_usage(
    arguments: list[str], said: str, runner_url: str
) -> None:
    done = run(runner_url, *arguments)

    assert done.returncode == 2
    assert said in done.stderr


@pytest.mark.process
def test_with_json_it_prints_a_line_each_time_also_of_a_database_that_is_away(
    own_server: embedded.Server,
) -> None:
    url = login_url(own_server.url, "runner_login")
    process = subprocess.Popen(
        [sys.executable, "-m", "jobrunner", *WATCH, "--json"],
        env=environment(url), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert process.stdout
    try:
        lines = map(json.loads, process.stdout)
        first = next(lines)
        assert first.keys() == {"at", "queues", "runners", "progress", "failures"}
        assert next(lines)["at"] > first["at"]
        own_server.stop()
        assert next(line for line in lines if "error" in line).keys() == {"at", "error"}
        own_server.start()
        assert next(line for line in lines if "queues" in line)["queues"]
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 0
        assert process.stderr
        assert process.stderr.read() == ""
    finally:
        process.kill()
        process.communicate()
