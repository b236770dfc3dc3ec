-- The wake-up. A notification is a hint: runners look for themselves as well.
--
-- A NOTIFY takes a lock that serialises commits, so an insert notifies only if a runner
-- sleeps (has a free worker and found nothing to claim). Busy runners look anyway when a
-- worker comes free. A runner that falls asleep while an insert is in flight is not seen
-- by it: it looks again shortly after falling asleep, and polls.

create function wake_sleeping_runners() returns trigger
language plpgsql
as $$
begin
    if exists (select from runner where sleeping) then
        perform pg_notify('job_submitted', '');
    end if;
    return null;
end
$$;

-- Whoever inserts a job, under whatever search_path: it is this schema's runners that wake.
do $$
begin
    execute format(
        'alter function wake_sleeping_runners() set search_path = %I, pg_temp', current_schema()
    );
end
$$;

create trigger job_wakes_sleeping_runners
after insert on job
for each statement
execute function wake_sleeping_runners();

-- A runner that is asked to stop hears it at once, not only at its next heartbeat.
create function tell_runner_to_stop() returns trigger
language plpgsql
as $$
begin
    perform pg_notify('runner_stop_requested', new.id);
    return null;
end
$$;

create trigger runner_hears_stop_request
after update of stop_requested_at, stop_now on runner
for each row
when (
    new.stop_requested_at is not null
    and (old.stop_requested_at is null or new.stop_now <> old.stop_now)
)
execute function tell_runner_to_stop();

comment on function wake_sleeping_runners() is 'Notifies job_submitted if a runner sleeps.';
comment on function tell_runner_to_stop() is 'Notifies runner_stop_requested with the id of the runner.';
