-- Which jobs were claimed together, so that those in work are found without reading all that wait.
--
-- No index on job may know the status, since a claim would then write every index (see
-- job_unfinished_idx). So a claim leaves one row here, in the same statement, with all that it
-- took; its runner deletes the row in a later claim, when it holds none of them any more. A
-- job in work is always in one of these; who is in one may be done by now, or pending again.
-- A runner of the version before leaves none: all unfinished jobs of its models are read.

create table job_claim (
    lease_token uuid not null,
    job_ids uuid[] not null,

    constraint job_claim_pkey primary key (lease_token)
)
-- The 200 ids of a large claim stay in the row.
with (toast_tuple_target = 8160);

alter table job_claim alter column job_ids set storage external;

insert into job_claim (lease_token, job_ids)
select
    lease_token,
    array_agg(id) as job_ids
from job
where
    finished_at is null
    and lease_token is not null
group by lease_token;

alter table runner
add column notes_claims boolean not null default false;

-- Ordered, and so read for each model by itself: no plan may read all jobs for nobody.
create view claimed_job as
select unnest(job_ids) as id
from job_claim
union all
select held.id
from runner
cross join lateral unnest(runner.models) as served (model)
cross join lateral (
    select job.id
    from job
    where
        job.model = served.model
        and job.finished_at is null
        and job.lease_token is not null
    order by job.id
) as held
where
    runner.lost_at is null
    and not runner.notes_claims;

grant select on job_claim, claimed_job to job_web, job_runner, job_janitor;
-- To update, since they are locked before they are deleted.
grant insert, update, delete on job_claim to job_runner;

comment on table job_claim is
    'One row a claim: every job in work is in the row of its lease_token. Deleted when none of a row is held any more.';
comment on column job_claim.lease_token is 'What proves the claim, as job.lease_token has it.';
comment on column job_claim.job_ids is 'The jobs that were claimed together; some may be done, or pending again.';
comment on column runner.notes_claims is 'Whether all that it holds is in job_claim; not where it is of an older version.';
comment on view claimed_job is
    'Ids of jobs that were claimed: all that are in work are among them, those that are not have no lease_token any more.';
comment on column claimed_job.id is 'The job; it may be there twice.';
comment on index job_unfinished_list_idx is 'Serves the list of pending jobs.';
