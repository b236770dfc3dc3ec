-- The same rules, of which a job that waits or was just claimed is asked in few words.
--
-- PostgreSQL makes an expression of a function ready anew in each transaction that evaluates it, and
-- what tells all rules apart has a hundred parts. Of a job that is not final most say nothing, and
-- nearly always it breaks none: so that is looked at first, and all rules only where it is not so.
create or replace function is_sound_job(
    model text,
    input jsonb,
    priority smallint,
    status text,
    attempt smallint,
    max_attempts smallint,
    run_at timestamptz,
    claimed_by text,
    lease_token uuid,
    created_at timestamptz,
    started_at timestamptz,
    finished_at timestamptz,
    result jsonb,
    error jsonb,
    errors jsonb,
    idempotency_key text,
    input_hash bytea
) returns boolean
language plpgsql immutable parallel safe
as $$
declare
    rule pg_catalog.text;
begin
    if finished_at is null then
        if (
            (
                status = 'processing'
                and lease_token is not null
                and claimed_by is not null
                and started_at is not null
                or status = 'pending'
                and lease_token is null
                and claimed_by is null
                and started_at is null
            )
            and result is null
            and error is null
            and priority between -100 and 100
            and max_attempts between 1 and 100
            and attempt between 0 and max_attempts
            and least(run_at, created_at, started_at) >= '0001-01-03 00:00+00'
            and greatest(run_at, created_at, started_at) <= '9999-12-29 00:00+00'
            and jsonb_typeof(input) = 'object'
            and jsonb_typeof(errors) = 'array'
            and (idempotency_key is null) = (input_hash is null)
        ) then
            return true;
        end if;
    end if;
    rule := case
        when status not in ('pending', 'processing', 'completed', 'failed')
            then 'status_is_known'
        when jsonb_typeof(input) <> 'object'
            then 'input_is_an_object'
        when priority not between -100 and 100
            then 'priority_is_from_minus_100_to_100'
        when max_attempts not between 1 and 100
            then 'max_attempts_is_from_1_to_100'
        when attempt not between 0 and max_attempts
            then 'attempt_is_within_max_attempts'
        -- greatest() and least() pass over nulls.
        when
            least(run_at, created_at, started_at, finished_at) < '0001-01-03 00:00+00'
            or greatest(run_at, created_at, started_at, finished_at) > '9999-12-29 00:00+00'
            then 'times_are_of_years_1_to_9999'
        when
            (status = 'processing') <> (lease_token is not null)
            or status = 'processing' and claimed_by is null
            or status = 'pending' and claimed_by is not null
            then 'processing_job_has_a_claim'
        when
            status in ('processing', 'completed') and started_at is null
            or status = 'pending' and started_at is not null
            then 'started_job_has_started_at'
        when (status in ('completed', 'failed')) <> (finished_at is not null)
            then 'final_job_has_finished_at'
        when (status = 'completed') <> (result is not null)
            then 'completed_job_has_a_result'
        -- A CASE, because AND promises no order and a cast of a non-number would raise.
        when
            model = 'sentiment'
            and result is not null
            and case
                when jsonb_typeof(result -> 'confidence') = 'number'
                    then
                        (result ->> 'confidence')::numeric not between 0 and 1
                        or coalesce(result ->> 'sentiment' not in ('positive', 'negative'), true)
                else true
            end
            then 'sentiment_has_a_confidence_from_0_to_1'
        when (status = 'failed') <> (error is not null)
            then 'failed_job_has_an_error'
        when
            error is not null
            and not coalesce(
                jsonb_typeof(error -> 'code') = 'string'
                and jsonb_typeof(error -> 'message') = 'string'
                and jsonb_typeof(error -> 'retryable') = 'boolean',
                false
            )
            then 'error_has_code_message_and_retryable'
        when jsonb_typeof(errors) <> 'array'
            then 'errors_is_an_array'
        when (idempotency_key is null) <> (input_hash is null)
            then 'idempotency_key_has_an_input_hash'
    end;
    if rule is not null then
        raise exception 'a row of job breaks the rule "%"', rule
            using errcode = 'check_violation', table = 'job', constraint = rule;
    end if;
    return true;
end
$$;
