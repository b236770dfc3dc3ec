-- The job: one row from the POST to the result.
--
-- A client inserts it as 'pending'. A runner claims it ('processing', attempt + 1, a new
-- lease_token) and records one outcome: 'completed' with a result, or 'failed' with an
-- error. A failed attempt that may be repeated goes back to 'pending' with a later run_at;
-- a start that is handed back goes to 'pending' with attempt - 1. A final row
-- ('completed', 'failed') never changes again: see 0002_guard_job.sql.

-- Ids are UUIDs of version 7 (RFC 9562, 5.7): they sort by time, so that the newest-first
-- list and the primary key are one index. PostgreSQL 18 makes them itself.
do $$
begin
    if to_regprocedure('pg_catalog.uuidv7()') is null then
        create function uuidv7() returns uuid
        language sql volatile parallel safe
        as $body$
            -- 48 bits of milliseconds, the version, 12 bits of the millisecond's
            -- fraction, and what a random UUID has after that.
            select encode(
                overlay(
                    overlay(
                        uuid_send(gen_random_uuid())
                        placing substring(int8send(microseconds / 1000) from 3)
                        from 1 for 6
                    )
                    placing int2send(
                        (28672 + (microseconds % 1000) * 4096 / 1000)::smallint
                    )
                    from 7 for 2
                ),
                'hex'
            )::uuid
            from (
                select (extract(epoch from clock_timestamp()) * 1000000)::bigint
            ) as clock (microseconds)
        $body$;
        comment on function uuidv7() is
            'Makes a UUID of version 7, as PostgreSQL 18 does with its function of this name.';
    end if;
end
$$;

create table job (
    id uuid not null default uuidv7(),
    model text not null default 'sentiment',
    input jsonb not null,
    priority smallint not null default 0,

    status text not null default 'pending',
    attempt smallint not null default 0,
    max_attempts smallint not null default 3,
    run_at timestamptz not null default clock_timestamp(),

    claimed_by text,
    lease_token uuid,

    created_at timestamptz not null default clock_timestamp(),
    started_at timestamptz,
    finished_at timestamptz,

    result jsonb,
    error jsonb,
    errors jsonb not null default '[]',

    idempotency_key text,
    input_hash bytea,
    batch_id uuid,
    retry_of uuid,
    client_id text,

    constraint job_pkey primary key (id),

    constraint status_is_known
    check (status in ('pending', 'processing', 'completed', 'failed')),

    constraint input_is_an_object
    check (jsonb_typeof(input) = 'object'),

    constraint priority_is_from_minus_100_to_100
    check (priority between -100 and 100),

    constraint run_at_is_finite
    check (isfinite(run_at)),

    constraint max_attempts_is_from_1_to_100
    check (max_attempts between 1 and 100),

    constraint attempt_is_within_max_attempts
    check (attempt between 0 and max_attempts),

    constraint processing_job_has_a_claim
    check (
        (status = 'processing') = (lease_token is not null)
        and (status <> 'processing' or claimed_by is not null)
        and (status <> 'pending' or claimed_by is null)
    ),

    constraint started_job_has_started_at
    check (
        (status not in ('processing', 'completed') or started_at is not null)
        and (status <> 'pending' or started_at is null)
    ),

    constraint final_job_has_finished_at
    check ((status in ('completed', 'failed')) = (finished_at is not null)),

    constraint completed_job_has_a_result
    check ((status = 'completed') = (result is not null)),

    constraint failed_job_has_an_error
    check ((status = 'failed') = (error is not null)),

    constraint error_has_code_message_and_retryable
    check (
        error is null
        or coalesce(
            jsonb_typeof(error -> 'code') = 'string'
            and jsonb_typeof(error -> 'message') = 'string'
            and jsonb_typeof(error -> 'retryable') = 'boolean',
            false
        )
    ),

    constraint errors_is_an_array
    check (jsonb_typeof(errors) = 'array'),

    -- A CASE, because AND promises no order and a cast of a non-number would raise.
    constraint sentiment_has_a_confidence_from_0_to_1
    check (
        model <> 'sentiment'
        or result is null
        or case
            when jsonb_typeof(result -> 'confidence') = 'number'
                then
                    (result ->> 'confidence')::numeric between 0 and 1
                    and coalesce(result ->> 'sentiment' in ('positive', 'negative'), false)
            else false
        end
    ),

    constraint idempotency_key_has_an_input_hash
    check ((idempotency_key is null) = (input_hash is null))
);

-- Serves the claim, the place in the queue and the rescue. Its condition names
-- finished_at and not status, so that a claim changes no column that an index knows and
-- stays a heap-only update; the few jobs being processed stand at its front meanwhile.
create index job_unfinished_idx on job (model, (-priority), run_at, id)
where finished_at is null;

-- Serves the janitor, who deletes what finished before a certain time.
create index job_finished_idx on job (finished_at)
where finished_at is not null;

-- Serves the view recent_failure.
create index job_failed_idx on job (finished_at)
where error is not null;

comment on table job is
    'One row a job, from the POST to the result. A row is inserted as pending; a final row never changes.';
comment on column job.id is
    'UUID version 7, made by the database: sorts by time of creation.';
comment on column job.model is
    'Name of the model that answers it; see the table model.';
comment on column job.input is
    'What the model gets: a JSON object, {"text": "..."} for sentiment.';
comment on column job.priority is
    'From -100 to 100, higher first.';
comment on column job.status is
    'pending: waits for a runner, from run_at on. processing: claimed by one. completed: has a result. failed: has an error (also when cancelled or timed out).';
comment on column job.attempt is
    'How many starts were counted; a start that was handed back is not.';
comment on column job.max_attempts is
    'After so many counted starts a failure is final.';
comment on column job.run_at is
    'Not claimed before this time; later than created_at after a failed attempt (backoff).';
comment on column job.claimed_by is
    'Id of the runner that holds the job or that finished it; empty while pending.';
comment on column job.lease_token is
    'Made new at each claim; only who knows it can record the outcome. Empty unless processing.';
comment on column job.created_at is 'When the row was inserted.';
comment on column job.started_at is 'When the latest attempt was claimed; empty while pending.';
comment on column job.finished_at is 'When the job became final.';
comment on column job.result is
    'What the model answered: {"sentiment": "positive" | "negative", "confidence": 0 to 1} for sentiment. Only of a completed job.';
comment on column job.error is
    '{"code", "message", "retryable"}: why the job failed. Only of a failed job.';
comment on column job.errors is
    'One entry for each failed attempt, oldest first: attempt, code, message, retryable, runner, started_at, failed_at.';
comment on column job.idempotency_key is 'The client''s name for this request, unique per client.';
comment on column job.input_hash is
    'SHA-256 of the request that came with idempotency_key: the same key with another body is refused.';
comment on column job.batch_id is 'Common to the jobs that were submitted in one batch.';
comment on column job.retry_of is 'The failed job that this one repeats.';
comment on column job.client_id is 'Whose job it is, where API keys are on.';
comment on index job_unfinished_idx is 'Serves claim, place in the queue, and rescue.';
comment on index job_finished_idx is 'Serves the janitor.';
comment on index job_failed_idx is 'Serves the view recent_failure.';
