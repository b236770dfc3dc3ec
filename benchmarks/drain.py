"""How fast a full queue is emptied."""

from collections.abc import Callable
from time import monotonic, sleep

import psycopg

from benchmarks.queues import Queue, SqlQueue
from benchmarks.system import wait_for

# The first jobs are not counted: processes start, plans are made.
COUNTED_SHARE = 0.9
LOOK_SECONDS = 0.05
FIRST_SECONDS = 60
LAST_SECONDS = 300

USED = """
    select
        pg_current_wal_lsn() - '0/0'::pg_lsn as wal,
        blks_hit as hits
    from pg_stat_database
    where datname = current_database()
"""
CLIENTS = """
    select pid
    from pg_stat_activity
    where
        datname = current_database()
        and backend_type = 'client backend'
"""

Sample = tuple[float, int]


def measure(queue: Queue, processes: int, jobs: int | None = None) -> float:
    """Fill the queue, start its workers, and give the jobs a second of the last nine tenths.

    :raises TimeoutError: when it does not get empty.
    """
    count = jobs or queue.jobs
    queue.forget()
    return measure_filled(queue, processes, count, lambda: queue.fill(count))


def measure_used(queue: SqlQueue, processes: int) -> tuple[float, float, float]:
    """The same, and what PostgreSQL uses for each job: bytes of WAL, and looks at pages that are in
    its cache. What vacuum does meanwhile is in it, and that somebody looks what is left."""
    queue.forget()
    queue.fill(queue.jobs)
    wal, hits = used(queue.connection)
    others = _clients(queue)
    value = measure_filled(queue, processes, queue.jobs, lambda: None)
    # Who works counts for itself what it has used, and tells it at its end.
    wait_for(lambda: _clients(queue) <= others, "the end of all workers")
    wal_then, hits_then = used(queue.connection)
    return value, (wal_then - wal) / queue.jobs, (hits_then - hits) / queue.jobs


def used(connection: psycopg.Connection) -> tuple[float, float]:
    """Bytes of WAL, of the whole server, and hits in the cache, of this database, so far."""
    [(wal, hits)] = connection.execute(USED).fetchall()
    return float(wal), float(hits)


def _clients(queue: SqlQueue) -> set[int]:
    return {pid for (pid,) in queue.connection.execute(CLIENTS)}


def measure_filled(
    queue: Queue, processes: int, count: int, fill: Callable[[], object], **settings: str
) -> float:
    """The same for what somebody else fills."""
    fill()
    with queue.running(processes, **settings):
        return rate(wait_until_empty(queue, count), count)


def rate(samples: list[Sample], count: int) -> float:
    """The jobs a second of the last nine tenths."""
    counted = [(at, left) for at, left in samples if 0 < left <= COUNTED_SHARE * count]
    if len({left for _, left in counted}) < 2:
        raise SystemExit(f"{count} jobs are too few to measure: they were done at once")
    (first_at, first_left), (last_at, last_left) = counted[0], counted[-1]
    return (first_left - last_left) / (last_at - first_at)


def wait_until_empty(queue: Queue, count: int, pause: float = LOOK_SECONDS) -> list[Sample]:
    """Look now and then until nothing is left; what was left at which times.

    Each look is two samples, from before and after it: it was so at some time between.

    :raises TimeoutError: when it takes too long.
    """
    began, samples = monotonic(), [(monotonic(), count)]
    while samples[-1][1] > 0:
        sleep(pause)
        asked, left = monotonic(), queue.left()
        samples += [(asked, left), (monotonic(), left)]
        patience = FIRST_SECONDS if samples[-1][1] == count else LAST_SECONDS
        if monotonic() > began + patience:
            raise TimeoutError(f"{queue.name}: {samples[-1][1]} of {count} jobs are left")
    return samples
