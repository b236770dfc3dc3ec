"""A thin runner on psycopg, as one would write it in an hour: what there is to pay at least.

It claims one job, runs it in its own process, completes it, and listens when there is none.
No lease, no retry, no limit on anything: a crash loses what it holds.
"""

import os

import psycopg

from benchmarks.queues import SqlQueue, execute, python
from benchmarks.signals import signal_start

TABLES = [
    """
    create table thin_job (
        id bigint generated always as identity primary key,
        input text not null,
        status text not null default 'pending'
    )
    """,
    "create index on thin_job (id) where status = 'pending'",
    """
    create function thin_notify() returns trigger language plpgsql as $$
    begin
        notify thin_job;
        return null;
    end $$
    """,
    """
    create trigger thin_notify after insert on thin_job
    for each statement execute function thin_notify()
    """,
]
CLAIM = """
    update thin_job
    set status = 'processing'
    where id = (
        select id from thin_job
        where status = 'pending'
        order by id
        limit 1
        for update skip locked
    )
    returning id, input
"""
COMPLETE = "update thin_job set status = 'completed' where id = %s"
FILL = """
    insert into thin_job (input)
    select repeat('This product is amazing! ', 8) from generate_series(1, %s)
"""
SUBMIT = "insert into thin_job (input) values ('signal')"
LEFT = "select count(*) from thin_job where status <> 'completed'"


class Thin(SqlQueue):
    """A floor for the latency of a start."""

    name = "thin psycopg"
    settings = "one job at a time, in its own process"
    jobs = 5_000
    fill_statement, submit_statement, left_statement = FILL, SUBMIT, LEFT

    def install(self) -> None:
        execute(self.url, TABLES)

    def commands(self, processes: int) -> list[list[str]]:
        return [python(__name__)] * processes

    def forget(self) -> None:
        self.connection.execute("truncate thin_job")


def work() -> None:
    """Be a runner."""
    with psycopg.connect(os.environ["DATABASE_URL"], autocommit=True) as connection:
        connection.execute("listen thin_job")
        while True:
            row = connection.execute(CLAIM).fetchone()
            if row is None:
                list(connection.notifies(timeout=1, stop_after=1))
                continue
            if row[1] == "signal":
                signal_start()
            connection.execute(COMPLETE, [row[0]])


if __name__ == "__main__":
    work()
