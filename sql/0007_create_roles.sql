-- Who may do what. The web inserts and reads; a runner moves jobs and keeps its own row; the
-- janitor deletes what is final. Everything else the database refuses. The roles can't log
-- in: a deployment grants each to a login of its own (alter role <login> set role <role>).
-- Roles belong to the whole cluster and may be there already, or come into being while we
-- look: migrations of two databases may run at once.

do $$
declare
    v_role text;
    v_purpose text;
begin
    for v_role, v_purpose in
        values
            ('job_web', 'jobrunner: inserts pending jobs and reads'),
            ('job_runner', 'jobrunner: claims and finishes jobs, keeps its row in runner'),
            ('job_janitor', 'jobrunner: deletes final jobs and lost runners')
    loop
        begin
            execute format('create role %I nologin', v_role);
            execute format('comment on role %I is %L', v_role, v_purpose);
        exception
            when duplicate_object or unique_violation then null;
        end;
        -- Who owns the tables may take each role; a superuser may anyway.
        if not (select rolsuper from pg_roles where rolname = current_user) then
            begin
                execute format('grant %I to current_user', v_role);
            exception
                when insufficient_privilege then
                    raise notice '% is not granted to %: it can not act as it', v_role, current_user;
            end;
        end if;
    end loop;
end
$$;

do $$
begin
    execute format(
        'grant usage on schema %I to job_web, job_runner, job_janitor', current_schema()
    );
end
$$;

grant select on job, runner, model, migration to job_web, job_runner, job_janitor;
grant select on queue_health, runner_overview, recent_failure to job_web, job_runner, job_janitor;

grant insert (
    model, input, priority, max_attempts,
    idempotency_key, input_hash, batch_id, retry_of, client_id
) on job to job_web;

grant update (
    status, attempt, run_at, claimed_by, lease_token,
    started_at, finished_at, result, error, errors
) on job to job_runner;
grant insert, update, delete on runner to job_runner;
grant insert on model to job_runner;

grant delete on job to job_janitor;
grant delete on runner to job_janitor;
