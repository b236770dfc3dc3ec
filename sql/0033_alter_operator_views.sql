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

-- A long queue is so much to read that PostgreSQL would compile the plan, which takes it up to a
-- second: in a function it is told not to.
create function count_queue(
    model text,
    out unfinished bigint,
    out processing bigint,
    out waiting bigint,
    out oldest_pending_at timestamptz
)
language plpgsql stable
as $$
begin
    select
        count(*) as unfinished,
        count(job.lease_token) as processing,
        count(*) filter (where job.run_at > now() and job.lease_token is null) as waiting,
        min(job.created_at) filter (where job.lease_token is null) as oldest_pending_at
    into
        count_queue.unfinished,
        count_queue.processing,
        count_queue.waiting,
        count_queue.oldest_pending_at
    from job
    where
        job.model = count_queue.model
        and job.finished_at is null;
end
$$;

comment on function count_queue(text) is
    'How many jobs of a model are not final, in work, waiting for a retry, and when the oldest pending one was submitted.';

-- Whatever the search_path of the caller, it sees the tables of this schema.
do $$
begin
    execute format(
        'alter function count_queue(text) set search_path = %I, pg_temp', current_schema()
    );
    execute 'alter function count_queue(text) set jit = off';
end
$$;

revoke execute on function count_queue(text) from public;
grant execute on function count_queue(text) to job_web, job_runner, job_janitor;

create or replace view model_queue as
select
    model.name as model,
    queue.unfinished - queue.processing as pending,
    queue.waiting as waiting_to_retry,
    queue.processing,
    queue.oldest_pending_at,
    crew.runners,
    crew.workers,
    crew.jobs_per_second,
    crew.inference_seconds,
    crew.versions
from model
cross join lateral count_queue(model.name) as queue
cross join lateral (
    select
        count(*) as runners,
        coalesce(sum(model_crew.workers), 0) as workers,
        round(coalesce(sum(model_crew.jobs_per_second), 0)::numeric, 2) as jobs_per_second,
        round(avg(model_crew.inference_seconds)::numeric, 3) as inference_seconds,
        array_agg(distinct model_crew.version) filter (where model_crew.version is not null) as versions
    from model_crew
    where model_crew.model = model.name
) as crew;
