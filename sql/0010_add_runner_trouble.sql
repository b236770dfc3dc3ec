-- What is wrong with a runner, in its own words, where people look for it first.

alter table runner add column trouble text;

comment on column runner.trouble is
    'What keeps it from working as it should, since its last heartbeat: no notifications, say, or a model that does not load. Null where nothing does.';

create or replace view runner_overview as
select
    runner.id as runner,
    case
        when runner.lost_at is not null then 'lost'
        when runner.heartbeat_at + runner.lease < now() then 'silent'
        when runner.stop_requested_at is not null then 'stopping'
        when runner.ready_workers = 0 then 'starting'
        when held.jobs > 0 then 'working'
        else 'idle'
    end as state,
    runner.host,
    runner.pid,
    runner.models,
    runner.workers,
    runner.ready_workers as ready,
    coalesce(held.jobs, 0) as busy,
    date_trunc('second', now() - runner.heartbeat_at) as last_heartbeat_ago,
    date_trunc('second', now() - runner.started_at) as up_for,
    runner.completed,
    runner.failed,
    round(runner.jobs_per_second::numeric, 2) as jobs_per_second,
    round(runner.inference_seconds::numeric, 3) as inference_seconds,
    runner.trouble
from runner
left join (
    select
        job.claimed_by,
        count(*) as jobs
    from job
    where
        job.finished_at is null
        and job.status = 'processing'
    group by job.claimed_by
) as held on runner.id = held.claimed_by
order by runner.started_at, runner.id;
