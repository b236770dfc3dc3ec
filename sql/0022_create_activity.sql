-- What the runners have done, counted by minute and in all, so that nobody has to read the
-- jobs for it (they are deleted one day).
--
-- A runner adds what it has done to two rows of its model with each of its beats: that of the
-- minute, and the one of all time, whose minute is -infinity. What a killed runner did since
-- its last beat is not counted; where the database is lost just then, some may be counted twice
-- or not at all. Jobs are counted exactly in job itself.

-- In seconds. A histogram has one count more than there are bounds: of what is above the last.
create function histogram_bounds() returns double precision[]
language sql immutable parallel safe
return '{0.005,0.01,0.025,0.05,0.1,0.25,0.5,1,2.5,5,10,30,60,300,1800}'::double precision[];

create function add_counts(counts bigint[], more bigint[]) returns bigint[]
language sql immutable parallel safe
return (
    select array_agg(one.count + other.count order by one.place)
    from unnest(counts) with ordinality as one (count, place)
    inner join unnest(more) with ordinality as other (count, place) on one.place = other.place
);

create table activity (
    model text not null,
    minute timestamptz not null,

    completed bigint not null,
    failed bigint not null,
    retried bigint not null,
    released bigint not null,
    rescued bigint not null,

    waits bigint[] not null,
    wait_seconds double precision not null,
    inferences bigint[] not null,
    inference_seconds double precision not null,

    constraint activity_pkey primary key (model, minute),
    constraint histograms_are_complete check (
        cardinality(waits) = cardinality(histogram_bounds()) + 1
        and cardinality(inferences) = cardinality(histogram_bounds()) + 1
    )
)
-- Updated all the time: leave room on the page, so that this stays heap-only.
with (fillfactor = 50);

grant select on activity to job_web, job_janitor;
grant select, insert, update, delete on activity to job_runner;

comment on function histogram_bounds() is 'Upper bounds of the histograms in activity, in seconds.';
comment on function add_counts(bigint[], bigint[]) is 'Adds two arrays of the same length, place by place.';
comment on table activity is
    'One row a model and minute: what the runners have done. The row of minute -infinity sums up all time.';
comment on column activity.model is 'Name of the model.';
comment on column activity.minute is 'When that minute began; -infinity: all time. Minutes are kept for two days.';
comment on column activity.completed is 'Jobs completed.';
comment on column activity.failed is 'Attempts with which their job failed.';
comment on column activity.retried is 'Attempts that failed or were lost, of jobs that are tried again.';
comment on column activity.released is 'Starts that were handed back, not counted as attempts.';
comment on column activity.rescued is 'Jobs that were freed from a dead runner.';
comment on column activity.waits is 'Histogram: from when a job was due to its claim. See histogram_bounds().';
comment on column activity.wait_seconds is 'Sum of these waits.';
comment on column activity.inferences is 'Histogram: times of inferences, measured in the worker.';
comment on column activity.inference_seconds is 'Sum of these times.';
