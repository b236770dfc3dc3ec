-- Who may do what. The web inserts and reads; a runner moves jobs and keeps its own row; the
-- janitor deletes what is final. Everything else the database refuses. The roles can't log
-- in: a deployment grants each to a login of its own (alter role <login> set role <role>).
-- Roles belong to the whole cluster and may be there already, or come into being while we
-- look: migrations of two databases may run at once.

do $$
declare
    v_role text;
    v_purpose text;
    v_version constant integer := current_setting('server_version_num');
begin
    for v_role, v_purpose in
        values
            ('job_web', 'jobrunner: inserts pending jobs and reads'),
            ('job_runner', 'jobrunner: claims and finishes jobs, keeps its row in runner'),
            ('job_janitor', 'jobrunner: deletes final jobs')
    loop
        -- Looked for first: whose login may not create roles can work with those that are there.
        if not exists (select from pg_roles where rolname = v_role) then
            begin
                execute format('create role %I nologin', v_role);
                execute format('comment on role %I is %L', v_role, v_purpose);
            exception
                when duplicate_object or unique_violation then null;
            end;
        end if;
        -- Who owns the tables may take each role. A superuser may anyway; before PostgreSQL 16
        -- every member may (SET is an option of the membership since).
        if not pg_has_role(v_role, case when v_version < 160000 then 'member' else 'set' end) then
            begin
                execute format('grant %I to current_user', v_role);
            exception
                when unique_violation then null;
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
