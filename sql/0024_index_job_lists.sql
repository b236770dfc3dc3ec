-- The newest jobs of one kind, however rare they are among millions: each of these has them
-- in the order of the list. (Of a large table all are built in a while, in which nothing is
-- written to it. What they cost: docs/performance.md.)
--
-- A claim must not be planned by one of them, and sort what it finds, because the queue was
-- short when the table was analysed; nor is the list of one client's failed jobs to go through
-- those of all. So each is written as only its list asks for it.

create index job_model_idx on job ((model || ''), id);

create index job_failed_list_idx on job (id)
where coalesce(error, 'null') <> 'null';

-- Not by status, so that a claim stays a heap-only update: see job_unfinished_idx.
create index job_unfinished_list_idx on job (id)
where coalesce(finished_at, 'infinity') = 'infinity';

comment on index job_model_idx is 'Serves the list of a model''s jobs.';
comment on index job_failed_list_idx is 'Serves the list of failed jobs.';
comment on index job_unfinished_list_idx is 'Serves the lists of pending and of processing jobs.';
