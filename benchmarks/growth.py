"""Whether this system stays as fast as the work grows."""

import re
import subprocess
from pathlib import Path
from statistics import median

import psycopg

from benchmarks import drain
from benchmarks.queues import end, python
from benchmarks.queues.jobrunner import Aged, Jobrunner
from benchmarks.system import wait_for

JOBS = 40_000
PINNED_JOBS = 200_000
RUNNERS_JOBS = 100_000
PART = 10_000
# To count what is left takes long where nothing can be removed.
SELDOM_SECONDS = 1.0
SIZES = (200, 2_000, 10_000)

FINISHED = """
    insert into job (
        model, input, status, attempt, claimed_by, created_at, started_at, finished_at, result
    )
    select
        'sentiment',
        jsonb_build_object('text', repeat('This product is amazing! ', 8)),
        'completed',
        1,
        'before-1-abcd',
        now() - interval '1 day',
        now() - interval '1 day',
        now() - interval '1 day',
        '{"sentiment": "positive", "confidence": 0.5}'
    from generate_series(1, %s)
"""
READY = "select from runner where sleeping and ready_workers > 0"
# Of the jobs in the order in which they were finished, how long each part took.
PARTS = """
    select extract(epoch from max(finished_at) - min(finished_at))::float8
    from (
        select
            finished_at,
            (row_number() over (order by finished_at) - 1) / %(part)s as part
        from job
        where status = 'completed' and claimed_by <> 'before-1-abcd'
    ) as finished
    group by part
    order by part
"""
FILL_SIZE = """
    insert into job (model, input)
    select
        'sentiment',
        jsonb_build_object(
            'text',
            (
                select string_agg(md5((number * 1000 + part)::text), '')
                from generate_series(1, %(size)s / 32) as part
            )
        )
    from generate_series(1, %(count)s) as number
"""


def aged(empty: Jobrunner, old: Aged) -> tuple[float, float]:
    """Jobs a second of an empty table, and of one with many finished rows."""
    return drain.measure(empty, 2, JOBS), drain.measure(old, 2, JOBS)


def pinned(queue: Jobrunner) -> tuple[float, float, list[float]]:
    """The rate of the last 10,000 of 200,000 jobs ÷ that of the first 10,000 (after a warm-up),
    while a REPEATABLE READ transaction is open; the same of 40,000, as medians of parts; and the
    rate of each tenth."""
    queue.forget()
    queue.fill(PINNED_JOBS)
    with psycopg.connect(queue.url) as reader:
        reader.execute("set transaction isolation level repeatable read")
        reader.execute("select count(*) from job")
        with queue.running(2):
            drain.wait_until_empty(queue, PINNED_JOBS, SELDOM_SECONDS)
    seconds = [float(row[0]) for row in queue.connection.execute(PARTS, {"part": PART})]
    # While the runners start one after the other, the first part is no measure.
    tenths = [2 * PART / sum(pair) for pair in zip(seconds[::2], seconds[1::2], strict=True)]
    return seconds[1] / seconds[-1], median(seconds[1:5]) / median(seconds[-4:]), tenths


def runners(queue: Jobrunner, count: int) -> float:
    """Jobs a second with so many runners of one worker each, which wait for them together."""
    queue.forget()
    with queue.running(count):
        wait_for(lambda: queue.connection.execute(READY).rowcount == count, "the runners")
        queue.fill(RUNNERS_JOBS)
        return drain.rate(drain.wait_until_empty(queue, RUNNERS_JOBS), RUNNERS_JOBS)


def size(queue: Jobrunner, characters: int) -> float:
    """Jobs a second with texts of so many characters."""
    queue.forget()
    count = JOBS // 4
    fill = {"size": characters, "count": count}
    return drain.measure_filled(queue, 2, count, lambda: queue.connection.execute(FILL_SIZE, fill))


def retention(queue: Jobrunner) -> float:
    """Jobs a second while as many old ones are being deleted."""
    queue.forget()
    queue.connection.execute(FINISHED, [JOBS])
    return drain.measure_filled(queue, 2, JOBS, lambda: queue.fill(JOBS), JOBRUNNER_RETENTION="1h")


def memory(queue: Jobrunner) -> float:
    """The proportional set size of a runner with two workers of the mock, in MiB."""
    queue.forget()
    process = subprocess.Popen(
        python("jobrunner", "start", "--workers", "2"),
        env=queue.environment | {"MOCK_DELAY_SECONDS": "0"},
        stderr=subprocess.DEVNULL,
    )
    try:
        queue.fill(100)
        drain.wait_until_empty(queue, 100)
        return sum(map(_pss, [process.pid, *children(process.pid)])) / 1024
    finally:
        end(process)


def children(pid: int) -> list[int]:
    """The processes that one has started."""
    listed = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    return [int(child) for child in listed.split()]


def _pss(pid: int) -> int:
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found[1]) if found else 0
