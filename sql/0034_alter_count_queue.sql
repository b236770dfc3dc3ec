-- What waits is counted in the index alone, where its pages have been vacuumed, and no longer by
-- reading each row: those in work are few, and found by their claims (see claimed_job); the oldest
-- one of many is mostly one of the first.
create or replace function count_queue(
    model text,
    out unfinished bigint,
    out processing bigint,
    out waiting bigint,
    out oldest_pending_at timestamptz
)
language plpgsql stable
as $$
begin
    -- No job is in work before its time has come.
    select
        count(*),
        count(*) filter (where job.run_at > now())
    into
        count_queue.unfinished,
        count_queue.waiting
    from job
    where
        job.model = count_queue.model
        and job.finished_at is null;

    select count(*)
    into count_queue.processing
    from job
    where
        job.id = any(array(select claimed_job.id from claimed_job))
        and job.lease_token is not null
        and job.model = count_queue.model;

    -- Of a long queue it is among the first, unless jobs of other models stand before it.
    -- (Written as job_unfinished_list_idx has it.)
    if count_queue.unfinished > 1000 then
        select first_jobs.created_at
        into count_queue.oldest_pending_at
        from (
            select
                job.id,
                job.model,
                job.lease_token,
                job.created_at
            from job
            where coalesce(job.finished_at, 'infinity') = 'infinity'
            order by job.id
            limit 1000
        ) as first_jobs
        where
            first_jobs.model = count_queue.model
            and first_jobs.lease_token is null
        order by first_jobs.id
        limit 1;
    end if;
    if count_queue.oldest_pending_at is null then
        select min(job.created_at)
        into count_queue.oldest_pending_at
        from job
        where
            job.model = count_queue.model
            and job.finished_at is null
            and job.lease_token is null;
    end if;
end
$$;

-- To replace a function takes its settings away. Those of the planner: by an index alone, in its
-- order, it is fast whatever the statistics say.
do $$
declare
    setting text;
begin
    execute format(
        'alter function count_queue(text) set search_path = %I, pg_temp', current_schema()
    );
    foreach setting in array array['jit', 'enable_seqscan', 'enable_bitmapscan', 'enable_sort'] loop
        execute format('alter function count_queue(text) set %I = off', setting);
    end loop;
end
$$;
