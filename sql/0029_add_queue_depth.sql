-- How long the queue of a model was, minute by minute, for the plots of the dashboard.
--
-- A runner looks once a minute, unless another has done so, and writes what it finds into the
-- row of that minute. A minute in which no runner served the model has nothing here.

alter table activity
add column pending integer,
add column oldest_pending_seconds double precision;

comment on column activity.pending is
    'Jobs that waited when a runner looked in that minute, counted to 100,000; null where none did, and of all time.';
comment on column activity.oldest_pending_seconds is
    'How old the oldest of these was; null where none waited, or nobody looked.';
