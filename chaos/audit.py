"""The database's own history: triggers that a chaos run installs, and what they wrote."""

from typing import Any

import psycopg
from psycopg.rows import class_row

from chaos.histories import Move, Row, RunnerMove

INSTALL = """
    create table chaos_move (
        seq bigint generated always as identity primary key,
        job text not null,
        text text not null,
        old text,
        new text,
        old_attempt integer not null,
        attempt integer not null,
        old_token text,
        token text,
        old_runner text,
        runner text,
        run_at double precision not null,
        at double precision not null,
        code text,
        cancelled boolean not null,
        execution text,
        holder_lives boolean not null,
        started double precision,
        txid text not null default pg_current_xact_id()::text
    );

    create table chaos_runner_move (
        seq bigint generated always as identity primary key,
        runner text not null,
        was_lost boolean not null,
        is_lost boolean not null,
        at double precision not null
    );

    create function chaos_now() returns double precision
    language sql volatile
    return extract(epoch from clock_timestamp())::double precision;

    create function chaos_note_move() returns trigger
    language plpgsql
    security definer
    set search_path = public, pg_temp
    as $$
    declare
        v_failure jsonb;
    begin
        if tg_op = 'UPDATE' and jsonb_array_length(new.errors) > jsonb_array_length(old.errors) then
            v_failure := new.errors -> -1;
        end if;
        insert into chaos_move (
            job, text, old, new, old_attempt, attempt, old_token, token, old_runner, runner,
            run_at, at, code, cancelled, execution, holder_lives, started
        )
        values (
            coalesce(new.id, old.id),
            coalesce(new.input, old.input) ->> 'text',
            old.status,
            new.status,
            coalesce(old.attempt, 0),
            coalesce(new.attempt, 0),
            old.lease_token,
            new.lease_token,
            old.claimed_by,
            new.claimed_by,
            extract(epoch from coalesce(new.run_at, old.run_at)),
            chaos_now(),
            v_failure ->> 'code',
            coalesce(new.error ->> 'code' = 'cancelled', false),
            coalesce(
                new.result ->> 'execution',
                substring(v_failure ->> 'message' from 'execution=([0-9a-f]+)')
            ),
            exists (select from runner where id = old.claimed_by and lost_at is null),
            extract(epoch from new.started_at)
        );
        return null;
    end
    $$;

    create trigger zz_chaos_notes_moves
    after insert or update or delete on job
    for each row
    execute function chaos_note_move();

    create function chaos_note_runner_move() returns trigger
    language plpgsql
    security definer
    set search_path = public, pg_temp
    as $$
    begin
        insert into chaos_runner_move (runner, was_lost, is_lost, at)
        values (new.id, old.lost_at is not null, new.lost_at is not null, chaos_now());
        return null;
    end
    $$;

    create trigger zz_chaos_notes_runner_moves
    after update on runner
    for each row
    when ((old.lost_at is null) <> (new.lost_at is null))
    execute function chaos_note_runner_move();
"""

MOVES = """
    select
        job, text, old, new, old_attempt, attempt, old_token, token, old_runner, runner,
        run_at, at, code, cancelled, execution, holder_lives, started
    from chaos_move
    order by seq
"""

RUNNER_MOVES = "select runner, was_lost, is_lost, at from chaos_runner_move order by seq"

ROWS = """
    select
        id::text as job,
        input ->> 'text' as text,
        status,
        attempt,
        max_attempts,
        lease_token::text as token,
        idempotency_key as key,
        array(
            select (entry ->> 'attempt')::integer
            from jsonb_array_elements(errors) with ordinality as listed (entry, place)
            order by place
        ) as errors
    from job
    order by id
"""


def install(connection: psycopg.Connection[Any]) -> None:
    """Begin to note every move of a job, and each death and revival of a runner."""
    connection.execute(INSTALL)


def moves(connection: psycopg.Connection[Any]) -> list[Move]:
    """Read the moves, those of one job in their order."""
    with connection.cursor(row_factory=class_row(Move)) as cursor:
        return cursor.execute(MOVES).fetchall()


def runner_moves(connection: psycopg.Connection[Any]) -> list[RunnerMove]:
    """Read who was found dead, or revived."""
    with connection.cursor(row_factory=class_row(RunnerMove)) as cursor:
        return cursor.execute(RUNNER_MOVES).fetchall()


def rows(connection: psycopg.Connection[Any]) -> list[Row]:
    """Read the jobs as they stand."""
    with connection.cursor(row_factory=class_row(Row)) as cursor:
        return cursor.execute(ROWS).fetchall()
