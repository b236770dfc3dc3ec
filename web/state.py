"""How all stands at a moment, for those who look on: the queues, the runners, the newest jobs.

In times, not ages: what is read is the same until something happens.
"""

from time import monotonic
from typing import NamedTuple

from psycopg.rows import dict_row

from web import json_rows
from web.answers import ENCODER
from web.database import Database
from web.overview_schemas import JobBrief

NEWEST = 50
# In bytes; a list shows no more of a result.
SHORT_RESULT = 300

READ_NOW = "select now()"

READ_QUEUES = """
    select
        model,
        pending::integer as pending,
        waiting_to_retry::integer as waiting_to_retry,
        processing::integer as processing,
        oldest_pending_at,
        runners::integer as runners,
        workers::integer as workers,
        jobs_per_second::float8 as jobs_per_second,
        inference_seconds::float8 as inference_seconds,
        coalesce(versions, '{}') as versions
    from model_queue
    order by model
"""

READ_RUNNERS = """
    select
        overview.runner,
        overview.state,
        overview.host,
        overview.models,
        overview.versions,
        overview.workers,
        overview.ready,
        overview.busy,
        runner.heartbeat_at,
        runner.started_at,
        overview.completed,
        overview.failed,
        overview.jobs_per_second::float8 as jobs_per_second,
        overview.inference_seconds::float8 as inference_seconds,
        overview.trouble,
        overview.memory_mb::integer as memory_mb
    from runner_overview as overview
    inner join runner on overview.runner = runner.id
    order by runner.started_at, runner.id
"""

# A large result is not even fetched from where PostgreSQL has put it.
READ_NEWEST = """
    select
        job.id as job_id,
        job.status,
        job.model,
        job.attempt,
        job.created_at,
        job.started_at,
        job.finished_at,
        job.batch_id,
        job.retry_of,
        case
            when
                case
                    when pg_column_size(job.result) <= %(short)s
                        then octet_length(job.result::text) <= %(short)s
                end
                then job.result
        end as result,
        job.error ->> 'code' as error_code,
        job.inference_seconds,
        job_progress.fraction
    from job
    left join job_progress
        on
            job.id = job_progress.job_id
            and job.attempt = job_progress.attempt
            and job.status = 'processing'
            and job_progress.updated_at >= job.started_at
    order by job.id desc
    limit %(newest)s
"""


class State(NamedTuple):
    """``now`` and ``stands`` are JSON; ``jobs`` is the JSON of each of the newest, by its id.

    ``seconds`` is how long it took to read it.
    """

    now: str
    stands: str
    jobs: dict[str, str]
    seconds: float


def read(database: Database) -> State:
    """Read how all stands.

    :raises DatabaseUnavailable: when that can't be told now.
    """
    with database.connection() as connection:
        began = monotonic()
        with connection.cursor(row_factory=dict_row) as cursor:
            [now] = cursor.execute(READ_NOW).fetchall()
            queues = cursor.execute(READ_QUEUES).fetchall()
            runners = cursor.execute(READ_RUNNERS).fetchall()
        with json_rows.cursor(connection) as cursor_of_json:
            values = {"short": SHORT_RESULT, "newest": NEWEST}
            jobs = cursor_of_json.execute(READ_NEWEST, values).fetchall()
        seconds = monotonic() - began
    names = JobBrief.model_fields
    stands = f'"queues": {ENCODER.encode(queues)}, "runners": {ENCODER.encode(runners)}'
    written = {str(row["job_id"]): json_rows.write(row, names) for row in jobs}
    return State(ENCODER.encode(now["now"]), stands, written, seconds)
