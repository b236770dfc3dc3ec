-- The wake-up names its table in full, instead of setting the search_path for each insert: that
-- took as long as the look whether a runner sleeps.
do $do$
begin
    execute format(
        $body$
            create or replace function wake_sleeping_runners() returns trigger
            language plpgsql
            as $$
            begin
                if exists (select from %I.runner where sleeping) then
                    perform pg_catalog.pg_notify('job_submitted', '');
                end if;
                return null;
            end
            $$
        $body$,
        current_schema()
    );
end
$do$;
