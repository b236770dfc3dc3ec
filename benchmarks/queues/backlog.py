"""This system on a bad day: a month of jobs, a queue as long as may be, everybody at work."""

from benchmarks.queues.history import NOTE_CLAIMS, RARE, History

PENDING, PROCESSING, CLIENTS = 100_000, 48, 20
RUNNERS, WORKERS = 6, 8
DAYS_OF_ACTIVITY = 2

RUNNER = """
    insert into runner (id, host, pid, version, models, workers, ready_workers, lease, notes_claims)
    select
        'here-' || number || '-abcd',
        'here',
        number,
        '1',
        array['sentiment', %(rare)s],
        %(workers)s,
        %(workers)s,
        interval '1 day',
        true
    from generate_series(0, %(runners)s - 1) as number
"""
RUNNER_MODEL = """
    insert into runner_model (runner, model, version, workers, ready_workers)
    select
        runner.id,
        served.model,
        '1',
        runner.workers,
        runner.workers
    from runner
    cross join lateral unnest(runner.models) as served (model)
"""
# Anywhere among those that wait, as where others came later with a higher priority.
CLAIM = """
    update job
    set
        status = 'processing',
        attempt = 1,
        claimed_by = 'here-' || numbered.place %% %(runners)s || '-abcd',
        lease_token = gen_random_uuid(),
        started_at = clock_timestamp() - numbered.place * interval '1 millisecond'
    from (
        select
            id,
            row_number() over (order by id) as place
        from job
        where finished_at is null
    ) as numbered
    where
        job.id = numbered.id
        and numbered.place %% %(every)s = 0
"""
PROGRESS = """
    insert into job_progress (job_id, attempt, fraction, word)
    select
        id,
        attempt,
        0.5,
        'half done'
    from job
    where
        finished_at is null
        and status = 'processing'
"""
CANCEL = """
    insert into cancel_request (job_id)
    select job_id
    from job_progress
    limit 5
"""
# Each minute of as long as they are kept, of both models.
ACTIVITY = """
    insert into activity (
        model, minute, completed, failed, retried, released, rescued,
        waits, wait_seconds, inferences, inference_seconds, calls
    )
    select
        model.name,
        minutes.minute,
        100,
        1,
        2,
        0,
        0,
        array_fill(6::bigint, array[16]),
        100,
        array_fill(6::bigint, array[16]),
        500,
        100
    from model
    cross join (
        select '-infinity'::timestamptz
        union all
        select generate_series(
            date_trunc('minute', now()) - %(days)s * interval '1 day',
            date_trunc('minute', now()),
            interval '1 minute'
        )
    ) as minutes (minute)
"""
TABLES = "runner, runner_model, job_claim, job_progress, cancel_request, activity"


class Backlog(History):
    """The same, with a hundred thousand jobs pending, a few dozen in work, and clients."""

    name = "jobrunner, a backlog"
    pending, processing, clients = PENDING + PROCESSING, 0, CLIENTS

    def install(self) -> None:
        super().install()
        values = {
            "rare": RARE,
            "runners": RUNNERS,
            "workers": WORKERS,
            "every": self.pending // PROCESSING,
            "days": DAYS_OF_ACTIVITY,
        }
        for statement in (RUNNER, RUNNER_MODEL, CLAIM, PROGRESS, CANCEL, ACTIVITY):
            self.connection.execute(statement, values)
        self.connection.execute(NOTE_CLAIMS)
        self.connection.execute(f"analyze {TABLES}")
