"""A server that crashes, and has forgotten what nobody waited for."""

import os
import signal
from collections.abc import Collection, Iterator
from contextlib import closing, contextmanager, suppress
from typing import Any

import psycopg

from helpers import wait_for

# Rows as they were before their claims.
FORGET = """
    update job
    set
        status = 'pending',
        attempt = attempt - 1,
        claimed_by = null,
        lease_token = null,
        started_at = null
    where lease_token = any(%s::uuid[])
"""
FORGET_NOTES = "delete from job_claim where lease_token = any(%s::uuid[])"
WAL_WRITER = "select pid from pg_stat_activity where backend_type = 'walwriter'"


def forget_claims(owner: psycopg.Connection[Any], lease_tokens: Collection[str]) -> None:
    """Leave the tables as a crash does that has forgotten these claims."""
    with owner.transaction():
        owner.execute(FORGET, [list(lease_tokens)])
        owner.execute(FORGET_NOTES, [list(lease_tokens)])
        owner.execute("truncate roll_call")


@contextmanager
def nothing_flushed(url: str) -> Iterator[int]:
    """Let nothing reach the disk that nobody waits for; the process that would have done it."""
    with psycopg.connect(url, autocommit=True) as connection:
        [(pid,)] = connection.execute(WAL_WRITER).fetchall()
    os.kill(pid, signal.SIGSTOP)
    try:
        yield pid
    finally:
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


def crash(url: str, wal_writer: int) -> None:
    """End it, and so crash the server; wait until that has recovered."""
    with closing(psycopg.connect(url, autocommit=True)) as witness:
        os.kill(wal_writer, signal.SIGKILL)
        wait_for(lambda: ended(witness), "the server has crashed")
    wait_for(lambda: answers(url), "it has recovered")


def ended(connection: psycopg.Connection[Any]) -> bool:
    try:
        connection.execute("select")
    except psycopg.OperationalError:
        return True
    return False


def answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("select").rowcount == 1
    except psycopg.OperationalError:
        return False
