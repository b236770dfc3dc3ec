-- What the web processes of a database know and their clients do not: with it they seal the
-- cursors of lists, so that each takes what another gave out, and nothing else.

create table secret (
    purpose text not null,
    value bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),

    constraint secret_pkey primary key (purpose)
);

insert into secret (purpose) values ('cursor');

grant select on secret to job_web;

comment on table secret is 'Keys that the web processes share; to change one, update it and restart them.';
comment on column secret.purpose is 'What it is for: cursor seals the cursors of GET /jobs.';
comment on column secret.value is 'Random bytes.';
