-- A time as JSON has it: RFC 3339, in UTC, whatever the time zone of the session is. jsonb
-- would write the session's.

create function utc_text(moment timestamptz) returns text
language sql immutable parallel safe
return to_char(moment at time zone 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"');

comment on function utc_text(timestamptz) is 'Writes a time in UTC, as RFC 3339 has it.';

comment on column job.client_id is 'Whose job it is, where clients are told apart; null where they are not.';
