-- What whoever is on call asks first: see docs/operations.md.
--
-- Each view is quick beside millions of finished jobs and a hundred thousand that wait. (What is
-- in work can only be told from what waits by reading both: no index knows it, so that a claim
-- stays a heap-only update. That is what queue_health, runner_overview and running_job take their
-- time for. Who has a lease_token is processing; to ask for that is the cheapest.)

-- In times, not ages: what it says is the same until something happens.
create view model_queue as
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
cross join lateral (
    select
        count(*) as unfinished,
        count(job.lease_token) as processing,
        count(*) filter (where job.run_at > now() and job.lease_token is null) as waiting,
        min(job.created_at) filter (where job.lease_token is null) as oldest_pending_at
    from job
    where
        job.model = model.name
        and job.finished_at is null
) as queue
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

comment on view model_queue is
    'How the queue of each model stands, and who serves it. For people: queue_health, which has ages, and the state of the table.';
comment on column model_queue.model is 'Name of the model.';
comment on column model_queue.pending is 'Jobs that wait for a worker, those for a retry among them.';
comment on column model_queue.waiting_to_retry is 'Of these, those that are not due yet.';
comment on column model_queue.processing is 'Jobs that a runner has claimed.';
comment on column model_queue.oldest_pending_at is 'When the oldest pending job was submitted.';
comment on column model_queue.runners is 'Live runners that serve the model.';
comment on column model_queue.workers is 'Worker processes of these runners.';
comment on column model_queue.jobs_per_second is 'Attempts finished per second, averaged over about a minute.';
comment on column model_queue.inference_seconds is 'What a call of the model takes lately, on average.';
comment on column model_queue.versions is 'Versions of the model that are served now; empty where none is.';

create or replace view queue_health as
select
    model_queue.model,
    model_queue.pending,
    model_queue.waiting_to_retry,
    model_queue.processing,
    date_trunc('second', now() - model_queue.oldest_pending_at) as oldest_pending_age,
    model_queue.runners,
    model_queue.workers,
    model_queue.jobs_per_second,
    table_health.dead_percent,
    table_health.held_by,
    table_health.held_for,
    table_health.held_by_query,
    table_health.advice,
    model_queue.versions
from model_queue
cross join table_health
order by model_queue.model;

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
        job.finished_at is null
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

-- In the order of the claim, which is that of its index.
create view waiting_job as
select
    next.id as job,
    next.model,
    next.priority,
    date_trunc('second', now() - next.created_at) as waits_for,
    case when next.run_at > now() then date_trunc('second', next.run_at - now()) end as due_in,
    next.attempt,
    next.max_attempts,
    next.errors -> -1 ->> 'code' as last_error,
    next.client_id as client
from model
cross join lateral (
    select
        job.id,
        job.model,
        job.priority,
        job.created_at,
        job.run_at,
        job.attempt,
        job.max_attempts,
        job.errors,
        job.client_id
    from job
    where
        job.model = model.name
        and job.finished_at is null
        and job.lease_token is null
    order by -job.priority, job.run_at, job.id
    limit 20
) as next
order by next.model, -next.priority, next.run_at, next.id;

comment on view waiting_job is
    'Of each model the twenty jobs that are claimed next, in that order, and how long they have waited.';
comment on column waiting_job.job is 'Its id.';
comment on column waiting_job.model is 'Who is to answer it.';
comment on column waiting_job.priority is 'From -100 to 100, higher first.';
comment on column waiting_job.waits_for is 'Time since it was submitted.';
comment on column waiting_job.due_in is 'It is not claimed before; empty where it is due.';
comment on column waiting_job.attempt is 'How many starts were counted so far.';
comment on column waiting_job.max_attempts is 'After so many a failure is final.';
comment on column waiting_job.last_error is 'Code of the failure of its last attempt; empty before the first.';
comment on column waiting_job.client is 'Whose it is, where API keys are on.';

create view running_job as
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
        finished_at is null
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

comment on view running_job is
    'One row a job in work: which runner has it, and for how long. The one that has run longest comes first.';
comment on column running_job.job is 'Its id.';
comment on column running_job.model is 'Who answers it.';
comment on column running_job.runner is 'Id of the runner that has claimed it.';
comment on column running_job.attempt is 'Which attempt this is.';
comment on column running_job.max_attempts is 'After so many a failure is final.';
comment on column running_job.runs_for is
    'Time since the claim: of a short job it may have waited within its runner for some of it.';
comment on column running_job.percent is 'How far it is, where its model says so.';
comment on column running_job.progress is 'What it is doing, in the words of its model.';
comment on column running_job.runner_heard_ago is
    'Time since the last heartbeat of its runner; empty where that is gone, and the job about to be rescued.';
comment on column running_job.cancel_asked_ago is 'Time since somebody wanted it cancelled; empty where nobody did.';

-- Messages that differ only in numbers, in ids or in what stands in quotes are one shape.
create function message_shape(message text) returns text
language sql immutable strict parallel safe
return regexp_replace(
    left(split_part(message, E'\n', 1), 200),
    '"[^"]*"|(?<![[:alnum:]])''[^'']*'''
    || '|0x[[:xdigit:]]+|[[:xdigit:]]{8}(-[[:xdigit:]]{4}){3}-[[:xdigit:]]{12}'
    || '|[0-9]+([.,][0-9]+)*',
    '…',
    'g'
);

comment on function message_shape(text) is
    'The first line of a message, without what differs from job to job: numbers, ids, what stands in quotes.';

create view failure_summary as
select
    model,
    code,
    message,
    count(*) as jobs,
    date_trunc('second', now() - min(finished_at)) as first_ago,
    date_trunc('second', now() - max(finished_at)) as last_ago,
    (array_agg(id order by finished_at desc, id desc))[1] as last_job
from (
    select
        id,
        model,
        finished_at,
        error ->> 'code' as code,
        message_shape(error ->> 'message') as message
    from job
    where
        error is not null
        and finished_at > now() - interval '1 day'
    order by finished_at desc
    limit 1000
) as failed
group by model, code, message
order by jobs desc, last_ago asc, model asc, code asc, message asc;

comment on view failure_summary is
    'Why jobs failed, of the last 1000 that did within a day: alike ones in one row. (Where these are 1000 together there may be more; throughput counts all.)';
comment on column failure_summary.model is 'Who was to answer them.';
comment on column failure_summary.code is 'What job.error says: timeout, model_error and so on.';
comment on column failure_summary.message is 'What their messages have in common; … for what differs.';
comment on column failure_summary.jobs is 'How many there are of these.';
comment on column failure_summary.first_ago is 'Time since the first of them failed.';
comment on column failure_summary.last_ago is 'Time since the last one did.';
comment on column failure_summary.last_job is 'Id of the last one, to look at: jobrunner show.';

-- Also the minutes in which nothing was done: that is what one looks for.
create view throughput as
select
    minutes.minute,
    ever.model,
    coalesce(activity.completed, 0) as completed,
    coalesce(activity.failed, 0) as failed,
    coalesce(activity.retried, 0) as retried,
    coalesce(activity.rescued, 0) as rescued,
    round(coalesce(activity.completed, 0)::numeric / minutes.seconds, 2) as per_second,
    round((activity.wait_seconds / nullif(claims.count, 0))::numeric, 3) as mean_wait_seconds,
    round((activity.inference_seconds / nullif(inferences.count, 0))::numeric, 3) as mean_inference_seconds
from activity as ever
cross join lateral (
    select
        generate_series as minute,
        greatest(1, least(60, extract(epoch from now() - generate_series))) as seconds
    from generate_series(
        date_trunc('minute', now()) - interval '59 minutes',
        date_trunc('minute', now()),
        interval '1 minute'
    )
) as minutes
left join activity
    on
        ever.model = activity.model
        and minutes.minute = activity.minute
cross join lateral (
    select sum(bucket) as count
    from unnest(activity.waits) as buckets (bucket)
) as claims
cross join lateral (
    select sum(bucket) as count
    from unnest(activity.inferences) as buckets (bucket)
) as inferences
where ever.minute = '-infinity'
order by minutes.minute desc, ever.model asc;

comment on view throughput is
    'What was done in each minute of the last hour, by model, the present one first. Runners add to it with each heartbeat.';
comment on column throughput.minute is 'When it began.';
comment on column throughput.model is 'Each that has ever done something.';
comment on column throughput.completed is 'Jobs completed.';
comment on column throughput.failed is 'Attempts with which their job failed.';
comment on column throughput.retried is 'Attempts that failed or were lost, of jobs that are tried again.';
comment on column throughput.rescued is 'Jobs that were freed from a dead runner.';
comment on column throughput.per_second is 'Jobs completed a second.';
comment on column throughput.mean_wait_seconds is 'From when a job was due to its claim; empty without a claim.';
comment on column throughput.mean_inference_seconds is 'In the worker; empty without an inference.';

-- By index alone.
create view client_backlog as
select
    client_id as client,
    count(*) as jobs
from job
where
    client_id is not null
    and finished_at is null
group by client_id
order by jobs desc, client asc;

comment on view client_backlog is
    'One row a client with jobs that are not final: how many. Empty where API keys are off.';
comment on column client_backlog.client is 'Whose they are: job.client_id.';
comment on column client_backlog.jobs is 'How many wait or are in work.';

grant select on
model_queue, waiting_job, running_job, failure_summary, throughput, client_backlog
to job_web, job_runner, job_janitor;
