"""This system with the jobs of a month in its table: nearly all of them done, some under way."""

import sys
from datetime import UTC, datetime, timedelta
from random import Random
from uuid import UUID

from benchmarks.queues.jobrunner import FULL, PART, Jobrunner

RARE, UNUSED = "rare", "unused"
MONTH = timedelta(days=30)
PENDING, PROCESSING = 20_000, 200
# Of each thousand jobs the first hundred.
BATCH_JOBS = 100

MODELS = "insert into model (name) select unnest(%s::text[]) on conflict do nothing"
# A vacuum meanwhile would offer what is left of old pages to the jobs that are pending, whose
# rows are shorter: each would lie in a page of its own.
NO_VACUUM = "alter table job set (autovacuum_enabled = off)"
VACUUM = "alter table job reset (autovacuum_enabled)"
SEED = "select setseed(0.5)"
# An id of version 7 begins with its milliseconds. What is random is drawn by itself, so that
# a job that failed may be of either model.
HISTORY = """
    insert into job (
        id, model, input, status, attempt, run_at, claimed_by, lease_token, created_at,
        started_at, finished_at, result, error, errors, batch_id, batch_position, client_id
    )
    select
        overlay(
            gen_random_uuid()::text
            placing substr(milliseconds, 1, 8) || '-' || substr(milliseconds, 9) || '-7' from 1
        )::uuid,
        model,
        jsonb_build_object('text', repeat('This product is amazing! ', 8)),
        status,
        case when status = 'pending' then 0 else 1 end,
        created_at,
        case when status <> 'pending' then 'before-1-abcd' end,
        case when status = 'processing' then gen_random_uuid() end,
        created_at,
        case when status <> 'pending' then created_at + interval '1 second' end,
        case when status in ('completed', 'failed') then created_at + interval '6 seconds' end,
        case when status = 'completed' then result end,
        case when status = 'failed' then error end,
        case when status = 'failed' then jsonb_build_array(error) else '[]' end,
        case when batched then md5((number / %(batch_jobs)s)::text)::uuid end,
        case when batched then number %% %(batch_jobs)s end,
        'client-' || number %% nullif(%(clients)s, 0)
    from (
        select
            number,
            created_at,
            lpad(to_hex(floor(extract(epoch from created_at) * 1000)::bigint), 12, '0')
                as milliseconds,
            case when random() < 0.001 then %(rare)s else 'sentiment' end as model,
            case
                when number >= %(jobs)s - %(pending)s then 'pending'
                when number >= %(jobs)s - %(pending)s - %(processing)s then 'processing'
                when random() < 0.01 then 'failed'
                else 'completed'
            end as status,
            number / %(batch_jobs)s %% 10 = 0 as batched,
            '{"sentiment": "positive", "confidence": 0.5}'::jsonb as result,
            jsonb_build_object(
                'code', case number %% 3 when 0 then 'timeout' else 'model_error' end,
                'message', format('ValueError: no word %%s at 0x%%s', number, to_hex(number)),
                'retryable', false
            ) as error
        from (
            select
                number,
                %(end)s - %(month)s::interval * (1 - number::float8 / %(jobs)s) as created_at
            from generate_series(%(first)s, %(first)s + %(part)s - 1) as number
        ) as numbered
    ) as drawn
    order by number
"""
# As if each had been claimed by itself.
NOTE_CLAIMS = """
    insert into job_claim (lease_token, job_ids)
    select
        lease_token,
        array[id]
    from job
    where
        finished_at is null
        and status = 'processing'
"""
BATCHES = "select batch_id from job where batch_id is not null and batch_position = 0"


class History(Jobrunner):
    """The same, with so many jobs, evenly over the last month."""

    name = "jobrunner, a month"
    jobs = 5_000_000 if FULL else 500_000
    pending, processing, clients = PENDING, PROCESSING, 0

    def install(self) -> None:
        super().install()
        self.connection.execute(MODELS, [[RARE, UNUSED]])
        self.connection.execute(SEED)
        self.connection.execute(NO_VACUUM)
        self._end = datetime.now(UTC)
        for first in range(0, self.jobs, PART):
            print(f"{first:,} of {self.jobs:,} jobs", end="\r", file=sys.stderr)
            self.connection.execute(HISTORY, self._part(first))
        self.connection.execute(NOTE_CLAIMS)
        self.connection.execute(VACUUM)
        self.connection.execute("vacuum analyze job, job_claim")
        self.connection.execute("checkpoint")

    def forget(self) -> None:
        """What is there stays."""

    def time(self, random: Random) -> datetime:
        """Draw a time of the month."""
        return self._end - MONTH * random.random()

    def batches(self) -> list[UUID]:
        """The ids of all batches."""
        return [row[0] for row in self.connection.execute(BATCHES)]

    def _part(self, first: int) -> dict[str, object]:
        return {
            "first": first,
            "part": min(PART, self.jobs - first),
            "jobs": self.jobs,
            "pending": self.pending,
            "processing": self.processing,
            "clients": self.clients,
            "batch_jobs": BATCH_JOBS,
            "rare": RARE,
            "end": self._end,
            "month": MONTH,
        }
