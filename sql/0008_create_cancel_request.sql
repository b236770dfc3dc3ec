-- The cancel: a row that the web inserts, and what the database makes of it.
--
-- A pending job fails in the same transaction. One that is being processed is left to its
-- runner, which is notified, and looks now and then as well: it ends the inference and
-- records the failure, unless the outcome was there first. Whatever would send a job with a
-- cancel request back to pending (a retry, a release, a rescue) fails it instead.

create table cancel_request (
    job_id uuid not null,
    requested_at timestamptz not null default clock_timestamp(),

    constraint cancel_request_pkey primary key (job_id),

    constraint cancel_request_names_a_job
    foreign key (job_id) references job (id) on delete cascade
);

create function cancelled_error() returns jsonb
language sql immutable parallel safe
return '{"code": "cancelled", "message": "the job was cancelled", "retryable": false}'::jsonb;

-- Security definer: who may insert a request need not be allowed to change a job. The row is
-- locked first, so that a claim, an outcome or a retry under way is waited for and what it
-- made of the job is seen.
create function cancel_requested_job() returns trigger
language plpgsql
security definer
as $$
declare
    v_status text;
begin
    select status into v_status
    from job
    where id = new.job_id
    for update;

    if v_status = 'pending' then
        update job
        set
            status = 'failed',
            finished_at = clock_timestamp(),
            error = cancelled_error()
        where id = new.job_id;
    elsif v_status = 'processing' then
        perform pg_notify('cancel_requested', new.job_id::text);
    end if;
    return null;
end
$$;

create trigger cancel_request_takes_hold
after insert on cancel_request
for each row
execute function cancel_requested_job();

-- Also where a rescue fails the job because no attempt is left: that is no outcome.
-- It runs when the row is locked, and so sees each request that was committed before.
create function fail_cancelled_job() returns trigger
language plpgsql
as $$
begin
    if exists (select from cancel_request where job_id = new.id) then
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

-- Whatever the search_path of the caller, these functions see the tables of this schema.
do $$
begin
    execute format(
        'alter function cancel_requested_job() set search_path = %I, pg_temp', current_schema()
    );
    execute format(
        'alter function fail_cancelled_job() set search_path = %I, pg_temp', current_schema()
    );
end
$$;

-- Triggers fire in the order of their names: this one comes before job_makes_legal_moves_only.
create trigger job_is_not_pending_again_when_cancelled
before update on job
for each row
when (
    old.status = 'processing'
    and (new.status = 'pending' or new.error ->> 'code' = 'runner_lost')
)
execute function fail_cancelled_job();

grant select, insert (job_id) on cancel_request to job_web, job_runner;
grant select on cancel_request to job_janitor;

comment on table cancel_request is
    'Jobs that somebody wants cancelled: insert a row, and the job fails with the code cancelled, at once while pending, within seconds while processing.';
comment on column cancel_request.job_id is 'The job; a final one stays as it is.';
comment on column cancel_request.requested_at is 'When it was first asked for.';
comment on function cancelled_error() is 'What job.error says of a cancelled job.';
comment on function cancel_requested_job() is
    'Fails a pending job, or notifies cancel_requested with the id of one that is being processed.';
comment on function fail_cancelled_job() is 'Makes failed of pending where a cancel was requested.';
