"""``python -m benchmarks.rescue``: from kill -9 of a runner to the next claim of its job.

Two runners with default settings; the one that holds a job is killed, and started again for
the next try. Takes about three minutes.
"""

import os
import signal
from contextlib import ExitStack
from statistics import median
from threading import Event
from time import monotonic

import psycopg

from benchmarks import system

TRIES = 20
MODEL = "sentiment=benchmarks.models:Quick"

INSERT = """
    insert into job (model, input)
    values ('sentiment', '{"seconds": 600}')
    returning id
"""
HOLDER = """
    select
        job.attempt,
        runner.pid
    from job
    join runner on job.claimed_by = runner.id
    where job.id = %(id)s and job.status = 'processing'
"""
LOCKED = "select from runner where has_lock and ready_workers = 1 and lost_at is null"
CANCEL = "insert into cancel_request (job_id) values (%(id)s)"


def main() -> None:
    """Try it, and print the median and the worst."""
    with (
        system.postgres() as url,
        psycopg.connect(url, autocommit=True) as connection,
        ExitStack() as runners,
    ):
        seconds = []
        for number in range(TRIES):
            for _ in range(2 if number == 0 else 1):
                runners.enter_context(system.process(url, MODEL, workers=1))
            system.wait_for(lambda: connection.execute(LOCKED).rowcount == 2, "two runners")
            seconds.append(_try(connection))
            print(f"try {number + 1:>2}: {seconds[-1]:.2f} s", flush=True)
    print(f"kill -9 to the next claim: median {median(seconds):.2f} s, worst {max(seconds):.2f} s")


def _try(connection: psycopg.Connection) -> float:
    [(job_id,)] = connection.execute(INSERT).fetchall()
    job = {"id": job_id}
    system.wait_for(lambda: connection.execute(HOLDER, job).rowcount == 1, "a claim")
    [(_, pid)] = connection.execute(HOLDER, job).fetchall()
    # Not at the same moment of a heartbeat each time.
    Event().wait(0.37 * (pid % 10))
    os.kill(pid, signal.SIGKILL)
    killed = monotonic()
    system.wait_for(
        lambda: connection.execute(HOLDER, job).fetchone() not in (None, (1, pid)), "a rescue"
    )
    seconds = monotonic() - killed
    connection.execute(CANCEL, job)
    return seconds


if __name__ == "__main__":
    main()
