-- Whether PostgreSQL can clear away what jobs leave behind, and what keeps it from that.
--
-- Each move of a job leaves a dead row, and vacuum removes it once nobody can want to see it
-- any more: no open transaction, replication slot or prepared transaction that is as old.

create view horizon_holder as
select
    'transaction' as kind,
    pid::text as holder,
    now() - xact_start as held_for,
    left(query, 100) as query
from pg_stat_activity
where
    datname = current_database()
    and pid <> pg_backend_pid()
    and coalesce(backend_xmin, backend_xid) is not null
    and backend_type = 'client backend'
union all
select
    'prepared transaction' as kind,
    gid as holder,
    now() - prepared as held_for,
    null as query
from pg_prepared_xacts
where database = current_database()
union all
select
    case when active then 'replication slot in use' else 'replication slot' end as kind,
    slot_name as holder,
    null as held_for,
    null as query
from pg_replication_slots
-- A standby that sends feedback holds a little all the time; this is a lot.
where age(xmin) > 1000000;

comment on view horizon_holder is
    'What keeps vacuum from removing dead rows: transactions, prepared ones, replication slots. Other users'' transactions are seen by members of pg_read_all_stats only.';

create view table_health as
select
    job_table.n_live_tup as live_rows,
    job_table.n_dead_tup as dead_rows,
    share.dead_percent,
    greatest(job_table.last_vacuum, job_table.last_autovacuum) as vacuumed_at,
    oldest.kind || ' ' || oldest.holder as held_by,
    date_trunc('second', oldest.held_for) as held_for,
    oldest.query as held_by_query,
    case
        when oldest.kind = 'transaction'
            then
                format(
                    'let the transaction of pid %s end sooner, or end it: select pg_terminate_backend(%s)',
                    oldest.holder, oldest.holder
                )
        when oldest.kind = 'prepared transaction'
            then format('commit prepared %L, or rollback prepared %L', oldest.holder, oldest.holder)
        when oldest.kind = 'replication slot'
            then
                format(
                    'nobody reads the slot %s: start who should, or drop it: select pg_drop_replication_slot(%L)',
                    oldest.holder, oldest.holder
                )
        when oldest.kind = 'replication slot in use'
            then
                format(
                    'the standby of the slot %s has a long transaction: let it end, or set hot_standby_feedback off',
                    oldest.holder
                )
        when share.dead_percent >= 50 and job_table.n_dead_tup > 100000
            then 'vacuum does not keep up: is autovacuum on? run: vacuum job'
    end as advice
from pg_stat_user_tables as job_table
cross join lateral (
    select
        round(
            100.0 * job_table.n_dead_tup / greatest(1, job_table.n_live_tup + job_table.n_dead_tup),
            1
        ) as dead_percent
) as share
left join lateral (
    select
        kind,
        holder,
        horizon_holder.held_for,
        query
    from horizon_holder
    where
        horizon_holder.held_for is null
        or horizon_holder.held_for > interval '5 minutes'
    order by horizon_holder.held_for desc nulls last
    limit 1
) as oldest on true
where job_table.relid = 'job'::regclass;

comment on view table_health is
    'The dead rows of the table job, what has kept them from being removed for over 5 minutes, and what to do.';

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
    table_health.advice
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
cross join table_health
order by model.name;

comment on view queue_health is
    'One row a model: jobs waiting and in work, age of the oldest, the live runners that serve it; and of the whole table its dead rows, what keeps them, and what to do.';

grant select on horizon_holder, table_health to job_web, job_runner, job_janitor;
