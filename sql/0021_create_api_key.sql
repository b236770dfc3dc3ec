-- The API keys of clients, where the web asks for them.
--
-- A key is jr_<id>_<secret>; only a hash of the secret is kept. Several keys may be one
-- client's, so that a new one can be handed out before the old one is revoked. What a client
-- submits carries its client_id, and it sees nothing else.

create table api_key (
    id text not null,
    client_id text not null,
    secret_hash bytea not null,
    operator boolean not null default false,
    max_pending integer,
    created_at timestamptz not null default clock_timestamp(),
    revoked_at timestamptz,

    constraint api_key_pkey primary key (id),
    constraint client_id_is_a_name check (client_id ~ '^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$'),
    constraint secret_hash_is_a_sha256 check (octet_length(secret_hash) = 32),
    constraint max_pending_is_at_least_1 check (max_pending >= 1)
);

grant select on api_key to job_web;

-- Serves the list of a client's jobs.
create index job_client_idx on job (client_id, id)
where client_id is not null;

-- Serves the list of a client's failed jobs.
create index job_client_failed_idx on job (client_id, id)
where client_id is not null and error is not null;

-- Serves the count of a client's pending jobs. (Not by status: see job_unfinished_idx.)
create index job_client_unfinished_idx on job (client_id)
where client_id is not null and finished_at is null;

comment on table api_key is
    'One row an API key: jobrunner keys creates, lists and revokes them. The web asks for one with JOBRUNNER_REQUIRE_KEYS=on.';
comment on column api_key.id is 'The part of the key that is no secret: jr_<id>_<secret>.';
comment on column api_key.client_id is 'Whose it is; what job.client_id names.';
comment on column api_key.secret_hash is 'SHA-256 of the secret, which is random and long.';
comment on column api_key.operator is
    'Sees the jobs of all clients, the runners, the statistics and the metrics.';
comment on column api_key.max_pending is
    'With so many jobs of its client pending it submits no more; empty: no limit of its own.';
comment on column api_key.created_at is 'When it was made.';
comment on column api_key.revoked_at is 'Since when it opens nothing any more; empty while it does.';
