-- An insert wakes up one of the runners that sleep, not all.
--
-- Of eight that were woken up for one job, seven claimed in vain, and wanted the processors that
-- the eighth needed. Now each listens on a channel of its own, and an insert picks one (of those
-- that serve the same models), and says whether others sleep. Then who has no worker free for all
-- that is there wakes up as many of them as there are jobs left: see WAKE_OTHERS in
-- jobrunner/queue.py. Who has none free at all lets another see to it: see WAKE_ANOTHER in
-- jobrunner/heartbeat.py.
--
-- All inserts of a second pick the same, while it sleeps: what was just awake is quick, and has in
-- its caches what it needs. Those of the next pick another, so that all have their share.
--
-- Who is dead hears nothing, and its row says for some seconds that it sleeps. So those come first
-- that hold their lock and have beaten lately. Where it was the wrong one nevertheless, the others
-- find the job when they poll.
--
-- A runner of the version before has no channel: all of them hear job_submitted, as before.

alter table runner
add column wake_channel text,
-- One that can not be notified would let every insert fail.
add constraint wake_channel_can_be_notified check (wake_channel <> '' and octet_length(wake_channel) < 64);

-- To look at a lock shares it for a moment; who holds it has it alone.
create or replace function runner_holds_lock(runner_id text) returns boolean
language sql stable
return exists (
    select
    from pg_locks
    where
        locktype = 'advisory'
        and mode = 'ExclusiveLock'
        and granted
        and objsubid = 1 -- a key of one bigint, split into two halves
        and database = (select oid from pg_database where datname = current_database())
        and ((classid::bigint << 32) | objid::bigint) = runner_lock_key(runner_id)
);

-- To read all locks takes a hundred times as long. One expression: between two a cancel could take
-- hold and leave the lock behind.
create function runner_lock_is_free(runner_id text) returns boolean
language sql volatile
return case
    when pg_try_advisory_lock_shared(runner_lock_key(runner_id))
        then pg_advisory_unlock_shared(runner_lock_key(runner_id))
    else false
end;

create view sleeping_runner as
select
    runner.id as runner,
    runner.models,
    coalesce(runner.wake_channel, 'job_submitted') as channel,
    -- It beats six times in its lease: else two are missing.
    runner.heartbeat_at + runner.lease / 3 >= now()
    and (not runner.has_lock or not runner_lock_is_free(runner.id)) as is_well,
    hashtextextended(runner.id, extract(epoch from now())::bigint) as turn
from runner
where runner.sleeping;

-- The table is named in full, instead of setting the search_path for each insert.
do $do$
begin
    execute format(
        $body$
            create or replace function wake_sleeping_runners() returns trigger
            language plpgsql
            as $$
            begin
                if exists (select from %1$I.runner where sleeping) then
                    perform pg_catalog.pg_notify(chosen.channel, chosen.note)
                    from (
                        select distinct on (models)
                            channel,
                            case
                                -- All of an older version are told at once.
                                when channel = 'job_submitted' then ''
                                when count(*) over (partition by models) > 1 then 'others_sleep'
                                else ''
                            end as note
                        from %1$I.sleeping_runner
                        order by
                            models,
                            is_well desc,
                            turn
                    ) as chosen;
                end if;
                return null;
            end
            $$
        $body$,
        current_schema()
    );
end
$do$;

grant select on sleeping_runner to job_web, job_runner, job_janitor;

comment on column runner.wake_channel is
    'The channel on which it is told that there are jobs for it. Null where it is of an older version: then job_submitted.';
comment on function wake_sleeping_runners() is 'Notifies one of the runners that sleep, of those that serve the same models.';
comment on function runner_lock_is_free(text) is 'Whether nobody holds the advisory lock of that runner: it is dead, then, or holds none.';
comment on view sleeping_runner is 'Runners that found too few jobs: an insert wakes one of them up. Who is busy meanwhile lets another see to it.';
comment on column sleeping_runner.runner is 'Id of the runner.';
comment on column sleeping_runner.models is 'Names of the models that it serves.';
comment on column sleeping_runner.channel is 'Where it is notified.';
comment on column sleeping_runner.is_well is
    'Whether it has beaten within a third of its lease, and the lock that it said to hold is held.';
comment on column sleeping_runner.turn is 'The least is woken up first; in each second it is another.';
