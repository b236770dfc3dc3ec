-- What a client may say of a submission beside its texts: a key that makes it safe to repeat,
-- and that several jobs are one batch. (Of a large table both indexes are built in a while, in
-- which nothing is written to it.)

-- A key belongs to one client; where there are no clients, all are one. Of a batch the first
-- job has the key.
create unique index job_idempotency_key_idx on job (coalesce(client_id, ''), idempotency_key)
where idempotency_key is not null;

-- Serves the status of a batch, and its jobs in their order.
create index job_batch_idx on job (batch_id, batch_position)
where batch_id is not null;
