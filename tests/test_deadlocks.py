"""Somebody locks two jobs in the other order than the runner, and PostgreSQL ends the runner's
statement: it is said again, and nothing is lost."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from helpers import Jobs, signs, wait_for
from jobrunner import embedded
from processes import TOLD, Process, System

pytestmark = pytest.mark.process

LOCK = "select from job where id = %s for update"

# Whom a connection of the runner for statements waits for.
BLOCKING = """
    select blocking
    from pg_stat_activity, unnest(pg_blocking_pids(pid)) as blocking
    where application_name like 'jobrunner %'
"""


@pytest.fixture
def postgres_options() -> dict[str, str]:
    """Deadlocks are looked for once in a wait: by then, on a slow machine too, there is one."""
    return {"deadlock_timeout": "4s"}


@pytest.fixture
def lockers(own_server: embedded.Server) -> Iterator[list[psycopg.Connection[Any]]]:
    """Two who do not look for deadlocks themselves, so that the runner's statement is ended."""
    with psycopg.connect(own_server.url) as one, psycopg.connect(own_server.url) as other:
        for locker in (one, other):
            locker.execute("set deadlock_timeout = '1h'")
            locker.commit()
        yield [one, other]


def two_in_hand(admin: psycopg.Connection[Any], text: str, max_attempts: int = 3) -> list[str]:
    """Two jobs that a runner has claimed."""
    jobs = Jobs(admin)
    with admin.transaction():
        ids = [str(jobs.add(text, max_attempts=max_attempts)) for _ in range(2)]
    wait_for(lambda: jobs.count("processing") == 2, "both are in hand")
    return ids


def stop(runner: Process) -> list[int]:
    """Stop a runner for a while, so that it takes all outcomes in one turn; give its workers."""
    runner.send(signal.SIGSTOP)
    wait_for(lambda: states(runner.pid) <= {"T"}, "it has stopped")
    return [int(line["pid"]) for line in runner.lines("worker_ready")]


def entangle(
    admin: psycopg.Connection[Any], lockers: list[psycopg.Connection[Any]], ids: list[str]
) -> None:
    """Let the runner's statement have one job, wait for the other, and then cross it."""
    first = waited_for(admin, lockers)
    second = next(locker for locker in lockers if locker is not first)
    first.rollback()
    assert waited_for(admin, lockers) is second

    second.execute(LOCK, [ids[lockers.index(first)]])
    second.rollback()


def waited_for(
    admin: psycopg.Connection[Any], lockers: list[psycopg.Connection[Any]]
) -> psycopg.Connection[Any]:
    """The locker for whom the runner waits."""
    [(pid,)] = wait_for(lambda: admin.execute(BLOCKING).fetchall(), "the runner waits for a job")
    return next(locker for locker in lockers if locker.info.backend_pid == pid)


def states(*pids: int) -> set[str]:
    """What processes do: T is stopped, S waits, Z is dead. Linux alone tells (proc_pid_stat(5))."""
    stats = (Path("/proc", str(pid), "stat") for pid in pids)
    return {stat.read_text().rpartition(")")[2].split()[0] for stat in stats if stat.exists()}


def was_ended(runner: Process) -> bool:
    return 'reason="deadlock detected"' in runner.log


def test_results_that_met_a_deadlock_are_written_at_the_next_try(
    services: System,
    admin: psycopg.Connection[Any],
    lockers: list[psycopg.Connection[Any]],
    tmp_path: Path,
) -> None:
    runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=60)
    go, begun = tmp_path / "go", tmp_path / "go.begun"
    ids = two_in_hand(admin, f"await {go}")
    wait_for(lambda: signs(begun) == 2, "both have begun")
    workers = stop(runner)
    go.touch()
    wait_for(lambda: signs(go) == 2, "both are about to answer")
    wait_for(lambda: states(*workers) <= {"S"}, "both have answered, and wait")
    for locker, job_id in zip(lockers, ids, strict=True):
        locker.execute(LOCK, [job_id])

    runner.send(signal.SIGCONT)
    entangle(admin, lockers, ids)

    for job_id in ids:
        assert Jobs(admin).wait(job_id, "completed")["attempt"] == 1
    assert was_ended(runner), runner.log
    wait_for(lambda: len(runner.lines("completed")) == 2, "both are logged")
    assert len(runner.lines("claimed")) == 2


def test_failures_that_met_a_deadlock_are_written_at_the_next_try(
    services: System,
    admin: psycopg.Connection[Any],
    lockers: list[psycopg.Connection[Any]],
    tmp_path: Path,
) -> None:
    runner = services.runner(*TOLD)
    begun = tmp_path / "begun"
    ids = two_in_hand(admin, f"mark {begun}", max_attempts=1)
    wait_for(lambda: signs(begun) == 2, "both have begun")
    workers = stop(runner)
    for pid in workers:
        os.kill(pid, signal.SIGKILL)
    wait_for(lambda: states(*workers) <= {"Z"}, "both are dead")
    for locker, job_id in zip(lockers, ids, strict=True):
        locker.execute(LOCK, [job_id])

    runner.send(signal.SIGCONT)
    entangle(admin, lockers, ids)

    for job_id in ids:
        row = Jobs(admin).wait(job_id, "failed")
        assert [error["code"] for error in row["errors"]] == ["worker_lost"]
    assert was_ended(runner), runner.log
    assert len(runner.lines("claimed")) == 2


def test_jobs_whose_return_met_a_deadlock_are_handed_back_before_the_runner_ends(
    services: System, admin: psycopg.Connection[Any], lockers: list[psycopg.Connection[Any]]
) -> None:
    # Its last words have 3 s, of which half are for the first wait.
    admin.execute("alter database jobrunner set deadlock_timeout = '1500ms'")
    runner = services.runner(MOCK_DELAY_SECONDS=60, JOBRUNNER_GRACE_SECONDS=0)
    ids = two_in_hand(admin, "good")
    for locker, job_id in zip(lockers, ids, strict=True):
        locker.execute(LOCK, [job_id])

    runner.send(signal.SIGTERM)
    entangle(admin, lockers, ids)

    assert runner.wait() == 0
    assert was_ended(runner), runner.log
    rows = [Jobs(admin).get(job_id) for job_id in ids]
    assert [(row["status"], row["attempt"], row["errors"]) for row in rows] == [
        ("pending", 0, []),
        ("pending", 0, []),
    ]
