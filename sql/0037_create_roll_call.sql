-- Who has said what it holds, since the server last forgot something.
--
-- A claim is not waited for until it is on disk, so that its job starts sooner by the time of a
-- flush. A crash of the server may then forget a claim whose job is in work: the row is pending
-- again. So after a crash each runner first answers the roll call: it takes up again, under the
-- old lease tokens, what it holds and the server has forgotten, and adds its name here, in one
-- statement. Until all have done so, or were found dead, none may claim anything: what is
-- pending may be in work.
--
-- The table is unlogged: what lets the server forget (a crash, the promotion of a standby, a
-- restored base backup) empties it, and nothing else does. A runner of the version before does not
-- answer, and need not: it waits until its claims are on disk.

create unlogged table roll_call (
    runner text not null,
    may_claim boolean not null default false,

    constraint roll_call_pkey primary key (runner),
    constraint roll_call_runner_fkey foreign key (runner) references runner (id) on delete cascade
);

alter table runner
add column answers_roll_call boolean not null default false;

create view missing_runner as
select runner.id as runner
from runner
where
    runner.answers_roll_call
    and runner.lost_at is null
    and not exists (
        select
        from roll_call
        where roll_call.runner = runner.id
    );

-- Who was found dead claims nothing any more, whoever has found it.
create function strike_off_lost_runner() returns trigger
language plpgsql
as $$
begin
    delete from roll_call where roll_call.runner = new.id;
    return null;
end
$$;

do $$
begin
    execute format(
        'alter function strike_off_lost_runner() set search_path = %I, pg_temp', current_schema()
    );
end
$$;

create trigger runner_is_struck_off_when_lost
after update of lost_at on runner
for each row
when (new.lost_at is not null)
execute function strike_off_lost_runner();

grant select on roll_call, missing_runner to job_web, job_runner, job_janitor;
grant insert, update (may_claim), delete on roll_call to job_runner;

comment on table roll_call is
    'One row a runner that has said what it holds since the server last crashed; a crash empties it.';
comment on column roll_call.runner is 'Id of the runner.';
comment on column roll_call.may_claim is
    'Whether all had said what they hold, or were found dead, when it asked.';
comment on column runner.answers_roll_call is
    'Whether it says after a crash what it holds, and has to be waited for; not where it is of an older version.';
comment on view missing_runner is
    'Runners that have not said what they hold since the server crashed: nobody claims a job until they do, or are found dead.';
comment on column missing_runner.runner is 'Id of the runner.';
comment on function strike_off_lost_runner() is 'Takes a runner that was found dead from the roll call.';
