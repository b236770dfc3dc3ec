-- To what trace a job belongs, if its client has said so.

alter table job add column traceparent text
constraint traceparent_is_of_version_00
check (traceparent ~ '^00-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}$');

grant insert (traceparent) on job to job_web;

comment on column job.traceparent is
    'The traceparent (W3C Trace Context) of the request that submitted it; the runner logs its trace_id.';
