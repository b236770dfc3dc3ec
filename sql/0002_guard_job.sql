-- What must never happen to a job, whoever asks: a final row never changes, only the moves
--
--     pending -> processing                     claim
--     processing -> completed                   finish
--     processing -> failed                      finish, cancel
--     processing -> pending                     release, retry after a failure, rescue
--     pending -> failed                         cancel
--
-- are made, and an unfinished row is not deleted. The conditions stand in the triggers'
-- WHEN, where a legal move costs a comparison and no call.

create function refuse_job_change() returns trigger
language plpgsql
as $$
begin
    if old.status in ('completed', 'failed') then
        raise exception 'job % is % and never changes again', old.id, old.status
            using errcode = 'restrict_violation';
    end if;
    raise exception 'job % may not go from % (attempt %) to % (attempt %)',
        old.id, old.status, old.attempt, new.status, new.attempt
        using
            errcode = 'restrict_violation',
            hint = 'A claim adds 1 to attempt, a release takes 1 away; id, model, input and created_at are fixed.';
end
$$;

create trigger job_makes_legal_moves_only
before update on job
for each row
when (
    not case old.status
        when 'pending' then
            case new.status
                when 'pending' then new.attempt = old.attempt
                when 'processing' then new.attempt = old.attempt + 1
                when 'failed' then new.attempt = old.attempt
                else false
            end
        when 'processing' then
            case new.status
                when 'pending' then new.attempt in (old.attempt, old.attempt - 1)
                when 'completed' then new.attempt = old.attempt
                when 'failed' then new.attempt = old.attempt
                else false
            end
        else false
    end
    or new.id <> old.id
    or new.model <> old.model
    or new.created_at <> old.created_at
    or new.input is distinct from old.input
)
execute function refuse_job_change();

create function refuse_job_deletion() returns trigger
language plpgsql
as $$
begin
    raise exception 'job % is % and is not deleted before it is final', old.id, old.status
        using errcode = 'restrict_violation';
end
$$;

create trigger job_is_deleted_when_final_only
before delete on job
for each row
when (old.finished_at is null)
execute function refuse_job_deletion();
