"""Where the time goes: the parts of a start, the processor time of a job, what a busy runner does,
and what a statement of one job reads and writes."""

import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Any, LiteralString
from uuid import uuid4

import psycopg

from benchmarks import drain, latency, queues
from benchmarks.growth import READY, RUNNERS_JOBS, children
from benchmarks.queues import python
from benchmarks.queues.jobrunner import SUBMIT, Jobrunner
from benchmarks.signals import Ear, ear
from benchmarks.statements import RESULT, RUNNER, runner
from benchmarks.system import wait_for, worked_by
from benchmarks.traced import MARKS, MARKS_VARIABLE
from jobrunner import queue as statements

STARTS = 300
RUNNERS = 2
DEEP = 20_000
# How often, and for how many seconds of a drain.
SAMPLES_A_SECOND, SAMPLED_SECONDS = 500, 2
# Of the functions of the runner, those that take most.
SHOWN = 12
TURN = "Runner._turn"
SESSIONS = """
    select pid
    from pg_stat_activity
    where
        datname = current_database()
        and application_name like 'jobrunner %'
"""
RUNNERS_PIDS = "select pid from runner where lost_at is null order by id"
EXPLAIN: LiteralString = "explain (analyze, buffers, wal, timing off, format json) "


class Traced(Jobrunner):
    """This system, with a runner that tells when it has done what."""

    name = "jobrunner, traced"

    def commands(self, processes: int) -> list[list[str]]:
        return [
            python("benchmarks.traced", "start", "--model", self.model, "--workers", "1")
        ] * processes


def missing() -> str | None:
    """Say what it would need that is not there, if anything."""
    return None if shutil.which("py-spy", path=_path()) else "the program py-spy"


def parts(queue: Traced, starts_ear: Ear) -> dict[str, float]:
    """How long each part of a start takes, at the median, in seconds."""
    queue.forget()
    starts: list[latency.Start] = []
    marks: list[tuple[float, ...]] = []
    with ear(MARKS_VARIABLE) as listener, queue.running(1):
        queues.rest()
        for _ in range(STARTS):
            # One at a time, lest too many marks lie there.
            starts += latency.measure(queue.submit, starts_ear, 1, warm_up=0)
            marks.append(MARKS.unpack(listener.receive(MARKS.size)))
    told = [
        (start.called, start.committed, *mark, start.started)
        for start, mark in zip(starts, marks, strict=True)
    ][latency.WARM_UP :]
    names = (
        "the client: from the call to the commit",
        "the runner: until its claim is sent",
        "PostgreSQL: until the claim is answered",
        "the runner: until the job is with a worker",
        "the worker: until the model is called",
    )
    columns = [*zip(*told, strict=True)]
    return {
        name: median(
            then - now for now, then in zip(columns[place], columns[place + 1], strict=True)
        )
        for place, name in enumerate(names)
    }


def work(queue: Jobrunner) -> dict[str, float]:
    """How many seconds a processor works for a job of a drain, by whom."""
    queue.forget()
    with queue.running(RUNNERS):
        wait_for(lambda: queue.connection.execute(READY).rowcount == RUNNERS, "the runners")
        runners = _pids(queue)
        who = {
            "PostgreSQL, for the runners": [row[0] for row in queue.connection.execute(SESSIONS)],
            "the runners": runners,
            "the workers": [child for pid in runners for child in children(pid)],
        }
        before = {name: sum(map(worked_by, pids)) for name, pids in who.items()}
        queue.fill(RUNNERS_JOBS)
        drain.wait_until_empty(queue, RUNNERS_JOBS)
        return {
            name: (sum(map(worked_by, pids)) - before[name]) / RUNNERS_JOBS
            for name, pids in who.items()
        }


def functions(queue: Jobrunner) -> dict[str, float]:
    """The share of a busy runner's time that each of its functions takes, with what it calls of
    libraries."""
    queue.forget()
    queue.fill(RUNNERS_JOBS)
    with TemporaryDirectory() as folder, queue.running(RUNNERS):
        wait_for(lambda: queue.left() < RUNNERS_JOBS, "the first job")
        pid, *_ = _pids(queue)
        output = Path(folder) / "stacks"
        options = ["-r", str(SAMPLES_A_SECOND), "-d", str(SAMPLED_SECONDS), "-f", "raw"]
        command = ["py-spy", "record", *options, "-o", str(output), "-p", str(pid)]
        subprocess.run(command, env=os.environ | {"PATH": _path()}, check=True, capture_output=True)
        return shares(output.read_text())


def shares(stacks: str) -> dict[str, float]:
    """Of stacks as ``py-spy record -f raw`` writes them, the functions of the runner that take
    most, with their share of all below its turn."""
    seen: Counter[str] = Counter()
    whole = 0
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [frame.partition(" (")[0] for frame in frames.split(";") if "jobrunner/" in frame]
        if TURN in names:
            whole += int(count)
            seen[names[-1]] += int(count)
    return {name: count / whole for name, count in seen.most_common(SHOWN)}


def statements_of_one_job(queue: Jobrunner) -> Iterator[tuple[str, str, float]]:
    """What PostgreSQL reads and writes for one job in a deep queue: a statement, what, how much."""
    queue.forget()
    queue.fill(DEEP)
    queue.connection.execute("vacuum analyze job")
    token = str(uuid4())
    begin = {f"from_{name}": value for name, value in statements.FRONT._asdict().items()}
    claim = {
        "runner": RUNNER, "model": "sentiment", "slots": 1, "ahead": False,
        "lease_token": token, "spent": [], **begin,
    }  # fmt: skip
    # After a rollback psycopg deallocates all statements of a session, and so those of the queue's.
    with psycopg.connect(queue.url, autocommit=True) as own, psycopg.ClientCursor(own) as cursor:
        yield from _explained(cursor, "insert", SUBMIT, {})
    with runner(queue.url) as connection, psycopg.ClientCursor(connection) as cursor:
        yield from _explained(cursor, "claim", statements.CLAIM, claim)
        [(job_id, *_)] = cursor.execute(statements.CLAIM, claim).fetchall()
        complete = {
            "ids": [job_id], "lease_tokens": [token], "results": f"[{RESULT}]", "version": "1",
            "batch_sizes": [1], "seconds": [0.001],
        }  # fmt: skip
        yield from _explained(cursor, "outcome", statements.COMPLETE, complete)


def _explained(
    cursor: psycopg.ClientCursor[Any],
    name: str,
    statement: LiteralString,
    values: Mapping[str, Any],
) -> Iterator[tuple[str, str, float]]:
    # Twice, and undone: what a session reads at first is not the statement's.
    for _ in range(2):
        cursor.execute("begin")
        [([explained],)] = cursor.execute(EXPLAIN + statement, values).fetchall()
        cursor.execute("rollback")
    plan = explained["Plan"]
    yield name, "pages looked at", plan["Shared Hit Blocks"] + plan["Shared Read Blocks"]
    yield name, "bytes of WAL", plan["WAL Bytes"]
    yield name, "records of WAL", plan["WAL Records"]


def _pids(queue: Jobrunner) -> list[int]:
    """The runners that work."""
    return [row[0] for row in queue.connection.execute(RUNNERS_PIDS)]


def _path() -> str:
    """Where programs are, those of this environment as well."""
    return f"{Path(sys.executable).parent}:{os.environ.get('PATH', '')}"
