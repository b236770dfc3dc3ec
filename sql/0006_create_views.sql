-- What people look at in psql: how the queue stands, who works, what failed lately.

create view queue_health as
select
    model.name as model,
    coalesce(queue.pending, 0) as pending,
    coalesce(queue.waiting, 0) as waiting_to_retry,
    coalesce(queue.processing, 0) as processing,
    date_trunc('second', now() - queue.oldest_pending) as oldest_pending_age,
    crew.runners,
    crew.workers,
    crew.jobs_per_second
from model
left join (
    select
        job.model,
        count(*) filter (where job.status = 'pending') as pending,
        count(*) filter (where job.status = 'pending' and job.run_at > now()) as waiting,
        count(*) filter (where job.status = 'processing') as processing,
        min(job.created_at) filter (where job.status = 'pending') as oldest_pending
    from job
    where job.finished_at is null
    group by job.model
) as queue on model.name = queue.model
cross join lateral (
    select
        count(*) as runners,
        coalesce(sum(runner.workers), 0) as workers,
        round(coalesce(sum(runner.jobs_per_second), 0)::numeric, 2) as jobs_per_second
    from runner
    where
        model.name = any(runner.models)
        and runner.lost_at is null
        and runner.heartbeat_at + runner.lease > now()
) as crew
order by model.name;

comment on view queue_health is
    'One row a model: jobs waiting and in work, age of the oldest, and the live runners that serve it.';

create view runner_overview as
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
    round(runner.inference_seconds::numeric, 3) as inference_seconds
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

comment on view runner_overview is
    'One row a runner: its state, workers, jobs in hand, last heartbeat, and what it has done since it started.';

create view recent_failure as
select
    id as job,
    model,
    error ->> 'code' as code,
    error ->> 'message' as message,
    attempt,
    max_attempts,
    claimed_by as runner,
    created_at,
    finished_at
from job
where error is not null
order by finished_at desc
limit 100;

comment on view recent_failure is 'The last hundred failed jobs and why they failed, newest first.';
