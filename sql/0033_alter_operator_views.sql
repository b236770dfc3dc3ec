-- Who works on what is found by the claims (see claimed_job), and no longer by reading all that wait.

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
    runner.trouble,
    served.versions,
    served.memory_mb
from runner
left join (
    select
        job.claimed_by,
        count(*) as jobs
    from job
    where
        job.id = any(array(select claimed_job.id from claimed_job))
        and job.lease_token is not null
    group by job.claimed_by
) as held on runner.id = held.claimed_by
cross join lateral (
    select
        array_agg(runner_model.version order by runner_model.model) as versions,
        round(sum(runner_model.memory_bytes) / 1048576) as memory_mb
    from runner_model
    where runner_model.runner = runner.id
) as served
order by runner.started_at, runner.id;

create or replace view running_job as
select
    held.id as job,
    held.model,
    held.claimed_by as runner,
    held.attempt,
    held.max_attempts,
    date_trunc('second', now() - held.started_at) as runs_for,
    round((100 * job_progress.fraction)::numeric) as percent,
    job_progress.word as progress,
    date_trunc('second', now() - runner.heartbeat_at) as runner_heard_ago,
    date_trunc('second', now() - cancel_request.requested_at) as cancel_asked_ago
from (
    select
        id,
        model,
        claimed_by,
        attempt,
        max_attempts,
        started_at
    from job
    where
        id = any(array(select claimed_job.id from claimed_job))
        and lease_token is not null
) as held
left join runner on held.claimed_by = runner.id
left join job_progress
    on
        held.id = job_progress.job_id
        and held.attempt = job_progress.attempt
        and held.started_at <= job_progress.updated_at
left join cancel_request on held.id = cancel_request.job_id
order by held.started_at, held.id;
