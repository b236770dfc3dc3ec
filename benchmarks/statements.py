"""What a claim and an outcome cost PostgreSQL, and what a notification costs an insert.

Beside the tables as they are, tables in which one thing is otherwise: what was changed is
measured against what it was before.
"""

import re
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import Any
from uuid import uuid4

import psycopg

from benchmarks import raw
from benchmarks.drain import used
from benchmarks.queues import execute
from benchmarks.queues.jobrunner import Jobrunner
from benchmarks.system import wait_for
from jobrunner import database, heartbeat, queue
from jobrunner.heartbeat import Pulse
from jobrunner.links import PLANNING
from jobrunner.listener import HOLD_LOCK
from jobrunner.outcome import Job, Outcome
from jobrunner.statement import Statement

Connection = psycopg.Connection[Any]
# Slots, the place to begin at, the lease token of the last claim.
Claims = Callable[[Connection, int, queue.Place, str], list[Job]]

JOBS = 20_000
BATCH = 200
SINGLE = 200
RUNNER = "bench-1-abcd"
RESULT = '{"sentiment": "positive", "confidence": 0.5}'
CLIENTS = 16
INSERT_SECONDS = 4

# One job at a time, in a deep queue: as it is, and as it was.
AS_IT_IS, BY_A_CURSOR = "as it is", "by a cursor of psycopg"
PLANNED_EACH_TIME = "planned each time"
RULES_AS_CHECKS = "rules as 15 CHECKs (until migration 0015)"
NOT_NOTED = "claims not noted (until migration 0032)"
WAITED_FOR = "claims waited for until on disk (until migration 0037)"
SINGLES = (AS_IT_IS, BY_A_CURSOR, PLANNED_EACH_TIME, RULES_AS_CHECKS, NOT_NOTED, WAITED_FOR)

# Name, what to change first, and what to change back.
VARIANTS: dict[str, tuple[Sequence[str], Sequence[str]]] = {
    "as it is": ((), ()),
    "full pages (fillfactor 100)": (
        ["alter table job set (fillfactor = 100)"],
        ["alter table job set (fillfactor = 50)"],
    ),
    "no trigger": (
        ["alter table job disable trigger job_makes_legal_moves_only"],
        ["alter table job enable trigger job_makes_legal_moves_only"],
    ),
}
# A claim as it was before: what is taken out of it now.
BEFORE = {
    NOT_NOTED: re.compile(r",\s+noted as.*?(?=\s+update job)", re.DOTALL),
    WAITED_FOR: re.compile(r"\s+and \(select set_config\(.*"),
}
CLAIMS_BEFORE = {
    variant: Statement(f"claim_{number}", part.sub("", queue.CLAIM))
    for number, (variant, part) in enumerate(BEFORE.items())
}
ALIVE = "select from pg_stat_activity where pid = %s"
HOT = "select n_tup_upd, n_tup_hot_upd from pg_stat_user_tables where relname = 'job'"

NOTIFY_ALWAYS = [
    """
    create or replace function notify_always() returns trigger language plpgsql as $$
    begin
        perform pg_notify('job_submitted', '');
        return null;
    end $$
    """,
    "alter table job disable trigger job_wakes_sleeping_runners",
    """
    create trigger always after insert on job
    for each statement execute function notify_always()
    """,
]
NOTIFY_NEVER = ["alter table job disable trigger job_wakes_sleeping_runners"]
NOTIFY_AS_IT_IS = [
    "drop trigger if exists always on job",
    "alter table job enable trigger job_wakes_sleeping_runners",
]
SUBMIT = """insert into job (input) values ('{"text": "This product is amazing!"}');"""


def costs(ours: Jobrunner, variant: str) -> dict[str, float]:
    """Claim and complete a full queue with one connection: microseconds, bytes and hits a job."""
    before, after = VARIANTS[variant]
    ours.forget()
    execute(ours.url, before)
    try:
        ours.fill(JOBS)
        ours.connection.execute("vacuum analyze job")
        ours.connection.execute("select pg_stat_reset()")
        with runner(ours.url) as connection:
            wal, hits = used(ours.connection)
            claim, complete = _drain(connection, BATCH)
            pid = [connection.info.backend_pid]
        # It counts for itself, and adds what it has counted at its end.
        wait_for(lambda: not ours.connection.execute(ALIVE, pid).rowcount, "its end")
        wal, hits = (
            now - then for now, then in zip(used(ours.connection), (wal, hits), strict=True)
        )
        [(updates, hot)] = ours.connection.execute(HOT).fetchall()
        return {
            "claim, µs": claim / JOBS * 1e6,
            "complete, µs": complete / JOBS * 1e6,
            "WAL, bytes": wal / JOBS,
            "buffer hits": hits / JOBS,
            "heap-only updates, %": hot / updates * 100,
        }
    finally:
        execute(ours.url, after)


def single(ours: Jobrunner, variant: str) -> dict[str, float]:
    """Claim and complete jobs one by one in a deep queue: the median, in milliseconds.

    ``ours`` is to have the tables of the variant: see ``Checked``.
    """
    ours.forget()
    ours.fill(JOBS)
    ours.connection.execute("vacuum analyze job")
    claim = _claims(variant)
    with runner(ours.url, planned_once=variant != PLANNED_EACH_TIME) as connection:
        place, spent, claims, completes = queue.FRONT, "", [], []
        for _ in range(SINGLE):
            began = perf_counter()
            jobs = claim(connection, 1, place, spent)
            claimed = perf_counter()
            queue.complete(connection, [_outcome(job) for job in jobs])
            claims.append(claimed - began)
            completes.append(perf_counter() - claimed)
            place, spent = queue.place_of(jobs[-1]), jobs[-1].lease_token
    return {"claim, ms": median(claims) * 1000, "complete, ms": median(completes) * 1000}


def inserts(ours: Jobrunner, notify: str) -> float:
    """Inserts a second of 16 clients: with a notification "never", "as it is" (nobody sleeps),
    "to a sleeper", or "always"."""
    ours.forget()
    changes = {"never": NOTIFY_NEVER, "always": NOTIFY_ALWAYS}.get(notify, [])
    execute(ours.url, changes)
    try:
        with runner(ours.url) as connection:
            # It is to look alive: whoever inserts looks at its lock.
            connection.execute(HOLD_LOCK, [RUNNER])
            heartbeat.beat(connection, RUNNER, Pulse(has_lock=True, completed=0, failed=0))
            heartbeat.set_sleeping(connection, RUNNER, notify == "to a sleeper")
            return _pgbench(ours.url)
    finally:
        execute(ours.url, NOTIFY_AS_IT_IS)


def _pgbench(url: str) -> float:
    with TemporaryDirectory() as folder:
        script = Path(folder) / "insert.sql"
        script.write_text(SUBMIT)
        options = ["-n", "-M", "prepared", "-c", str(CLIENTS), "-T", str(INSERT_SECONDS)]
        command = [str(raw.pgbench()), *options, "-f", str(script), url]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    return raw.rate_said(done.stdout)


@contextmanager
def runner(url: str, planned_once: bool = True) -> Iterator[database.BoundedConnection]:
    """Connect as a runner does that is registered, and holds no lock yet."""
    session = PLANNING if planned_once else None
    with database.connect(url, role="job_runner", session=session) as connection:
        heartbeat.register(
            connection, RUNNER, models={"sentiment": 1}, lease_seconds=3600, wake_channel=RUNNER
        )
        try:
            yield connection
        finally:
            heartbeat.sign_off(connection, RUNNER)


def _drain(connection: psycopg.Connection, batch: int) -> tuple[float, float]:
    """The seconds that went into claims and into outcomes."""
    claiming = completing = 0.0
    place, spent = queue.FRONT, ""
    while True:
        began = perf_counter()
        jobs = _claim(connection, batch, place, spent)
        claimed = perf_counter()
        claiming += claimed - began
        if not jobs:
            return claiming, completing
        queue.complete(connection, [_outcome(job) for job in jobs])
        completing += perf_counter() - claimed
        place, spent = queue.place_of(jobs[-1]), jobs[-1].lease_token


def _claims(variant: str) -> Claims:
    """How that variant claims."""
    if variant in CLAIMS_BEFORE:
        return _claim_by(CLAIMS_BEFORE[variant])
    return _claim_by_a_cursor if variant == BY_A_CURSOR else _claim


def _claim(connection: Connection, slots: int, place: queue.Place, spent: str) -> list[Job]:
    tokens = [spent] if spent else []
    who = {"runner": RUNNER, "model": "sentiment"}
    return queue.claim(connection, **who, slots=slots, place=place, spent=tokens)


def _claim_by_a_cursor(
    connection: Connection, slots: int, place: queue.Place, spent: str
) -> list[Job]:
    values = _values(slots, place) | {"spent": [spent] if spent else []}
    rows = connection.execute(queue.CLAIM, values).fetchall()
    return [Job(job_id, values["lease_token"], "sentiment", *row) for job_id, *row in rows]


def _claim_by(statement: Statement) -> Claims:
    def claim(connection: Connection, slots: int, place: queue.Place, spent: str) -> list[Job]:
        values = _values(slots, place) | {"spent": f"{{{spent}}}"}
        rows = statement.rows(connection, values)
        token = values["lease_token"]
        return [
            Job(id, token, "sentiment", input, int(attempt), int(priority), float(at))
            for id, input, attempt, priority, at, _ in rows
        ]

    return claim


def _values(slots: int, place: queue.Place) -> dict[str, Any]:
    begin = {f"from_{name}": value for name, value in place._asdict().items()}
    who = {"runner": RUNNER, "model": "sentiment", "slots": slots, "ahead": False}
    return who | begin | {"lease_token": str(uuid4())}


def _outcome(job: Job) -> Outcome:
    return Outcome(job, 0.0, result=RESULT)
