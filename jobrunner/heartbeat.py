"""The life of a runner: its row, and its beats. How others judge it: see judge.py."""

import json
import os
import secrets
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import Any

import psycopg
from psycopg.rows import class_row, dict_row

from jobrunner.database import brief

Connection = psycopg.Connection[Any]

REGISTER = """
    with registered as (
        insert into runner (
            id, host, pid, version, models, workers, lease, wake_channel,
            notes_claims, answers_roll_call
        )
        values (
            %(id)s, %(host)s, %(pid)s, %(version)s, %(models)s, %(workers)s,
            make_interval(secs => %(lease_seconds)s), %(wake_channel)s,
            true, true
        )
        returning id
    ),

    present as (
        insert into roll_call (runner, may_claim)
        select
            id,
            not exists (select from missing_runner)
        from registered
    )

    insert into runner_model (runner, model, workers)
    select
        registered.id,
        served.model,
        served.workers
    from registered
    cross join jsonb_to_recordset(%(served)s::jsonb) as served (model text, workers smallint)
"""

# Not waited for until it is on disk: what a crash of the server forgets of it, the next one says.
BEAT = """
    with beat as (
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
            and (select set_config('synchronous_commit', 'off', true)) = 'off'
        returning
            id,
            stop_requested_at,
            stop_now
    )

    select
        stop_requested_at is not null as stop,
        stop_now as now,
        extract(epoch from clock_timestamp())::float8 as clock,
        (select may_claim from roll_call where roll_call.runner = beat.id) as may_claim
    from beat
"""

# Apart from the beat, which does not fail with it; nor is this waited for until it is on disk.
TELL_MODELS = """
    update runner_model
    set
        version = now.version,
        ready_workers = now.ready_workers,
        jobs_per_second = now.jobs_per_second,
        inference_seconds = now.inference_seconds,
        batch_size = now.batch_size,
        memory_bytes = now.memory_bytes
    from jsonb_to_recordset(%(models)s::jsonb) as now (
        model text,
        version text,
        ready_workers smallint,
        jobs_per_second double precision,
        inference_seconds double precision,
        batch_size double precision,
        memory_bytes bigint
    )
    where
        runner_model.runner = %(id)s
        and runner_model.model = now.model
        and (select set_config('synchronous_commit', 'off', true)) = 'off'
"""

# Who is missing since a crash of the server may have jobs in work that are pending in its tables.
LET_IN = """
    update roll_call
    set may_claim = true
    where
        runner = %(id)s
        and not exists (select from missing_runner)
        and exists (select from runner as own where own.id = %(id)s and own.lost_at is null)
"""

SLEEP = "update runner set sleeping = %(sleeping)s where id = %(id)s and lost_at is null"

# What a runner is told where others sleep that were told nothing.
OTHERS_SLEEP = "others_sleep"
# Who was told of a job and has no worker free for it lets another see to it, as the insert did.
WAKE_ANOTHER = """
    select pg_notify(chosen.channel, chosen.note)
    from (
        select
            channel,
            case when count(*) over () > 1 then 'others_sleep' else '' end as note
        from sleeping_runner
        where
            runner <> %(id)s
            and %(model)s = any(models)
        order by
            is_well desc,
            turn
        limit 1
    ) as chosen
"""

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

# Also of one that was found dead before it heard of it.
READ_STOP = """
    select
        stop_requested_at is not null,
        stop_now
    from runner
    where id = %(id)s
"""

OVERVIEW = """
    select
        runner, state, host, pid, models, workers, ready, busy, last_heartbeat_ago, up_for,
        completed, failed, jobs_per_second, inference_seconds, trouble, versions, memory_mb
    from runner_overview
"""

DELETE_LOST = "delete from runner where lost_at < now() - interval '1 day'"


@dataclass(frozen=True)
class ModelPulse:
    """What a runner says of a model that it serves: see the table ``runner_model``."""

    model: str
    version: str | None
    workers: int
    ready_workers: int
    jobs_per_second: float
    inference_seconds: float | None
    batch_size: float | None
    memory_bytes: int | None


@dataclass(frozen=True)
class Pulse:
    """What a runner says of itself at each beat."""

    has_lock: bool
    completed: int
    failed: int
    models: Sequence[ModelPulse] = ()
    trouble: str | None = None

    @property
    def ready_workers(self) -> int:
        """Workers of all models that have loaded theirs."""
        return sum(each.ready_workers for each in self.models)

    @property
    def jobs_per_second(self) -> float:
        """Of all models together."""
        return sum(each.jobs_per_second for each in self.models)

    @property
    def inference_seconds(self) -> float | None:
        """On average over the models, by how much they do."""
        known = [each for each in self.models if each.inference_seconds is not None]
        weights = [each.jobs_per_second or 1e-9 for each in known]
        weighted = zip(known, weights, strict=True)
        total = sum((each.inference_seconds or 0.0) * weight for each, weight in weighted)
        return total / sum(weights) if known else None


@dataclass(frozen=True)
class Answer:
    """What the row of a runner says to it: whether to stop, and to do so at once.

    ``clock`` is the database's, in seconds since the epoch. ``may_claim`` is None where we are
    missing in the roll call: a crash of the server may have made it forget claims of ours.
    """

    stop: bool
    now: bool
    clock: float
    may_claim: bool | None


def new_id() -> str:
    """Make an id that a person can place: host-pid-random."""
    return f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(2)}"


def register(
    connection: Connection,
    runner: str,
    *,
    models: Mapping[str, int],
    lease_seconds: float,
    wake_channel: str | None = None,
) -> None:
    """Insert the row of a runner, which has so many workers for each of these models.

    It listens on its channel; without one, on ``job_submitted``, as others do.
    """
    served = [{"model": model, "workers": workers} for model, workers in models.items()]
    connection.execute(
        REGISTER,
        {
            "id": runner,
            "host": socket.gethostname(),
            "pid": os.getpid(),
            "version": metadata.version("jobrunner"),
            # In one order: an insert wakes up one of those that serve the same.
            "models": sorted(models),
            "workers": sum(models.values()),
            "served": json.dumps(served),
            "lease_seconds": lease_seconds,
            "wake_channel": wake_channel,
        },
    )


def beat(connection: Connection, runner: str, pulse: Pulse) -> Answer | None:
    """Give a sign of life; None when another runner has found us dead."""
    values = {
        "id": runner,
        "has_lock": pulse.has_lock,
        "ready_workers": pulse.ready_workers,
        "completed": pulse.completed,
        "failed": pulse.failed,
        "jobs_per_second": pulse.jobs_per_second,
        "inference_seconds": pulse.inference_seconds,
        "trouble": pulse.trouble,
    }
    with connection.cursor(row_factory=class_row(Answer)) as cursor:
        return cursor.execute(BEAT, values).fetchone()


def tell_models(connection: Connection, runner: str, models: Sequence[ModelPulse]) -> None:
    """Say how each model does.

    :raises psycopg.errors.LockNotAvailable: when somebody holds these rows.
    """
    rows = json.dumps([vars(each) for each in models])
    with brief(connection):
        connection.execute(TELL_MODELS, {"id": runner, "models": rows})


def let_in(connection: Connection, runner: str) -> bool:
    """Ask to claim; not while a runner has not said what it holds since the server crashed."""
    return connection.execute(LET_IN, {"id": runner}).rowcount == 1


def set_sleeping(connection: Connection, runner: str, sleeping: bool) -> None:
    """Ask for a notification at the next insert, or say that none is needed."""
    connection.execute(SLEEP, {"id": runner, "sleeping": sleeping})


def wake_another(connection: Connection, runner: str, model: str) -> bool:
    """Let another runner that sleeps look for jobs of that model, and see to what is left; whether
    there is one."""
    return connection.execute(WAKE_ANOTHER, {"id": runner, "model": model}).rowcount > 0


def sign_off(connection: Connection, runner: str) -> None:
    """Delete the row: the runner has stopped and holds nothing."""
    connection.execute(SIGN_OFF, {"id": runner})


def request_stop(connection: Connection, runners: Sequence[str], *, now: bool) -> list[str]:
    """Ask runners to stop; return the ids of those that are there to hear it."""
    cursor = connection.execute(REQUEST_STOP, {"ids": list(runners), "now": now})
    return [row[0] for row in cursor]


def stop_requests(connection: Connection, runner: str) -> int:
    """How often a runner was asked to stop, as far as it matters: 2 is now."""
    rows = connection.execute(READ_STOP, {"id": runner}).fetchall()
    return max((1 + now for stop, now in rows if stop), default=0)


def overview(connection: Connection) -> list[dict[str, Any]]:
    """Read the view ``runner_overview``."""
    with connection.cursor(row_factory=dict_row) as cursor:
        return cursor.execute(OVERVIEW).fetchall()


def delete_lost(connection: Connection) -> int:
    """Delete the rows of runners that were lost more than a day ago; return how many."""
    return connection.execute(DELETE_LOST).rowcount
