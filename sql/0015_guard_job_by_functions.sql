-- The same rules, said so that they cost a statement of one row less.
--
-- PostgreSQL keeps each CHECK and each WHEN as a text that it reads anew in every statement:
-- a third of the time of a claim or an insert of one row. A function is read once a session.
-- So one CHECK asks a function, which knows all the rules; and a WHEN lets pass what is
-- certainly legal, and a function judges the rest. (Rows that are moved 200 at a time cost the
-- same as before.)

-- One expression gives the first rule that is broken, in the order of the columns: a function's
-- statements cost much more than its comparisons. A condition that is null breaks nothing.
create function is_sound_job(
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
    rule constant text := case
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
begin
    if rule is not null then
        raise exception 'a row of job breaks the rule "%"', rule
            using errcode = 'check_violation', table = 'job', constraint = rule;
    end if;
    return true;
end
$$;

comment on function is_sound_job is
    'Raises an error that names the rule which a row of job breaks; true where it breaks none.';

alter table job
drop constraint status_is_known,
drop constraint input_is_an_object,
drop constraint priority_is_from_minus_100_to_100,
drop constraint max_attempts_is_from_1_to_100,
drop constraint attempt_is_within_max_attempts,
drop constraint times_are_of_years_1_to_9999,
drop constraint processing_job_has_a_claim,
drop constraint started_job_has_started_at,
drop constraint final_job_has_finished_at,
drop constraint completed_job_has_a_result,
drop constraint sentiment_has_a_confidence_from_0_to_1,
drop constraint failed_job_has_an_error,
drop constraint error_has_code_message_and_retryable,
drop constraint errors_is_an_array,
drop constraint idempotency_key_has_an_input_hash,
add constraint job_is_sound
check (
    is_sound_job(
        model, input, priority, status, attempt, max_attempts, run_at, claimed_by, lease_token,
        created_at, started_at, finished_at, result, error, errors, idempotency_key, input_hash
    )
);

comment on constraint job_is_sound on job is
    'Columns go with the status, numbers and times are within bounds; an error names the rule. See the function is_sound_job.';

drop function is_error(jsonb), is_sentiment(jsonb);

-- A trigger of its own: where none of these is set, its WHEN is not even read.
create function refuse_job_identity_change() returns trigger
language plpgsql
as $$
begin
    raise exception 'job % keeps its id, model, input and created_at', old.id
        using errcode = 'restrict_violation';
end
$$;

create trigger job_never_changes_its_identity
before update of id, model, created_at, input on job
for each row
when (
    new.id <> old.id
    or new.model <> old.model
    or new.created_at <> old.created_at
    or new.input is distinct from old.input
)
execute function refuse_job_identity_change();

comment on function refuse_job_identity_change() is 'Raises an error that names what of a job is fixed.';
comment on trigger job_never_changes_its_identity on job is
    'Refuses a change of id, model, input or created_at.';

create function judge_job_move() returns trigger
language plpgsql
as $$
begin
    if old.status in ('completed', 'failed') then
        raise exception 'job % is % and never changes again', old.id, old.status
            using errcode = 'restrict_violation';
    end if;
    if (
        case old.status || ' -> ' || new.status
            when 'pending -> pending' then new.attempt = old.attempt
            when 'pending -> processing' then new.attempt = old.attempt + 1
            when 'pending -> failed' then new.attempt = old.attempt
            when 'processing -> pending' then new.attempt in (old.attempt, old.attempt - 1)
            when 'processing -> completed' then new.attempt = old.attempt
            when 'processing -> failed' then new.attempt = old.attempt
            else false
        end
    ) then
        return new;
    end if;
    raise exception 'job % may not go from % (attempt %) to % (attempt %)',
        old.id, old.status, old.attempt, new.status, new.attempt
        using
            errcode = 'restrict_violation',
            hint = 'A claim adds 1 to attempt, a release takes 1 away.';
end
$$;

-- Who has a lease_token is processing: see processing_job_has_a_claim. So who gets one and an
-- attempt more was claimed; who loses it with the same attempt has an outcome, or is to be
-- tried again. All of that is legal.
drop trigger job_makes_legal_moves_only on job;
create trigger job_makes_legal_moves_only
before update on job
for each row
when (
    old.finished_at is not null
    or (new.lease_token is null) = (old.lease_token is null)
    or new.attempt <> old.attempt + (new.lease_token is not null)::integer
)
execute function judge_job_move();

drop function refuse_job_change();
comment on function judge_job_move() is
    'Raises an error for every move of a job but those of the protocol.';
comment on trigger job_makes_legal_moves_only on job is
    'Refuses every move but those of the protocol, and any change of a final row.';

-- Claims, which leave a lease_token, and results are passed over.
create or replace function fail_cancelled_job() returns trigger
language plpgsql
as $$
begin
    if
        old.status = 'processing'
        and (new.status = 'pending' or new.error ->> 'code' = 'runner_lost')
        and exists (select from cancel_request where job_id = new.id)
    then
        new.status := 'failed';
        new.attempt := old.attempt;
        new.claimed_by := old.claimed_by;
        new.started_at := old.started_at;
        new.finished_at := clock_timestamp();
        new.error := cancelled_error();
    end if;
    return new;
end
$$;

do $$
begin
    execute format(
        'alter function fail_cancelled_job() set search_path = %I, pg_temp', current_schema()
    );
end
$$;

drop trigger job_is_not_pending_again_when_cancelled on job;
create trigger job_is_not_pending_again_when_cancelled
before update on job
for each row
when (new.lease_token is null and new.result is null)
execute function fail_cancelled_job();
