-- The look whether somebody waits is the condition of the trigger, no statement of its function.
--
-- To call a function in plpgsql for it was some hundredths of a claim of one job, and nearly always
-- nobody waits. (See 0017 for the lock.) The look is when the update is done, which in all
-- statements that move jobs is their end.
create or replace function tell_who_waits() returns trigger
language plpgsql
as $$
begin
    perform pg_catalog.pg_notify('job_changed', '');
    return null;
end
$$;

-- One expression: between two a cancel could take hold and leave the lock behind.
create or replace trigger job_moves_are_told
after update of status on job
for each statement
when (
    case
        when pg_try_advisory_lock(4848715300917) then not pg_advisory_unlock(4848715300917)
        else true
    end
)
execute function tell_who_waits();

create or replace trigger job_progress_is_told
after insert or update on job_progress
for each statement
when (
    case
        when pg_try_advisory_lock(4848715300917) then not pg_advisory_unlock(4848715300917)
        else true
    end
)
execute function tell_who_waits();

comment on function tell_who_waits() is 'Notifies job_changed, for a trigger that has seen somebody watch.';
