-- How far a job is that is being processed, where its model says so.
--
-- A table of its own, so that a job's row is not written again for it. A runner writes once a
-- second what has changed, for all its jobs in one statement, and deletes what is over. What a
-- dead runner leaves behind is of another start, is not shown, and is deleted after a day. No
-- foreign key: it would make the deletion of old jobs three times as slow.

create table job_progress (
    job_id uuid not null,
    attempt smallint not null,
    fraction real not null,
    word text not null,
    updated_at timestamptz not null default clock_timestamp(),

    constraint job_progress_pkey primary key (job_id),
    constraint fraction_is_from_0_to_1 check (fraction between 0 and 1),
    constraint word_is_short check (length(word) <= 100)
)
-- Updated all the time: leave room on the page, so that this stays heap-only.
with (fillfactor = 50);

create trigger job_progress_is_told
after insert or update on job_progress
for each statement
execute function tell_who_waits();

grant select on job_progress to job_web, job_runner, job_janitor;
grant insert, update, delete on job_progress to job_runner;

comment on table job_progress is
    'One row a job in work whose model says how far it is. Not of every job, and gone when it is done.';
comment on column job_progress.job_id is 'The job.';
comment on column job_progress.attempt is 'Which attempt this is of: of another one it says nothing.';
comment on column job_progress.fraction is 'From 0 to 1.';
comment on column job_progress.word is 'What it is doing, in the model''s words.';
comment on column job_progress.updated_at is 'When the runner wrote it.';
