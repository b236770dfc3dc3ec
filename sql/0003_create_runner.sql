-- The runner: one row a live runner, its heartbeat, and how it is asked to stop.
--
-- A runner inserts its row when it starts, beats by one small update, and deletes the row
-- when it has stopped. It also holds a session-level advisory lock under its id for as long
-- as its listening connection lives: the lock is gone within a moment of a crash, long
-- before the lease is over. Other runners judge by both, and mark a dead one with lost_at;
-- whoever was marked comes back under a new id. What a lost or vanished runner had claimed
-- is rescued.

create table runner (
    id text not null,
    host text not null,
    pid integer not null,
    version text not null,
    models text[] not null,
    workers smallint not null,

    started_at timestamptz not null default clock_timestamp(),
    heartbeat_at timestamptz not null default clock_timestamp(),
    lease interval not null,
    has_lock boolean not null default false,
    lost_at timestamptz,

    sleeping boolean not null default false,
    ready_workers smallint not null default 0,
    completed bigint not null default 0,
    failed bigint not null default 0,
    jobs_per_second double precision not null default 0,
    inference_seconds double precision,

    stop_requested_at timestamptz,
    stop_now boolean not null default false,

    constraint runner_pkey primary key (id),
    constraint lost_runner_is_not_asleep check (lost_at is null or not sleeping),
    constraint stop_now_is_a_stop_request check (not stop_now or stop_requested_at is not null)
)
-- A small table that is updated all the time: leave room on the page, so that a heartbeat
-- stays a heap-only update.
with (fillfactor = 50);

create function runner_lock_key(runner_id text) returns bigint
language sql immutable parallel safe
return hashtextextended('jobrunner:' || runner_id, 0);

create function runner_holds_lock(runner_id text) returns boolean
language sql stable
return exists (
    select
    from pg_locks
    where
        locktype = 'advisory'
        and granted
        and objsubid = 1 -- a key of one bigint, split into two halves
        and database = (select oid from pg_database where datname = current_database())
        and ((classid::bigint << 32) | objid::bigint) = runner_lock_key(runner_id)
);

comment on table runner is
    'One row a runner: a process that claims jobs and holds worker processes with a model. Deleted when it has stopped.';
comment on column runner.id is 'host-pid-random; what job.claimed_by names.';
comment on column runner.host is 'Name of the machine or the container it runs on.';
comment on column runner.pid is 'Its process id on that host.';
comment on column runner.version is 'Version of the program.';
comment on column runner.models is 'Names of the models that it serves.';
comment on column runner.workers is 'How many worker processes it keeps.';
comment on column runner.started_at is 'When it came under this id.';
comment on column runner.heartbeat_at is 'Last sign of life.';
comment on column runner.lease is 'How long after heartbeat_at its claims hold.';
comment on column runner.has_lock is
    'Whether it holds the advisory lock runner_lock_key(id) while it lives; where not, only the lease counts.';
comment on column runner.lost_at is
    'When another runner found it dead; its jobs were rescued, and it works on under a new id if it lives.';
comment on column runner.sleeping is
    'Has a free worker and found nothing to claim: wants a notification at the next insert.';
comment on column runner.ready_workers is 'Workers whose model was loaded at the last heartbeat.';
comment on column runner.completed is 'Jobs completed since started_at.';
comment on column runner.failed is 'Attempts failed since started_at.';
comment on column runner.jobs_per_second is 'Attempts finished per second, averaged over about a minute.';
comment on column runner.inference_seconds is 'Time a job takes in a worker, a moving average in seconds.';
comment on column runner.stop_requested_at is
    'Set to ask it to stop: no new claims, finish within the grace, hand back the rest.';
comment on column runner.stop_now is 'With stop_requested_at: hand back at once.';
comment on function runner_lock_key(text) is 'Key of the advisory lock that a live runner holds.';
comment on function runner_holds_lock(text) is 'Whether some session holds the lock of that runner.';
