-- Times that a calendar can say. An infinite one, or one of the year 20000, would be an error
-- for whoever reads it later: a page of jobs, a runner that judges another by its heartbeat.

alter table job
drop constraint run_at_is_finite,
add constraint times_are_of_years_1_to_9999
check (
    run_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'
    and created_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'
    and started_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'
    and finished_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'
);

alter table runner
add constraint heartbeat_at_is_of_years_1_to_9999
check (heartbeat_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'),
add constraint started_at_is_of_years_1_to_9999
check (started_at between '0001-01-03 00:00+00' and '9999-12-29 00:00+00'),
add constraint lease_is_from_a_second_to_a_day
check (lease between interval '1 second' and interval '1 day');
