-- The jobs of a batch in the order in which they were given.

alter table job add column batch_position smallint;

grant insert (batch_position) on job to job_web;

comment on column job.batch_position is 'Which of its batch it is, from 0; null without a batch.';
