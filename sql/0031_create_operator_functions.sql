-- What people do by hand in psql: docs/operations.md says when.
--
-- Whoever calls these may do no more than he may do anyway: the tables' grants rule. (A parameter
-- of the name of a column is told from it by the function's name.)

create function require_model(model text) returns void
language plpgsql
as $$
begin
    if not exists (select from model as known where known.name = require_model.model) then
        raise exception 'there is no model %', quote_nullable(require_model.model)
            using
                errcode = 'invalid_parameter_value',
                hint = 'table model has those that were ever served; a runner registers what it serves.';
    end if;
end
$$;

comment on function require_model is 'Fails where no model of that name was ever served.';

create function enqueue_job(
    model text,
    input jsonb,
    priority integer default 0,
    run_at timestamptz default null,
    max_attempts integer default 3,
    client_id text default null
) returns uuid
language plpgsql
as $$
declare
    v_id uuid;
begin
    perform require_model(enqueue_job.model);
    -- What the table refuses as well, but with the whole row in the server's log.
    if jsonb_typeof(enqueue_job.input) is distinct from 'object' then
        raise exception 'the input is not a JSON object'
            using errcode = 'invalid_parameter_value', hint = 'A text, for example, is {"text": "fine"}.';
    end if;
    if enqueue_job.priority is null or enqueue_job.priority not between -100 and 100 then
        raise exception 'priority % is not from -100 to 100', enqueue_job.priority
            using errcode = 'invalid_parameter_value', hint = 'Higher first; 0 is what a client has by default.';
    end if;
    if enqueue_job.max_attempts is null or enqueue_job.max_attempts not between 1 and 100 then
        raise exception 'max_attempts % is not from 1 to 100', enqueue_job.max_attempts
            using errcode = 'invalid_parameter_value', hint = '3 is what a client has by default.';
    end if;

    if enqueue_job.run_at is null then
        insert into job (model, input, priority, max_attempts, client_id)
        values (
            enqueue_job.model,
            enqueue_job.input,
            enqueue_job.priority,
            enqueue_job.max_attempts,
            enqueue_job.client_id
        )
        returning id into v_id;
    else
        -- To set this is the owner's right alone.
        insert into job (model, input, priority, max_attempts, client_id, run_at)
        values (
            enqueue_job.model,
            enqueue_job.input,
            enqueue_job.priority,
            enqueue_job.max_attempts,
            enqueue_job.client_id,
            -- Since then it is counted as waiting: not since before it was there.
            greatest(enqueue_job.run_at, clock_timestamp())
        )
        returning id into v_id;
    end if;
    return v_id;
end
$$;

comment on function enqueue_job is
    'Submits a job as POST /predict does, and gives its id; a sleeping runner wakes. run_at: not before (of the owner only). For example: select enqueue_job(''sentiment'', ''{"text": "fine"}'', priority => 10)';

-- A request is left only where the job is not final, as the web does.
create function cancel_job(id uuid) returns text
language plpgsql
as $$
declare
    v_status text;
    v_code text;
begin
    select
        job.status,
        job.error ->> 'code'
    into
        v_status,
        v_code
    from job
    where job.id = cancel_job.id;
    if not found then
        raise exception 'there is no job %', quote_nullable(cancel_job.id)
            using errcode = 'no_data_found', hint = 'Old jobs are deleted: see JOBRUNNER_RETENTION.';
    end if;
    if v_status in ('completed', 'failed') then
        return format('was %s already', case v_code when 'cancelled' then v_code else v_status end);
    end if;

    insert into cancel_request (job_id)
    values (cancel_job.id)
    on conflict (job_id) do nothing;

    -- Another statement, and so it sees what came of it.
    select
        job.status,
        job.error ->> 'code'
    into
        v_status,
        v_code
    from job
    where job.id = cancel_job.id;
    return case
        when v_status = 'processing' then 'its runner is asked to end it'
        when v_code = 'cancelled' then 'cancelled'
        else format('was %s already', v_status)
    end;
end
$$;

comment on function cancel_job is
    'Cancels a job as POST /jobs/<id>/cancel does, and says what came of it: cancelled (it was pending), its runner is asked to end it (within seconds, unless it is done first), or that it was final already.';

create function retry_job(id uuid) returns uuid
language plpgsql
as $$
declare
    v_status text;
    v_id uuid;
begin
    insert into job (model, input, priority, max_attempts, retry_of, client_id, traceparent)
    select
        job.model,
        job.input,
        job.priority,
        job.max_attempts,
        job.id,
        job.client_id,
        job.traceparent
    from job
    where
        job.id = retry_job.id
        and job.status = 'failed'
    returning job.id into v_id;
    if found then
        return v_id;
    end if;

    select job.status into v_status
    from job
    where job.id = retry_job.id;
    if not found then
        raise exception 'there is no job %', quote_nullable(retry_job.id)
            using errcode = 'no_data_found', hint = 'Old jobs are deleted: see JOBRUNNER_RETENTION.';
    end if;
    raise exception 'only a failed job can be retried; this one is %', v_status
        using
            errcode = 'object_not_in_prerequisite_state',
            hint = 'To run it once more all the same, submit its input again: see enqueue_job.';
end
$$;

comment on function retry_job is
    'Submits a failed job anew as POST /jobs/<id>/retry does, and gives the id of the new one, whose retry_of names the old one.';

-- Each has an idempotency key that names the job it repeats, and the index of these keys refuses
-- it a second time: so a call that is repeated, or was cut off, repeats none.
create function retry_failed(
    model text,
    since timestamptz,
    up_to integer default 1000,
    code text default null
) returns integer
language plpgsql
as $$
declare
    v_count integer;
begin
    perform require_model(retry_failed.model);
    if since is null then
        raise exception 'there is no time since when'
            using errcode = 'invalid_parameter_value', hint = 'For example: now() - interval ''1 hour''.';
    end if;
    if up_to is null or up_to < 1 then
        raise exception 'up_to should be at least 1'
            using errcode = 'invalid_parameter_value', hint = 'It says how many jobs are retried at most.';
    end if;

    insert into job (
        model, input, priority, max_attempts, retry_of, client_id, traceparent, idempotency_key, input_hash
    )
    select
        old.model,
        old.input,
        old.priority,
        old.max_attempts,
        old.id,
        old.client_id,
        old.traceparent,
        'retry_failed:' || old.id,
        sha256(uuid_send(old.id))
    from job as old
    where
        old.error is not null
        and old.finished_at >= since
        and old.model = retry_failed.model
        and (
            old.error ->> 'code' = retry_failed.code
            or (retry_failed.code is null and old.error ->> 'code' <> 'cancelled')
        )
        and not exists (
            select
            from job as again
            where
                coalesce(again.client_id, '') = coalesce(old.client_id, '')
                and again.idempotency_key = 'retry_failed:' || old.id
        )
    order by old.finished_at, old.id
    limit up_to
    on conflict (coalesce(client_id, ''), idempotency_key)
    where idempotency_key is not null
    do nothing;
    get diagnostics v_count = row_count;
    return v_count;
end
$$;

comment on function retry_failed is
    'Submits anew what has failed of a model since a time, with that code or with any but cancelled, the oldest first, up_to so many; gives how many. A second call goes on where the first one stopped: what this function has retried already it passes over (but what was retried by others it does not know). A retry that fails counts as a job of its own.';

-- Whatever the search_path of the caller, these see the tables of this schema.
do $$
declare
    v_function regprocedure;
begin
    foreach v_function in array array[
        'require_model(text)',
        'enqueue_job(text, jsonb, integer, timestamptz, integer, text)',
        'cancel_job(uuid)',
        'retry_job(uuid)',
        'retry_failed(text, timestamptz, integer, text)'
    ]::regprocedure[]
    loop
        execute format(
            'alter function %s set search_path = %I, pg_temp', v_function, current_schema()
        );
        execute format('revoke execute on function %s from public', v_function);
        execute format('grant execute on function %s to job_web', v_function);
    end loop;
end
$$;
