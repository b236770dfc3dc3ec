"""What it costs to have many runners: when a job comes and all sleep, when nothing comes, when all
claim at once. Beside it, all are woken up by each insert, as was done before."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from time import monotonic, sleep, time
from typing import LiteralString

from benchmarks import latency, queues
from benchmarks.drain import used
from benchmarks.growth import READY
from benchmarks.queues import SqlQueue, execute
from benchmarks.queues.jobrunner import Jobrunner
from benchmarks.signals import Ear
from benchmarks.system import wait_for

COUNTS = (1, 2, 4, 8)
# So that the slowest of a hundred are three.
STARTS = 300
BURSTS = 15
PAUSE_SECONDS = 0.1
IDLE_SECONDS = 5.0
ONE_IS_WOKEN, ALL_ARE_WOKEN = "one is woken up", "all are woken up (until migration 0040)"

WAKE_ALL: LiteralString = """
    create or replace function wake_all_runners() returns trigger language plpgsql as $$
    begin
        if exists (select from runner where sleeping) then
            perform pg_notify('job_submitted', '');
        end if;
        return null;
    end $$
"""
ALL = [
    WAKE_ALL,
    "alter table job disable trigger job_wakes_sleeping_runners",
    """
    create trigger wakes_all after insert on job
    for each statement execute function wake_all_runners()
    """,
]
ONE = [
    "drop trigger wakes_all on job",
    "alter table job enable trigger job_wakes_sleeping_runners",
]
# As many as there are runners, each of which takes one.
BURST = """
    insert into job (model, input)
    select
        'sentiment',
        '{"text": "now", "signal": true, "seconds": 0.1}'
    from generate_series(1, %s)
"""
ASLEEP = "select from runner where sleeping"
DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"

# A workload, a unit and a value.
Figure = tuple[str, str, float]


def measure(queue: Jobrunner, count: int, ear: Ear, wake_all: bool = False) -> Iterator[Figure]:
    """Give the figures of so many runners that sleep."""
    queue.forget()
    with _waking(queue, wake_all), queue.running(count):
        wait_for(lambda: queue.connection.execute(READY).rowcount == count, "the runners")
        queues.rest()
        wal, _ = used(queue.connection)
        idle = _worked()
        sleep(IDLE_SECONDS)
        idle = (_worked() - idle) / IDLE_SECONDS
        yield "processor time while nothing comes", "ms a second", idle * 1000
        written = used(queue.connection)[0] - wal
        yield "WAL while nothing comes", "bytes a second", written / IDLE_SECONDS
        began, worked = monotonic(), _worked()
        starts = [start.after_commit for start in latency.measure(queue.submit, ear, STARTS)]
        worked = _worked() - worked - idle * (monotonic() - began)
        yield "commit to start, p50", "ms", median(starts) * 1000
        yield "commit to start, p99", "ms", sorted(starts)[STARTS * 99 // 100] * 1000
        yield "processor time of a job", "ms", worked / (STARTS + latency.WARM_UP) * 1000
        bursts = [_burst(queue, count, ear) for _ in range(BURSTS)]
        yield (
            "a job for each, inserted at once: until all have started",
            "ms",
            (median(bursts) * 1000),
        )


def deadlocks(queue: SqlQueue) -> int:
    """How many there have been since the database was made."""
    [(count,)] = queue.connection.execute(DEADLOCKS).fetchall()
    return int(count)


def _burst(queue: Jobrunner, count: int, ear: Ear) -> float:
    wait_for(lambda: not queue.left(), "the end of the last one")
    wait_for(lambda: queue.connection.execute(ASLEEP).rowcount == count, "all sleep")
    # Longer than until they have looked once more.
    sleep(PAUSE_SECONDS)
    queue.connection.execute(BURST, [count])
    committed = time()
    return max(ear.hear() for _ in range(count)) - committed


@contextmanager
def _waking(queue: Jobrunner, wake_all: bool) -> Iterator[None]:
    execute(queue.url, ALL if wake_all else [])
    try:
        yield
    finally:
        execute(queue.url, ONE if wake_all else [])


def _worked() -> float:
    """Seconds that the processors of this machine have worked since it was started."""
    names = ("user", "nice", "system", "idle", "iowait", "irq", "softirq")
    ticks = dict(zip(names, map(int, Path("/proc/stat").read_text().split()[1:8]), strict=True))
    return sum(ticks[name] for name in ("user", "nice", "system", "irq", "softirq")) / 100
