-- The share of dead rows where it says something: after two jobs it was two thirds.

create or replace view table_health as
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
        case
            when job_table.n_dead_tup >= 10000
                then
                    round(
                        100.0 * job_table.n_dead_tup
                        / greatest(1, job_table.n_live_tup + job_table.n_dead_tup),
                        1
                    )
        end as dead_percent
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

comment on column table_health.dead_percent is
    'The share of dead rows; empty under 10,000 of them, where no share matters.';
