-- A login a service, and the owner of the database, who is no superuser.
--
-- The image postgres runs this once, with psql, as the superuser, in the database
-- POSTGRES_DB, when its volume is empty. The passwords are files of this service only; the
-- roles that say who may do what are made here, so that the logins can have them at once,
-- and get their rights from sql/0007_create_roles.sql.

\set ON_ERROR_STOP on
\if :{?secrets}
\else
\set secrets /run/secrets/postgres
\endif

\set owner_password `cat :'secrets'/owner_login`
\set web_password `cat :'secrets'/web_login`
\set runner_password `cat :'secrets'/runner_login`

-- No password goes into the server's log, not even with a statement that fails.
set log_statement = 'none';
set log_min_error_statement = 'panic';
set log_min_duration_statement = -1;

-- An empty password would make a login that never gets in.
select
    1 / (length(:'owner_password') >= 32)::integer
    + 1 / (length(:'web_password') >= 32)::integer
    + 1 / (length(:'runner_password') >= 32)::integer as passwords_are_there
\gset

begin;

create role job_web nologin;
create role job_runner nologin;
create role job_janitor nologin;

create role owner_login login password :'owner_password';
create role web_login login noinherit password :'web_password';
create role runner_login login noinherit password :'runner_password';

-- Whom a service acts as from its first statement on.
grant job_web to web_login;
alter role web_login set role to 'job_web';
grant job_runner, job_janitor to runner_login;
alter role runner_login set role to 'job_runner';

-- Migrations run as the owner. Nobody else gets into this database.
grant job_web, job_runner, job_janitor to owner_login;
-- Who is called at night sees what others do (pg_stat_activity is empty of it otherwise, as if
-- all were well), and can end it, where it is no superuser's.
grant pg_read_all_stats, pg_signal_backend to owner_login;
alter database :"DBNAME" owner to owner_login;
revoke all on database :"DBNAME" from public;
grant connect on database :"DBNAME" to web_login, runner_login;

commit;
