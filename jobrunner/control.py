"""Starting and stopping runners from outside."""

import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Event
from time import monotonic
from typing import BinaryIO

from jobrunner import heartbeat, queue
from jobrunner.database import BoundedConnection, display
from jobrunner.errors import JobrunnerError, NotStopped, RunnerNotFound
from jobrunner.judge import Judge
from jobrunner.settings import child_environment

START_SECONDS = 60.0
LOOK_SECONDS = 0.1

# What to do with a line for the person who waits.
Report = Callable[[str], None]
# What to do with the figures: how many of how many are gone.
Tell = Callable[[int, int], None]


def start_detached(
    connection: BoundedConnection, arguments: Sequence[str], url: str, log: Path
) -> str | None:
    """Start a runner that outlives this process; return its id once it is ready.

    None when it has drained the queue before that.

    :raises JobrunnerError: when it fails before that, with the last line of its log.
    """
    process = _launch(arguments, url, log)
    try:
        if runner := _await_ready(connection, process):
            return runner
        if process.poll() == 0:
            return None
        raise JobrunnerError(f"the runner did not start: {_last_line(log)} (see {display(log)})")
    except BaseException:
        process.terminate()
        process.wait()
        raise


def stop(
    connection: BoundedConnection,
    wanted: str | None,
    *,
    now: bool,
    seconds: float,
    report: Report,
    tell: Tell = lambda gone, total: None,
) -> None:
    """Ask one runner (by its id or the beginning of it), or all, to stop; wait until they have.

    A runner that turns out to be dead is declared lost, and its jobs are freed.

    :raises RunnerNotFound: when there is none of that name.
    :raises NotStopped: when one is still there after so many seconds.
    """
    left = _asked(connection, wanted, now)
    if not left:
        report("no runner is there to be stopped")
        return
    judge, deadline, total = Judge(), monotonic() + seconds, len(left)
    while left := _still_there(connection, judge, left, report):
        if monotonic() > deadline:
            raise NotStopped(
                f"after {seconds:g} s still running: {', '.join(left)};"
                " they finish what they hold, `--now` makes them hand it back"
            )
        tell(total - len(left), total)
        Event().wait(LOOK_SECONDS)


def find_ready(connection: BoundedConnection, pid: int) -> str | None:
    """Find the runner that is this process of this machine; None until its model is loaded."""
    host = os.uname().nodename
    for row in heartbeat.overview(connection):
        if (row["host"], row["pid"]) == (host, pid) and row["state"] in ("idle", "working"):
            return str(row["runner"])
    return None


def _asked(connection: BoundedConnection, wanted: str | None, now: bool) -> list[str]:
    rows = heartbeat.overview(connection)
    runners = [row["runner"] for row in rows if row["state"] != "lost"]
    if wanted is not None:
        if not wanted:
            raise RunnerNotFound("an empty id names no runner: `jobrunner status` lists them")
        exact = [runner for runner in runners if runner == wanted]
        runners = exact or [runner for runner in runners if runner.startswith(wanted)]
        if not runners:
            raise RunnerNotFound(f"no runner is called {wanted}: `jobrunner status` lists them")
        if len(runners) > 1:
            raise RunnerNotFound(f"{len(runners)} runners begin with {wanted}: give more of the id")
    return heartbeat.request_stop(connection, runners, now=now)


def _still_there(
    connection: BoundedConnection, judge: Judge, runners: list[str], report: Report
) -> list[str]:
    """Tell which of them are still there; report those that are not."""
    if judge.sweep(connection, ""):
        queue.rescue(connection)
    states = {row["runner"]: row["state"] for row in heartbeat.overview(connection)}
    left = [name for name in runners if states.get(name, "stopped") not in ("stopped", "lost")]
    for name in runners:
        if name not in left:
            report(f"runner {name} {'was dead' if name in states else 'has stopped'}")
    return left


def _launch(arguments: Sequence[str], url: str, log: Path) -> subprocess.Popen[bytes]:
    """Start a runner in a session of its own, so that no terminal ends it."""
    with _open(log) as file:
        return subprocess.Popen(
            [sys.executable, "-m", "jobrunner", "start", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            start_new_session=True,
            env=child_environment({"DATABASE_URL": url}),
        )


def _await_ready(connection: BoundedConnection, process: subprocess.Popen[bytes]) -> str | None:
    deadline = monotonic() + START_SECONDS
    while monotonic() < deadline and process.poll() is None:
        if runner := find_ready(connection, process.pid):
            return runner
        Event().wait(LOOK_SECONDS)
    return None


def _open(log: Path) -> BinaryIO:
    try:
        log.parent.mkdir(parents=True, exist_ok=True)
        return log.open("ab")
    except OSError as error:
        raise JobrunnerError(
            f"{display(log)} can not be written ({error.strerror}):"
            " set JOBRUNNER_HOME to a folder of your own"
        ) from None


def _last_line(log: Path) -> str:
    lines = log.read_text(errors="replace").strip().splitlines()
    return lines[-1].removeprefix("Error: ") if lines else "it said nothing"
