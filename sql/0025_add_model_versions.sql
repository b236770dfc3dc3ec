-- What a model takes and gives, by version; which of them runners serve; and of a job, which
-- version answered it, in how large a batch, and how long that took.
--
-- A version is fixed once a runner has registered it: who takes or gives something else is
-- another version. The web checks inputs against the version that runs.

create table model_version (
    model text not null,
    version text not null,
    input_schema jsonb,
    output_schema jsonb,
    max_batch_size smallint not null,
    max_wait_ms real not null,
    timeout_seconds double precision not null,
    registered_at timestamptz not null default clock_timestamp(),

    constraint model_version_pkey primary key (model, version),
    constraint version_is_short check (length(version) between 1 and 100),
    constraint schemas_are_objects check (
        (input_schema is null or jsonb_typeof(input_schema) = 'object')
        and (output_schema is null or jsonb_typeof(output_schema) = 'object')
    ),
    constraint batch_size_is_from_1_to_1000 check (max_batch_size between 1 and 1000)
);

create table runner_model (
    runner text not null,
    model text not null,
    version text,
    workers smallint not null,
    ready_workers smallint not null default 0,
    jobs_per_second double precision not null default 0,
    inference_seconds double precision,
    batch_size double precision,
    memory_bytes bigint,

    constraint runner_model_pkey primary key (runner, model),
    constraint runner_model_runner_fkey foreign key (runner) references runner (id) on delete cascade
)
-- Updated with each heartbeat: leave room on the page, so that this stays heap-only.
with (fillfactor = 50);

alter table job
add column model_version text,
add column batch_size smallint,
add column inference_seconds real;

alter table activity add column calls double precision not null default 0;

grant update (model_version, batch_size, inference_seconds) on job to job_runner;
grant select on model_version, runner_model to job_web, job_runner, job_janitor;
grant insert on model_version to job_runner;
grant insert, update, delete on runner_model to job_runner;

comment on table model_version is
    'One row a version of a model: what it takes and gives. Never changed; a runner inserts it when its model is loaded.';
comment on column model_version.model is 'Name of the model.';
comment on column model_version.version is
    'As the model says; where it says nothing, a mark of its schemas.';
comment on column model_version.input_schema is
    'JSON Schema (2020-12) of an input; null where any object will do, as for a text.';
comment on column model_version.output_schema is 'JSON Schema (2020-12) of a result; null where anything will do.';
comment on column model_version.max_batch_size is 'How many items it takes at once, at most.';
comment on column model_version.max_wait_ms is 'How long an item may wait for others to come, in milliseconds.';
comment on column model_version.timeout_seconds is 'A call that takes longer is ended.';
comment on column model_version.registered_at is 'When a runner first offered it.';

comment on table runner_model is 'One row a runner and model that it serves, brought up to date with its heartbeat.';
comment on column runner_model.runner is 'Id of the runner.';
comment on column runner_model.model is 'Name of the model.';
comment on column runner_model.version is 'Which version it serves; null until the model is loaded.';
comment on column runner_model.workers is 'How many worker processes it keeps for the model.';
comment on column runner_model.ready_workers is 'Those that have loaded it.';
comment on column runner_model.jobs_per_second is 'Attempts finished per second, averaged over about a minute.';
comment on column runner_model.inference_seconds is 'Time of a call of the model, a moving average in seconds.';
comment on column runner_model.batch_size is 'How many jobs a call has, a moving average.';
comment on column runner_model.memory_bytes is 'Memory of these workers, where the machine says; in bytes.';

comment on column job.model_version is 'Which version of the model ran last.';
comment on column job.batch_size is 'How many jobs were in the call that answered it.';
comment on column job.inference_seconds is 'How long that call took, in seconds.';
comment on column activity.calls is 'How often the model was called: the inferences ÷ this is the mean size of a batch.';

-- Who works for a model. (A runner of before has no rows in runner_model.)
create view model_crew as
select
    served.model,
    runner.id as runner,
    runner_model.version,
    coalesce(runner_model.workers, runner.workers) as workers,
    coalesce(runner_model.ready_workers, runner.ready_workers) as ready_workers,
    coalesce(runner_model.jobs_per_second, runner.jobs_per_second) as jobs_per_second,
    coalesce(runner_model.inference_seconds, runner.inference_seconds) as inference_seconds,
    coalesce(runner_model.batch_size, 1) as batch_size,
    runner_model.memory_bytes,
    runner.stop_requested_at is not null as stopping
from runner
cross join lateral unnest(runner.models) as served (model)
left join runner_model
    on
        runner.id = runner_model.runner
        and served.model = runner_model.model
where
    runner.lost_at is null
    and runner.heartbeat_at + runner.lease > now();

comment on view model_crew is 'One row a live runner and model that it serves: its workers and how fast they are.';

-- Inputs are checked against the newest version that runs (who is asked to stop claims nothing
-- any more) or, while none does, the newest of all.
create view serving_version as
select distinct on (model_version.model)
    model_version.model,
    model_version.version,
    model_version.input_schema,
    model_version.output_schema,
    model_version.max_batch_size
from model_version
left join model_crew
    on
        model_version.model = model_crew.model
        and model_version.version = model_crew.version
        and not model_crew.stopping
order by
    model_version.model asc,
    model_crew.runner is not null desc,
    model_version.registered_at desc;

comment on view serving_version is
    'Of each model the version that inputs are checked against: the newest that runs, or else of all.';

grant select on model_crew, serving_version to job_web, job_runner, job_janitor;

create or replace view queue_health as
select
    model.name as model,
    coalesce(queue.pending, 0) as pending,
    coalesce(queue.waiting, 0) as waiting_to_retry,
    coalesce(queue.processing, 0) as processing,
    date_trunc('second', now() - queue.oldest_pending) as oldest_pending_age,
    crew.runners,
    crew.workers,
    crew.jobs_per_second,
    table_health.dead_percent,
    table_health.held_by,
    table_health.held_for,
    table_health.held_by_query,
    table_health.advice,
    crew.versions
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
        coalesce(sum(model_crew.workers), 0) as workers,
        round(coalesce(sum(model_crew.jobs_per_second), 0)::numeric, 2) as jobs_per_second,
        array_agg(distinct model_crew.version) filter (where model_crew.version is not null) as versions
    from model_crew
    where model_crew.model = model.name
) as crew
cross join table_health
order by model.name;

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
        and job.status = 'processing'
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
