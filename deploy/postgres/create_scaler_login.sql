-- A login for KEDA, which counts what there is to do (deploy/kubernetes/keda).
--
-- It sees of each job its model, state and times: no text, no result, no client. Run it once,
-- with psql, as the superuser, in the database of the jobs, when that has been migrated. Its
-- password is the file scaler_login in the folder :secrets, as in create_logins.sql.

\set ON_ERROR_STOP on
\if :{?secrets}
\else
\set secrets /run/secrets/postgres
\endif

\set scaler_password `cat :'secrets'/scaler_login`

-- No password goes into the server's log, not even with a statement that fails.
set log_statement = 'none';
set log_min_error_statement = 'panic';
set log_min_duration_statement = -1;

-- An empty password would make a login that never gets in.
select 1 / (length(:'scaler_password') >= 32)::integer as password_is_there
\gset

begin;

create role scaler_login login noinherit connection limit 5 password :'scaler_password';

-- What it asks takes milliseconds; nothing that it asks may take longer than a moment.
alter role scaler_login set statement_timeout to '5s';
alter role scaler_login set default_transaction_read_only to on;
-- By the index of what is not final, whatever the statistics say: the table is mostly past.
alter role scaler_login set enable_seqscan to off;
alter role scaler_login set max_parallel_workers_per_gather to 0;

grant connect on database :"DBNAME" to scaler_login;
grant select (model, status, run_at, finished_at) on job to scaler_login;

commit;
