-- What a client may say of a submission beside its texts: a key that makes it safe to repeat,
-- and that several jobs are one batch.

-- A key belongs to one client; where there are no clients, all are one. Of a batch the first
-- job has the key.
create unique index job_idempotency_key_idx on job (coalesce(client_id, ''), idempotency_key)
where idempotency_key is not null;

-- The jobs of a batch in the order in which they were given.
alter table job add column batch_position smallint;

create index job_batch_idx on job (batch_id, batch_position)
where batch_id is not null;

grant insert (batch_position) on job to job_web;

comment on column job.batch_position is 'Which of its batch it is, from 0; null without a batch.';
