-- How large the batches are that models are called with, as a histogram: a mean does not tell
-- batches of eight from ones and fifteens in turn.
--
-- Runners of before do not fill these columns, and what they add to the others leaves them as
-- they are. The sum is kept by itself, since only calls that were seen whole are counted here.

create function batch_size_bounds() returns integer[]
language sql immutable parallel safe
return '{1,2,4,8,16,32,64,128,256,512,1000}'::integer[];

alter table activity
add column batch_sizes bigint[] not null
default array_fill(0::bigint, array[cardinality(batch_size_bounds()) + 1]),
add column batched bigint not null default 0,
add constraint batch_sizes_are_complete check (
    cardinality(batch_sizes) = cardinality(batch_size_bounds()) + 1
);

comment on function batch_size_bounds() is 'Upper bounds of the histogram activity.batch_sizes, in jobs.';
comment on column activity.batch_sizes is
    'Histogram: jobs in a call of the model, of each call. See batch_size_bounds().';
comment on column activity.batched is 'Jobs in these calls.';
