"""``python -m benchmarks.outages``: how fast a runner is itself again after an outage.

For each kind of outage: the rate before it, the rate from 10 to 20 s after PostgreSQL is
back, after how many seconds the rate was back to 95%, and the median latency from a commit
to the start of the model before and after. Takes about seven minutes.
"""

import signal
from collections.abc import Callable
from statistics import median
from threading import Event
from time import monotonic

import psycopg

from benchmarks import latency, system
from benchmarks.queues import Submit
from benchmarks.queues.jobrunner import SUBMIT
from benchmarks.signals import Ear, ear
from jobrunner.embedded import Server

WORKERS = 4
JOB_SECONDS = 0.05
BACKLOG = 6000
BEFORE_SECONDS = 10
AFTER_SECONDS = 20
GOOD_SHARE = 0.95
LATENCY_JOBS = 30

FILL = """
    insert into job (input)
    select
        jsonb_build_object('seconds', %(seconds)s::float8)
    from generate_series(1, %(count)s)
"""

EMPTY = "delete from job where finished_at is not null"
FORGET_PENDING = """
    update job
    set
        status = 'failed',
        finished_at = clock_timestamp(),
        error = '{"code": "cancelled", "message": "the benchmark is over", "retryable": false}'
    where status = 'pending'
"""

# Completed in each second from a time on, by the clock of the database.
COMPLETED = """
    select count(job.id)::integer
    from generate_series(0, %(seconds)s - 1) as second
    left join job
        on
            job.status = 'completed'
            and job.finished_at >= %(since)s::timestamptz + make_interval(secs => second)
            and job.finished_at < %(since)s::timestamptz + make_interval(secs => second + 1)
    group by second
    order by second
"""

TERMINATE = """
    select pg_terminate_backend(pid)
    from pg_stat_activity
    where backend_type = 'client backend' and pid <> pg_backend_pid()
"""


def main() -> None:
    """Measure every kind of outage."""
    model = "sentiment=benchmarks.models:Quick"
    with ear() as signals, system.server() as server, system.runner(server.url, model, WORKERS):
        for how, signum in (("fast", signal.SIGINT), ("immediate", signal.SIGQUIT)):
            for seconds in (8, 30):
                outage = _restart(server, signum, seconds)
                _measure(f"{how} stop, {seconds} s", server, signals, outage)
        _measure("every backend terminated", server, signals, lambda: _terminate(server))


def _measure(name: str, server: Server, signals: Ear, outage: Callable[[], None]) -> None:
    before = _start_latency(server, signals)
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(FILL, {"seconds": JOB_SECONDS, "count": BACKLOG})
        began = _now(connection)
    Event().wait(BEFORE_SECONDS + 2)
    outage()
    with psycopg.connect(server.url, autocommit=True) as connection:
        back = _now(connection)
        Event().wait(AFTER_SECONDS + 1)
        rate = sum(_completed(connection, began, BEFORE_SECONDS + 2)[2:]) / BEFORE_SECONDS
        after = _completed(connection, back, AFTER_SECONDS)
        connection.execute(FORGET_PENDING)
    later = sum(after[10:]) / len(after[10:]) / rate
    print(
        f"{name:<26} {rate:5.1f} jobs/s, after {later:4.0%}, good after {_good(after, rate)} s,"
        f" start {before * 1000:.1f} ms, after {_start_latency(server, signals) * 1000:.1f} ms",
        flush=True,
    )


def _good(after: list[int], rate: float) -> str:
    """After how many seconds two seconds together had the rate of before."""
    for second in range(len(after) - 1):
        if after[second] + after[second + 1] >= 2 * GOOD_SHARE * rate:
            return str(second)
    return f"over {len(after)}"


def _restart(server: Server, signum: int, seconds: float) -> Callable[[], None]:
    def restart() -> None:
        server.stop(signum)
        Event().wait(seconds)
        server.start()

    return restart


def _terminate(server: Server) -> None:
    with psycopg.connect(server.url, autocommit=True) as connection:
        connection.execute(TERMINATE)


def _start_latency(server: Server, signals: Ear) -> float:
    """The median from commit to start; waits first until the runner has nothing to do."""
    with psycopg.connect(server.url, autocommit=True) as connection:
        deadline = monotonic() + system.START_SECONDS
        while connection.execute("select from runner where sleeping").rowcount == 0:
            if monotonic() > deadline:
                raise SystemExit("the runner does not come to rest")
            Event().wait(0.05)
        connection.execute(EMPTY)
        starts = latency.measure(Submit(connection, SUBMIT), signals, LATENCY_JOBS)
        return median(each.after_commit for each in starts)


def _now(connection: psycopg.Connection) -> object:
    [(now,)] = connection.execute("select clock_timestamp()").fetchall()
    return now


def _completed(connection: psycopg.Connection, since: object, seconds: int) -> list[int]:
    rows = connection.execute(COMPLETED, {"since": since, "seconds": seconds})
    return [row[0] for row in rows]


if __name__ == "__main__":
    main()
