-- Who waits for a job is told when jobs have changed, to look for himself.
--
-- A NOTIFY takes a lock that serialises commits, so a statement that moves jobs notifies only
-- where somebody waits. Who waits holds an advisory lock, shared with others who wait; whether
-- somebody holds it shows by trying to take it alone for a moment. (A statement that is under
-- way when the lock is taken does not tell: so who has just begun to wait looks again shortly
-- after, and polls.)

create function watch_jobs() returns void
language sql volatile
return pg_advisory_lock_shared(4848715300917);

create function unwatch_jobs() returns void
language sql volatile
return pg_advisory_unlock_shared(4848715300917);

create function tell_who_waits() returns trigger
language plpgsql
as $$
begin
    -- One expression: between statements a cancel could take hold and leave the lock behind.
    if not (
        case
            when pg_try_advisory_lock(4848715300917) then pg_advisory_unlock(4848715300917)
            else false
        end
    ) then
        perform pg_notify('job_changed', '');
    end if;
    return null;
end
$$;

create trigger job_moves_are_told
after update of status on job
for each statement
execute function tell_who_waits();

comment on function watch_jobs() is
    'Lets every move of a job notify job_changed, until unwatch_jobs() or the end of the session.';
comment on function unwatch_jobs() is 'Undoes one watch_jobs() of this session.';
comment on function tell_who_waits() is 'Notifies job_changed if somebody watches.';
