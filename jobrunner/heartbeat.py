"""The life of a runner: its row, and its beats. How others judge it: see judge.py."""

import os
import secrets
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

Connection = psycopg.Connection[Any]

REGISTER = """
    insert into runner (id, host, pid, version, models, workers, lease)
    values (
        %(id)s, %(host)s, %(pid)s, %(version)s, %(models)s, %(workers)s,
        make_interval(secs => %(lease_seconds)s)
    )
"""

REGISTER_MODEL = "insert into model (name) values (%(name)s) on conflict (name) do nothing"

BEAT = """
    update runner
    set
        heartbeat_at = clock_timestamp(),
        has_lock = %(has_lock)s,
        ready_workers = %(ready_workers)s,
        completed = %(completed)s,
        failed = %(failed)s,
        jobs_per_second = %(jobs_per_second)s,
        inference_seconds = %(inference_seconds)s,
        trouble = %(trouble)s
    where
        id = %(id)s
        and lost_at is null
    returning
        stop_requested_at is not null as stop,
        stop_now as now,
        extract(epoch from clock_timestamp())::float8 as clock
"""

SLEEP = "update runner set sleeping = %(sleeping)s where id = %(id)s and lost_at is null"

SIGN_OFF = "delete from runner where id = %(id)s"

REQUEST_STOP = """
    update runner
    set
        stop_requested_at = coalesce(stop_requested_at, clock_timestamp()),
        stop_now = stop_now or %(now)s
    where
        id = any(%(ids)s)
        and lost_at is null
    returning id
"""

OVERVIEW = """
    select
        runner, state, host, pid, models, workers, ready, busy, last_heartbeat_ago, up_for,
        completed, failed, jobs_per_second, inference_seconds, trouble
    from runner_overview
"""

DELETE_LOST = "delete from runner where lost_at < now() - interval '1 day'"


@dataclass(frozen=True)
class Pulse:
    """What a runner says of itself at each beat."""

    has_lock: bool
    ready_workers: int
    completed: int
    failed: int
    jobs_per_second: float
    inference_seconds: float | None
    trouble: str | None = None


@dataclass(frozen=True)
class Answer:
    """What the row of a runner says to it: whether to stop, and to do so at once.

    ``clock`` is the database's, in seconds since the epoch.
    """

    stop: bool
    now: bool
    clock: float


def new_id() -> str:
    """Make an id that a person can place: host-pid-random."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def register_model(connection: Connection, model: str) -> None:
    """Make a model known, so that the web takes jobs for it from now on."""
    connection.execute(REGISTER_MODEL, {"name": model})


def register(
    connection: Connection, runner: str, *, model: str, workers: int, lease_seconds: float
) -> None:
    """Insert the row of a runner."""
    connection.execute(
        REGISTER,
        {
            "id": runner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": metadata.version("jobrunner"),
            "models": [model],
            "workers": workers,
            "lease_seconds": lease_seconds,
        },
    )


def beat(connection: Connection, runner: str, pulse: Pulse) -> Answer | None:
    """Give a sign of life; None when another runner has found us dead."""
    with connection.cursor(row_factory=class_row(Answer)) as cursor:
        return cursor.execute(BEAT, vars(pulse) | {"id": runner}).fetchone()


def set_sleeping(connection: Connection, runner: str, sleeping: bool) -> None:
    """Ask for a notification at the next insert, or say that none is needed."""
    connection.execute(SLEEP, {"id": runner, "sleeping": sleeping})


def sign_off(connection: Connection, runner: str) -> None:
    """Delete the row: the runner has stopped and holds nothing."""
    connection.execute(SIGN_OFF, {"id": runner})


def request_stop(connection: Connection, runners: Sequence[str], *, now: bool) -> list[str]:
    """Ask runners to stop; return the ids of those that are there to hear it."""
    cursor = connection.execute(REQUEST_STOP, {"ids": list(runners), "now": now})
    return [row[0] for row in cursor]


def overview(connection: Connection) -> list[dict[str, Any]]:
    """Read the view ``runner_overview``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(OVERVIEW).fetchall()


def delete_lost(connection: Connection) -> int:
    """Delete the rows of runners that were lost more than a day ago; return how many."""
    return connection.execute(DELETE_LOST).rowcount
