"""Every move of a job, each one guarded statement.

The functions take an autocommit connection, so that a statement is a transaction. Who
holds a claim proves it by id and lease_token; a row that does not match was taken away
meanwhile, and is left alone. See the head of ``sql/0001_create_job.sql`` for the moves.
"""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from math import inf
from operator import attrgetter
from random import getrandbits
from time import monotonic
from typing import Any, NamedTuple
from uuid import UUID

import psycopg
from psycopg.rows import class_row

from jobrunner.outcome import Job, Outcome
from jobrunner.statement import Statement

Connection = psycopg.Connection[Any]

# Skip locked: two runners never wait for each other, nor take the same job. The order is
# written as the index job_unfinished_idx has it, and the place to begin at as well: while an
# old snapshot is open somewhere, all that was claimed before stays in the index, and who
# begins at its front walks over it each time. A runner that was found dead is in no roll call,
# and claims nothing under its old id.
#
# What is claimed ahead of time is not started at once, and a runner that dies costs it an
# attempt: so nothing is claimed ahead on its last attempt, lest it fail without having been
# started.
#
# One lease token serves all that is claimed at once, since it proves a claim together with the
# job's id: where PostgreSQL has to open /dev/urandom for each, they took a tenth of its time.
#
# What is claimed is noted in job_claim, and the notes are deleted of which nothing is held now.
#
# The claim is not waited for until it is on disk, by which time its job has begun. A crash of the
# server may forget it, and the roll call with it: then nobody may claim until all have said what
# they hold. See RECLAIM, and ``sql/0037_create_roll_call.sql``.
CLAIM = """
    with candidate as (
        select id
        from job
        where
            finished_at is null
            and status = 'pending'
            and model = %(model)s
            and run_at <= now()
            and (-priority, run_at, id) >= (
                %(from_priority)s::smallint, to_timestamp(%(from_run_at)s), %(from_id)s::uuid
            )
            and (attempt + 1 < max_attempts or not %(ahead)s)
            and exists (select from roll_call where runner = %(runner)s and may_claim)
            and (select set_config('synchronous_commit', 'off', true)) = 'off'
        order by -priority, run_at, id
        limit %(slots)s
        for update skip locked
    ),

    noted as (
        insert into job_claim (lease_token, job_ids)
        select
            %(lease_token)s,
            array(select id from candidate)
        where exists (select from candidate)
    ),

    spent as (
        delete from job_claim
        where lease_token = any(%(spent)s::uuid[])
    )

    update job
    set
        status = 'processing',
        attempt = attempt + 1,
        claimed_by = %(runner)s,
        lease_token = %(lease_token)s,
        started_at = clock_timestamp()
    where id = any(array(select id from candidate))
    returning
        id::text,
        input::text,
        attempt,
        priority,
        -- Of a numeric, and so exact, however many digits of a float the server is set to show.
        extract(epoch from run_at)::text,
        coalesce(substr(traceparent, 4, 32), '')
"""

# The statements that say what comes of jobs name them by an array and not by a join: whatever
# the statistics say, that is one look into the primary key for each, in the order of ids.
# A join with them was once planned from the other end, over all jobs there are. (What is then
# held may be joined: it is few.) What belongs to a job stands at the same place of another array,
# and since the ids are in order, width_bucket() finds the place by halves: array_position() goes
# over all, which of two hundred jobs took a tenth of the statement.

COMPLETE = """
    update job
    set
        status = 'completed',
        lease_token = null,
        finished_at = clock_timestamp(),
        result = %(results)s::jsonb -> (width_bucket(id, %(ids)s::uuid[]) - 1),
        model_version = %(version)s,
        batch_size = (%(batch_sizes)s::smallint[])[width_bucket(id, %(ids)s::uuid[])],
        inference_seconds = (%(seconds)s::real[])[width_bucket(id, %(ids)s::uuid[])]
    where
        id = any(%(ids)s::uuid[])
        and lease_token = (%(lease_tokens)s::uuid[])[width_bucket(id, %(ids)s::uuid[])]
        and status = 'processing'
    returning id::text, status
"""

# Tried again after 1 s × 2^attempt, at most 60 s, ± 20% so that failures that came together
# do not come back together.
FAIL = """
    with held as (
        select
            id,
            error,
            (error ->> 'retryable')::boolean and attempt < max_attempts as again
        from (
            select
                id,
                attempt,
                max_attempts,
                %(errors)s::jsonb -> (width_bucket(id, %(ids)s::uuid[]) - 1) as error
            from job
            where
                id = any(%(ids)s::uuid[])
                and lease_token = (%(lease_tokens)s::uuid[])[width_bucket(id, %(ids)s::uuid[])]
                and status = 'processing'
            order by id
            for update
        ) as locked
    )

    update job
    set
        status = case when held.again then 'pending' else 'failed' end,
        run_at = case
            when held.again
                then
                    clock_timestamp()
                    + make_interval(secs => least(60, 2 ^ job.attempt) * (0.8 + 0.4 * random()))
            else job.run_at
        end,
        claimed_by = case when not held.again then job.claimed_by end,
        lease_token = null,
        started_at = case when not held.again then job.started_at end,
        finished_at = case when not held.again then clock_timestamp() end,
        error = case when not held.again then held.error end,
        model_version = %(version)s,
        batch_size = (%(batch_sizes)s::smallint[])[width_bucket(job.id, %(ids)s::uuid[])],
        inference_seconds = (%(seconds)s::real[])[width_bucket(job.id, %(ids)s::uuid[])],
        errors = job.errors || (
            held.error || jsonb_build_object(
                'attempt', job.attempt,
                'runner', job.claimed_by,
                'started_at', utc_text(job.started_at),
                'failed_at', utc_text(clock_timestamp())
            )
        )
    from held
    where job.id = held.id
    returning job.id::text, job.status
"""

# Handed back: as if it had not been started.
RELEASE = """
    with held as (
        select id
        from job
        where
            id = any(%(ids)s::uuid[])
            and lease_token = (%(lease_tokens)s::uuid[])[width_bucket(id, %(ids)s::uuid[])]
            and status = 'processing'
        order by id
        for update
    )

    update job
    set
        status = 'pending',
        attempt = job.attempt - 1,
        claimed_by = null,
        lease_token = null,
        started_at = null
    from held
    where job.id = held.id
    returning job.id::text, job.status
"""

# Claims of which the answer never reached us, because the connection broke: never started.
RELEASE_UNKNOWN = """
    update job
    set
        status = 'pending',
        attempt = attempt - 1,
        claimed_by = null,
        lease_token = null,
        started_at = null
    where
        finished_at is null
        and status = 'processing'
        and claimed_by = %(runner)s
        and id <> all(%(held)s::uuid[])
    returning id::text, model, status
"""

# Claims that a crash of the server has forgotten, of one who had not answered the roll call: as
# they were, under their lease tokens. Who has answered it has been told of all that it lost.
RECLAIM = """
    with answering as (
        select id
        from runner
        where
            id = %(runner)s
            and lost_at is null
            and not exists (select from roll_call where roll_call.runner = %(runner)s)
        -- Lest it be found dead meanwhile, and struck off before it is entered.
        for no key update
    ),

    forgotten as (
        select
            id,
            (%(lease_tokens)s::uuid[])[width_bucket(id, %(ids)s::uuid[])] as lease_token,
            (%(seconds)s::double precision[])[width_bucket(id, %(ids)s::uuid[])] as seconds
        from job
        where
            id = any(%(ids)s::uuid[])
            and status = 'pending'
            and attempt + 1 = (%(attempts)s::smallint[])[width_bucket(id, %(ids)s::uuid[])]
            and exists (select from answering)
        order by id
        for update
    ),

    noted as (
        insert into job_claim (lease_token, job_ids)
        select
            lease_token,
            array_agg(id) as job_ids
        from forgotten
        group by lease_token
        on conflict (lease_token) do nothing
    ),

    answered as (
        insert into roll_call (runner)
        select id from answering
        on conflict (runner) do nothing
        -- All look again who might not claim while it was missing.
        returning pg_notify('job_submitted', '')
    )

    update job
    set
        status = 'processing',
        attempt = job.attempt + 1,
        claimed_by = %(runner)s,
        lease_token = forgotten.lease_token,
        started_at = clock_timestamp() - make_interval(secs => forgotten.seconds)
    from forgotten
    where job.id = forgotten.id
    returning job.id::text
"""

# What no live runner holds. Skip locked: an outcome that is being written stands.
RESCUE = """
    with abandoned as (
        select
            job.id,
            job.attempt < job.max_attempts as again
        from job
        where
            job.finished_at is null
            and job.status = 'processing'
            and not exists (
                select
                from runner
                where
                    runner.id = job.claimed_by
                    and runner.lost_at is null
            )
        order by job.id
        for update of job skip locked
    ),

    fault as (
        select jsonb_build_object(
            'code', 'runner_lost',
            'message', 'the runner that held the job was lost',
            'retryable', true
        ) as error
    )

    update job
    set
        status = case when abandoned.again then 'pending' else 'failed' end,
        claimed_by = case when not abandoned.again then job.claimed_by end,
        lease_token = null,
        started_at = case when not abandoned.again then job.started_at end,
        finished_at = case when not abandoned.again then clock_timestamp() end,
        error = case when not abandoned.again then fault.error end,
        errors = job.errors || (
            fault.error || jsonb_build_object(
                'attempt', job.attempt,
                'runner', job.claimed_by,
                'started_at', utc_text(job.started_at),
                'failed_at', utc_text(clock_timestamp())
            )
        )
    from abandoned, fault
    where job.id = abandoned.id
    returning job.id::text, job.model, job.status, job.attempt
"""

CANCELLED = "select job_id::text from cancel_request where job_id = any(%(ids)s::uuid[])"

ENDED_A_WORKER = """
    select id::text
    from job
    where
        id = any(%(ids)s::uuid[])
        and errors -> -1 ->> 'code' in ('worker_lost', 'timeout')
"""

# Of the first thousand: reading all would take long where very many wait for their time.
# Whoever is missed is found by the poll.
NEXT_RUN_AT = """
    select extract(epoch from min(run_at) - clock_timestamp())::double precision
    from (
        select run_at
        from job
        where
            finished_at is null
            and status = 'pending'
            and model = %(model)s
        order by -priority, run_at, id
        limit 1000
    ) as first_pending
"""

# Who has no worker free any more wakes up others: as many as there are jobs after those that it has
# taken.
WAKE_OTHERS = """
    with other as materialized (
        select
            channel,
            row_number() over (order by is_well desc, turn) as place,
            count(*) over () as others
        from sleeping_runner
        where
            runner <> %(runner)s
            and %(model)s = any(models)
    ),

    waiting as (
        select id
        from job
        where
            finished_at is null
            and status = 'pending'
            and model = %(model)s
            and run_at <= now()
            and (-priority, run_at, id) >= (
                %(from_priority)s::smallint, to_timestamp(%(from_run_at)s), %(from_id)s::uuid
            )
        order by -priority, run_at, id
        limit (select count(*) from other)
    ),

    counted as materialized (
        select count(*) as jobs
        from waiting
    )

    select pg_notify(channel, case when others > jobs then 'others_sleep' else '' end)
    from
        other,
        counted
    where place <= jobs
"""

# While an old snapshot is open, all that was deleted is read: a slow look is given up.
GIVE_UP_SOON = "set local statement_timeout = '500ms'"

# What dead runners have left, and claims whose answer was lost. Skip locked: who claims deletes
# as well, in another order.
DELETE_SPENT = """
    delete from job_claim
    where
        lease_token = any(array(
            select noted.lease_token
            from job_claim as noted
            where
                not exists (
                    select
                    from job
                    where
                        job.id = any(noted.job_ids)
                        and job.lease_token = noted.lease_token
                    -- Lest all jobs be read, to be joined with the notes.
                    offset 0
                )
            for update skip locked
        ))
"""

NOW = "select extract(epoch from clock_timestamp())"

# No locks are needed: a final row never changes. One janitor works at a time, so that two do
# not wait for each other's rows.
DELETE_FINISHED = """
    delete from job
    where id in (
        select id
        from job
        where finished_at < now() - %(older_than)s
        order by finished_at
        limit %(limit)s
    )
"""


class Place(NamedTuple):
    """Where a job stands in the queue; the smaller comes first."""

    priority: int  # negated
    run_at: float  # in seconds since the epoch
    id: str


NO_ID = str(UUID(int=0))
FRONT = Place(-101, -inf, NO_ID)

BY_ID = attrgetter("id")
BY_JOB_ID = attrgetter("job.id")

_claim = Statement("claim", CLAIM)
_complete = Statement("complete", COMPLETE)


@dataclass(frozen=True)
class Rescued:
    """A job that was freed from a dead runner, and whether it goes on."""

    id: str
    model: str
    status: str
    attempt: int


class Claim:
    """A claim that is written, and can be sent at once when its time comes."""

    def __init__(
        self,
        *,
        runner: str,
        model: str,
        slots: int,
        ahead: bool = False,
        place: Place = FRONT,
        spent: Collection[str] = (),
    ) -> None:
        """Of up to ``slots`` due jobs of a model, in the order of priority and age.

        ``ahead`` says that no worker is free for them yet: see CLAIM. Those before ``place`` are
        passed over. Of the claims with the lease tokens ``spent`` nothing is held any more.
        """
        self.runner, self.model, self.slots = runner, model, slots
        self.ahead, self.place, self.spent = ahead, place, spent
        # It has to differ, and is no secret: to ask the system takes longer than all else here.
        self.lease_token = str(UUID(int=getrandbits(128), version=4))
        self._values = _claim.written(
            {
                "runner": runner,
                "model": model,
                "slots": slots,
                "ahead": ahead,
                "from_priority": place.priority,
                "from_run_at": place.run_at,
                "from_id": place.id,
                "lease_token": self.lease_token,
                "spent": _array(spent),
            }
        )

    def execute(self, connection: Connection) -> list[Job]:
        """Take the jobs; once. The rows are locked for this one statement only, never while a
        model runs."""
        rows = _claim.rows_of(connection, self._values)
        token, model, now = self.lease_token, self.model, monotonic()
        jobs = [
            Job(job_id, token, model, text, attempt, priority, float(run_at), trace, now)
            for job_id, text, attempt, priority, run_at, trace in rows
        ]
        # An update returns rows in no order.
        return sorted(jobs, key=place_of) if len(jobs) > 1 else jobs


def claim(connection: Connection, **what: Any) -> list[Job]:
    """Take jobs by a ``Claim`` of that."""
    return Claim(**what).execute(connection)


def place_of(job: Job) -> Place:
    """Say where a job stood before it was claimed."""
    return Place(-job.priority, job.run_at, job.id)


def place_at(run_at: float) -> Place:
    """Say where in the queue the jobs begin that are submitted then, with the usual priority."""
    return Place(0, run_at, NO_ID)


def complete(connection: Connection, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Record results of one version; return the new status of the jobs whose claim still held.

    :raises psycopg.DataError: when one of the results is nothing that jsonb can keep.
    """
    outcomes = sorted(outcomes, key=BY_JOB_ID)
    results = _json_array(outcome.result or "" for outcome in outcomes)
    parameters = _answers(outcomes) | {"results": results}
    return dict(_complete.rows(connection, parameters))


def fail(connection: Connection, outcomes: Sequence[Outcome]) -> dict[str, str]:
    """Record failures of one version: back to pending with backoff while attempts are left.

    Return the new status of the jobs whose claim still held.
    """
    outcomes = sorted(outcomes, key=BY_JOB_ID)
    failures = (outcome.failure for outcome in outcomes if outcome.failure)
    errors = _json_array(failure.to_json() for failure in failures)
    parameters = _answers(outcomes) | {"errors": errors}
    return dict(connection.execute(FAIL, parameters).fetchall())


def release(connection: Connection, jobs: Sequence[Job]) -> dict[str, str]:
    """Hand jobs back, their start not counted.

    Return the new status of the jobs whose claim still held: failed, where a cancel was
    requested.
    """
    return dict(connection.execute(RELEASE, _claims(sorted(jobs, key=BY_ID))).fetchall())


def release_unknown(
    connection: Connection, *, runner: str, held: Sequence[str]
) -> list[tuple[str, str, str]]:
    """Hand back what the database says we hold and we know nothing of; as ``release``.

    Return the id, the model and the new status of each.
    """
    parameters = {"runner": runner, "held": _array(held)}
    return connection.execute(RELEASE_UNKNOWN, parameters).fetchall()


def reclaim(connection: Connection, *, runner: str, jobs: Sequence[Job]) -> set[str]:
    """Say which jobs we hold, where a crash of the server may have made it forget some.

    Return the ids of those that it had forgotten; they are ours again. There are none where the
    runner has said so since the last crash.
    """
    jobs, now = sorted(jobs, key=BY_ID), monotonic()
    parameters = _claims(jobs) | {
        "runner": runner,
        "attempts": _array(str(job.attempt) for job in jobs),
        "seconds": _array(f"{now - job.claimed_at:.6f}" for job in jobs),
    }
    return {row[0] for row in connection.execute(RECLAIM, parameters)}


def rescue(connection: Connection) -> list[Rescued]:
    """Free the jobs that no live runner holds; the lost attempt counts."""
    with connection.cursor(row_factory=class_row(Rescued)) as cursor:
        return cursor.execute(RESCUE).fetchall()


def delete_spent(connection: Connection) -> None:
    """Delete the notes of claims of which no job is held by anybody.

    :raises psycopg.Error: when that can't be done now.
    """
    with connection.transaction():
        connection.execute(GIVE_UP_SOON)
        connection.execute(DELETE_SPENT)


def cancelled(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Tell for which of these jobs a cancel was requested."""
    return {row[0] for row in connection.execute(CANCELLED, {"ids": _array(ids)})}


def ended_a_worker(connection: Connection, ids: Sequence[str]) -> set[str]:
    """Tell of which of these jobs the last attempt was the end of its worker."""
    return {row[0] for row in connection.execute(ENDED_A_WORKER, {"ids": _array(ids)})}


def next_run_at(connection: Connection, *, model: str) -> float | None:
    """In how many seconds the next pending job is due; None when none is pending."""
    row = connection.execute(NEXT_RUN_AT, {"model": model}).fetchone()
    return row[0] if row else None


def wake_others(connection: Connection, runner: str, model: str, place: Place) -> bool:
    """Let other runners that sleep look for the jobs from a place on; whether there are both."""
    begin = {f"from_{name}": value for name, value in place._asdict().items()}
    return connection.execute(WAKE_OTHERS, {"runner": runner, "model": model} | begin).rowcount > 0


def now(connection: Connection) -> float:
    """Say what time it is for the database, in seconds since the epoch."""
    [(seconds,)] = connection.execute(NOW).fetchall()
    return float(seconds)


def delete_finished(connection: Connection, *, older_than: timedelta, limit: int) -> int:
    """Delete up to ``limit`` final jobs that finished longer ago than that; return how many."""
    parameters = {"older_than": older_than, "limit": limit}
    return connection.execute(DELETE_FINISHED, parameters).rowcount


# Arrays are written by hand: psycopg takes 3 µs for an element, and this a tenth of one.


def _claims(jobs: Sequence[Job]) -> dict[str, str]:
    """What proves that these jobs, which are in the order of their ids, are ours."""
    return {
        "ids": _array([job.id for job in jobs]),
        "lease_tokens": _array([job.lease_token for job in jobs]),
    }


def _answers(outcomes: Sequence[Outcome]) -> dict[str, str | None]:
    """What is told of the calls of the model, whether they gave results or failures.

    The size of a call is told where its time is: else there was no answer.
    """
    sizes = (None if each.seconds is None else each.batch_size for each in outcomes)
    return {
        **_claims([outcome.job for outcome in outcomes]),
        "version": next((outcome.version for outcome in outcomes), None),
        "batch_sizes": _array([_or_null(size) for size in sizes]),
        "seconds": _array([_or_null(outcome.seconds) for outcome in outcomes]),
    }


def _array(texts: Iterable[str]) -> str:
    """Write an array of what needs no quotes: UUIDs, numbers."""
    return "{" + ",".join(texts) + "}"


def _or_null(number: float | None) -> str:
    return "null" if number is None else f"{number:.6g}"


def _json_array(texts: Iterable[str]) -> str:
    """Write a JSON array of what is JSON already."""
    return "[" + ",".join(texts) + "]"
