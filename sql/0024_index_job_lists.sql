-- The newest jobs of one kind, however rare they are among millions: each of these has them
-- in the order of the list. (Of a large table all are built in a while, in which nothing is
-- written to it. What they cost: docs/performance.md.)

create index job_model_idx on job (model, id);

create index job_failed_list_idx on job (id)
where error is not null;

-- Not by status, so that a claim stays a heap-only update: see job_unfinished_idx.
create index job_unfinished_list_idx on job (id)
where finished_at is null;

comment on index job_model_idx is 'Serves the list of a model''s jobs.';
comment on index job_failed_list_idx is 'Serves the list of failed jobs.';
comment on index job_unfinished_list_idx is 'Serves the lists of pending and of processing jobs.';
