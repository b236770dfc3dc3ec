-- The same rules in fewer words. PostgreSQL keeps each CHECK and each WHEN as a text that it
-- reads anew in every statement: they took a quarter of the time of an insert, a claim or an
-- outcome of one row. What most rows have not (an error, a result) is judged by a function that
-- is strict, and so not called for them.

create function is_error(value jsonb) returns boolean
language plpgsql immutable strict parallel safe
as $$
begin
    return coalesce(
        jsonb_typeof(value -> 'code') = 'string'
        and jsonb_typeof(value -> 'message') = 'string'
        and jsonb_typeof(value -> 'retryable') = 'boolean',
        false
    );
end
$$;

-- A CASE, because AND promises no order and a cast of a non-number would raise.
create function is_sentiment(value jsonb) returns boolean
language plpgsql immutable strict parallel safe
as $$
begin
    return case
        when jsonb_typeof(value -> 'confidence') = 'number'
            then
                (value ->> 'confidence')::numeric between 0 and 1
                and coalesce(value ->> 'sentiment' in ('positive', 'negative'), false)
        else false
    end;
end
$$;

comment on function is_error(jsonb) is 'Whether it is {"code", "message", "retryable"}.';
comment on function is_sentiment(jsonb) is
    'Whether it is {"sentiment": "positive" | "negative", "confidence": 0 to 1}.';

-- Where there is no error or result, the function gives null, which is no violation.
-- greatest() and least() pass over nulls.
alter table job
drop constraint error_has_code_message_and_retryable,
add constraint error_has_code_message_and_retryable
check (is_error(error)),

drop constraint sentiment_has_a_confidence_from_0_to_1,
add constraint sentiment_has_a_confidence_from_0_to_1
check (model <> 'sentiment' or is_sentiment(result)),

drop constraint times_are_of_years_1_to_9999,
add constraint times_are_of_years_1_to_9999
check (
    least(run_at, created_at, started_at, finished_at) >= '0001-01-03 00:00+00'
    and greatest(run_at, created_at, started_at, finished_at) <= '9999-12-29 00:00+00'
);

-- The CHECKs tie the columns to the status: who has a lease_token is processing, who has
-- finished_at is final, and only the completed have a result. So the moves can be told by them:
-- pending → processing (attempt + 1) | pending | failed,
-- processing → completed | failed | pending (attempt the same, or 1 less: handed back).
drop trigger job_makes_legal_moves_only on job;
create trigger job_makes_legal_moves_only
before update on job
for each row
when (
    old.finished_at is not null
    or case
        when old.lease_token is null
            then
                new.attempt <> old.attempt + (new.lease_token is not null)::integer
                or new.result is not null
        else
            new.lease_token is not null
            or new.attempt > old.attempt
            or new.attempt < old.attempt - (new.finished_at is null)::integer
    end
    or new.id <> old.id
    or new.model <> old.model
    or new.created_at <> old.created_at
    or new.input is distinct from old.input
)
execute function refuse_job_change();
comment on trigger job_makes_legal_moves_only on job is
    'Refuses every move but those of the protocol, and any change of a final row.';
