-- The model: what was ever registered to be served. A job for another name is refused by
-- the web. No foreign key from job: it would lock one hot row for every insert.

create table model (
    name text not null,
    registered_at timestamptz not null default clock_timestamp(),

    constraint model_pkey primary key (name),
    constraint model_name_is_plain check (name ~ '^[a-z0-9][a-z0-9._-]{0,62}$')
);

insert into model (name) values ('sentiment');

comment on table model is 'Models that were ever registered; the web refuses jobs for any other.';
comment on column model.name is 'What job.model says: lower-case letters, digits, dot, dash, underscore.';
comment on column model.registered_at is 'When a runner first offered it.';
