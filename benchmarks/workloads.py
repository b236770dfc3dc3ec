"""What is measured, each workload by its name: the contenders take turns, run by run."""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from statistics import quantiles

from benchmarks import (
    batching,
    bulk,
    crowd,
    disk,
    drain,
    fleet,
    growth,
    latency,
    lists,
    profile,
    queues,
    raw,
    signals,
    statements,
    steady,
    submit,
    system,
    viewers,
    views,
    waits,
    webs,
)
from benchmarks.bench import Bench
from benchmarks.queues import Queue, SqlQueue
from benchmarks.queues.backlog import Backlog
from benchmarks.queues.celery import Celery, CeleryOnDisk
from benchmarks.queues.graphile import GraphileWorker
from benchmarks.queues.history import History
from benchmarks.queues.jobrunner import (
    Aged,
    Batching,
    Checked,
    Jobrunner,
    OneRunner,
    Prompt,
    Unlisted,
)
from benchmarks.queues.pgqueuer import PgQueuer
from benchmarks.queues.procrastinate import Procrastinate
from benchmarks.queues.thin import Thin
from benchmarks.webs.batchers import PEERS, Batcher, OursBatching

PROCESSES = 2
# So many that the 99th percentile is not just the slowest one.
LATENCY_JOBS = 300
# So many that the slowest of a hundred are six.
START_JOBS = 600
TURNS = 1000
# How many requests are sent by so many connections at once: so many that less than one in a
# hundred is the first of its connection, which waits until all the others have been accepted.
REQUESTS = {1: 750, 16: 3000, 64: 8000}
# What PostgreSQL has where nobody sets it; the embedded one has more where there is memory.
SMALL_CACHE = "128MB"
QUEUES: tuple[type[Queue], ...] = (
    Jobrunner, OneRunner, PgQueuer, GraphileWorker, Celery, CeleryOnDisk, Thin, Procrastinate,
)  # fmt: skip
# Whose jobs signal their start.
PROMPT: tuple[type[Queue], ...] = (
    Jobrunner, Celery, CeleryOnDisk, GraphileWorker, Thin, PgQueuer, Procrastinate,
)  # fmt: skip


def drains(bench: Bench) -> None:
    """How fast a full queue is emptied by two processes."""
    for contenders in bench.turns(bench.queues(QUEUES)):
        for queue in contenders:
            name = "drain of no-op jobs, 2 processes"
            if isinstance(queue, SqlQueue):
                value, wal, hits = drain.measure_used(queue, PROCESSES)
                for use, unit, figure in (("WAL", "bytes", wal), ("pages looked at", "", hits)):
                    bench.figures.add(f"{name}: {use} a job", queue.name, unit, figure)
            else:
                value = drain.measure(queue, PROCESSES)
            bench.figures.add(name, queue.name, "jobs/s", value, queue.settings)
        if not raw.missing():
            settings = "pgbench: claim 100, complete 100, the barest table"
            bench.figures.add(name, "raw SQL", "jobs/s", raw.measure(bench.url), settings)


def indexes(bench: Bench) -> None:
    """What the indexes of lists cost the drain."""
    for contenders in bench.turns(bench.queues((Jobrunner, Unlisted))):
        for queue in contenders:
            value = drain.measure(queue, PROCESSES)
            bench.figures.add("drain, by the indexes that there are", queue.name, "jobs/s", value)


def latencies(bench: Bench) -> None:
    """From commit to start, on an idle worker; and from when the client was called, and done."""
    with signals.ear() as ear:
        for contenders in bench.turns(bench.queues(PROMPT)):
            for queue in contenders:
                queue.forget()
                with queue.running(1):
                    queues.rest()
                    starts = latency.measure(queue.submit, ear, START_JOBS)
                for name, seconds in _clocks(starts):
                    _add_quantiles(bench, f"{name}, idle worker", queue, seconds)


def turns(bench: Bench) -> None:
    """From commit to start, beside the peer that is closest, job by job."""
    contenders = bench.queues((Jobrunner, Celery))
    with signals.ear() as ear:
        for _ in range(bench.runs):
            with ExitStack() as stack:
                for queue in contenders:
                    queue.forget()
                    stack.enter_context(queue.running(1))
                queues.rest()
                submits = [queue.submit for queue in contenders]
                measured = latency.measure_in_turns(submits, ear, TURNS)
            for queue, starts in zip(contenders, measured, strict=True):
                for name, seconds in _clocks(starts):
                    _add_quantiles(bench, f"{name}, job by job in turns", queue, seconds)


def _clocks(starts: Sequence[latency.Start]) -> list[tuple[str, list[float]]]:
    return [
        ("commit to start", [each.after_commit for each in starts]),
        ("call of submit to start", [each.after_call for each in starts]),
        ("return of submit to start", [each.after_return for each in starts]),
    ]


def half_busy(bench: Bench) -> None:
    """From commit to start where one of two workers is on a job that takes long."""
    ours = bench.queue(OneRunner)
    assert isinstance(ours, OneRunner)
    with signals.ear() as ear:
        for _ in range(bench.runs):
            ours.forget()
            with ours.running(PROCESSES, JOBRUNNER_GRACE_SECONDS="0"):
                ours.occupy()
                queues.rest()
                starts = latency.measure(ours.submit, ear, LATENCY_JOBS)
            seconds = [each.after_commit for each in starts]
            _add_quantiles(bench, "commit to start, one of two workers busy", ours, seconds)


def steadies(bench: Bench) -> None:
    """From POST to the final row, at a fixed rate."""
    ours = bench.ours()
    workload = f"POST to final row, {steady.RATE} a second"
    for _ in range(bench.runs):
        ours.forget()
        with webs.Ours(ours.url).running() as port, ours.running(PROCESSES):
            queues.rest()
            submit.measure(port, 4, 200)  # a warm-up
            _add_quantiles(bench, workload, ours, steady.measure(ours, port))
        alone = disk.measure(steady.RATE, steady.SECONDS)
        _add_cuts(bench, workload, "the disk alone", alone, "a page written and flushed as often")


def _add_quantiles(bench: Bench, workload: str, queue: Queue, seconds: list[float]) -> None:
    _add_cuts(bench, workload, queue.name, seconds, queue.settings)


def _add_cuts(
    bench: Bench, workload: str, contender: str, seconds: list[float], settings: str
) -> None:
    cuts = quantiles(seconds, n=100)
    for name, value in (("p50", cuts[49]), ("p99", cuts[98])):
        bench.figures.add(f"{workload}, {name}", contender, "ms", value * 1000, settings)


def submits(bench: Bench) -> None:
    """`POST /predict` by clients that post again as soon as they are answered."""
    found = list(_webs(bench))
    for web in found:
        with web.running() as port:
            submit.measure(port, max(REQUESTS), 3000)
    for contenders in bench.turns(found):
        for web in contenders:
            bench.ours().forget()
            with web.running() as port:
                submit.measure(port, 16, 1500)  # a warm-up
                for clients, requests in REQUESTS.items():
                    seconds, rate = submit.measure(port, clients, requests)
                    name = f"POST /predict, {clients} connections"
                    bench.figures.add(name, web.name, "requests/s", rate, web.settings)
                    p99 = quantiles(seconds, n=100)[98] * 1000
                    bench.figures.add(f"{name}, p99", web.name, "ms", p99, web.settings)


def batches(bench: Bench) -> None:
    """`POST /predict/batch`, by one client."""
    ours, name = bench.ours(), f"POST /predict/batch, {submit.BATCH_ITEMS} items"
    for _ in range(bench.runs):
        ours.forget()
        with webs.Ours(ours.url).running() as port:
            submit.measure(port, 1, 20, submit.BATCH)  # a warm-up
            _, rate = submit.measure(port, 1, 200, submit.BATCH)
        bench.figures.add(name, ours.name, "jobs/s", rate * submit.BATCH_ITEMS)


def bulks(bench: Bench) -> None:
    """Many texts by VADER, from the first POST to the last result."""
    if queue := bench.queue(bulk.Vader):
        assert isinstance(queue, bulk.Vader)
        for _ in range(bench.runs):
            name = f"{bulk.TEXTS:,} texts of 100 characters by VADER, through the API"
            bench.figures.add(name, queue.name, "texts/s", bulk.measure(queue), queue.settings)


def waitings(bench: Bench) -> None:
    """From the recording of an outcome to the answer of a `POST /predict?wait=20`."""
    ours = bench.ours()
    for _ in range(bench.runs):
        ours.forget()
        with webs.Ours(ours.url).running() as port, ours.running(1):
            queues.rest()
            seconds = waits.measure(port, LATENCY_JOBS)
        _add_quantiles(bench, "outcome to answered wait", ours, seconds)


def crowds(bench: Bench) -> None:
    """How one web process answers others while as many clients wait as may."""
    for _ in range(bench.runs):
        for workload, contender, unit, value in crowd.measure(bench.ours()):
            bench.figures.add(workload, contender, unit, value, crowd.SETTINGS)


def lookers(bench: Bench) -> None:
    """What the dashboard loads at first, and what those cost who leave it open."""
    if needed := viewers.missing():
        print(f"viewers are left out: they need {needed}", file=sys.stderr)
        return
    for _ in range(bench.runs):
        for workload, contender, unit, value in viewers.measure(bench.ours()):
            bench.figures.add(f"dashboard: {workload}", contender, unit, value, viewers.SETTINGS)


def listings(bench: Bench) -> None:
    """`GET /jobs` of many jobs, by what is asked for."""
    history = bench.queue(History)
    assert isinstance(history, History)
    workload = f"GET /jobs, {lists.PAGE_JOBS} of {history.jobs:,}"
    for _ in range(bench.runs):
        with webs.Ours(history.url).running() as port:
            for filters in lists.CASES:
                seconds, bar = lists.measure(port, history, filters), lists.bar_of(filters)
                _add_cuts(bench, workload, lists.name_of(filters), seconds, bar)


def looks(bench: Bench) -> None:
    """The views and the queries of the runbook, on a bad day."""
    backlog = bench.queue(Backlog)
    assert isinstance(backlog, Backlog)
    workload, bar = f"views beside {backlog.jobs:,} jobs", f"at most {views.BAR_MS} ms"
    for _ in range(bench.runs):
        for name, query in views.cases(backlog):
            seconds, worked = views.measure(backlog, query)
            _add_cuts(bench, workload, name, seconds, bar)
            _add_cuts(bench, f"{workload}, processor time", name, worked, bar)


def _webs(bench: Bench) -> Iterator[webs.Web]:
    celery = bench.queue(Celery)
    for kind in webs.WEBS:
        if kind.missing() or (kind is webs.FlaskCelery and celery is None):
            continue
        database = bench.queue(Procrastinate) if kind is webs.FastApiProcrastinate else bench.ours()
        if database:
            broker = celery.broker if isinstance(celery, Celery) else ""
            yield kind(database.url, broker)


def batchings(bench: Bench) -> None:
    """Batches that are made of what comes: a full queue, many clients, one client, a bad item."""
    ours, prompt = bench.queue(Batching), bench.queue(Prompt)
    assert isinstance(ours, Batching)
    assert isinstance(prompt, Prompt)
    contenders = [OursBatching(ours), *_peers(bench)]
    for _ in range(bench.runs):
        _add_all(bench, batching.drained(ours))
        _add_all(bench, batching.in_flight(ours))
        for web in contenders:
            with web.running() as port:
                for measure in (batching.lone, batching.loaded, batching.poisoned):
                    _add_all(bench, measure(web, port))
        with (at_once := OursBatching(prompt)).running() as port:
            _add_all(bench, batching.lone(at_once, port))


def _peers(bench: Bench) -> Iterator[Batcher]:
    for kind in PEERS:
        if missing := kind.missing():
            print(f"{kind.name} is left out: it needs {missing}", file=sys.stderr)
        else:
            yield kind(bench.url)


def _add_all(bench: Bench, figures: Iterator[batching.Figure]) -> None:
    for workload, contender, unit, value, settings in figures:
        bench.figures.add(workload, contender, unit, value, settings)


def ages(bench: Bench) -> None:
    """Whether finished jobs slow down the others."""
    ours, aged, add = bench.ours(), bench.queue(Aged), bench.figures.add
    assert isinstance(aged, Aged)
    beside = f"drain beside {aged.finished:,} finished rows"
    for _ in range(bench.runs):
        empty, old = growth.aged(ours, aged)
        add(beside, aged.name, "jobs/s", old)
        add(f"{beside} ÷ drain of an empty table", aged.name, "", old / empty)


def fleets(bench: Bench) -> None:
    """What it costs to have many runners."""
    ours = bench.ours()
    with signals.ear() as ear:
        for run in range(bench.runs):
            for count in fleet.COUNTS:
                for wake_all in (False, True)[:: -1 if run % 2 else 1]:
                    who = fleet.ALL_ARE_WOKEN if wake_all else fleet.ONE_IS_WOKEN
                    for name, unit, value in fleet.measure(ours, count, ear, wake_all):
                        name = f"runners that sleep: {name}"
                        bench.figures.add(name, f"{count}: {who}", unit, value)


def profiles(bench: Bench) -> None:
    """Where the time goes."""
    ours, traced, add = bench.ours(), bench.queue(profile.Traced), bench.figures.add
    assert isinstance(traced, profile.Traced)
    with signals.ear() as ear:
        for _ in range(bench.runs):
            for part, seconds in profile.parts(traced, ear).items():
                add("parts of a start, p50", part, "ms", seconds * 1000)
            for who, seconds in profile.work(ours).items():
                add("processor time of a job that is drained", who, "µs", seconds * 1e6)
            for statement, what, value in profile.statements_of_one_job(ours):
                add(f"statements of one job: {what}", statement, "", value)
    if needed := profile.missing():
        print(f"what a runner does is left out: it needs {needed}", file=sys.stderr)
        return
    for function, share in profile.functions(ours).items():
        add("a busy runner: share of its time by function", function, "", share)


def growths(bench: Bench) -> None:
    """Whether this system stays as fast as the work grows."""
    ours, add = bench.ours(), bench.figures.add
    for _ in range(bench.runs):
        before = fleet.deadlocks(ours)
        for count in (1, 2, 4, 8):
            add(f"drain, runners: {count}", ours.name, "jobs/s", growth.runners(ours, count))
        add("deadlocks in these drains", ours.name, "", fleet.deadlocks(ours) - before)
        for size in growth.SIZES:
            value = growth.size(ours, size)
            add(f"drain, texts of {size:,} characters", ours.name, "jobs/s", value)
        add("drain while old jobs are deleted", ours.name, "jobs/s", growth.retention(ours))
        add("memory of a runner with 2 workers", ours.name, "MiB", growth.memory(ours))


def pins(bench: Bench) -> None:
    """Whether it stays as fast while an old transaction keeps dead rows from being removed."""
    with system.postgres(shared_buffers=SMALL_CACHE) as url:
        cramped = Jobrunner(url)
        cramped.install()
        for _ in range(bench.runs):
            for queue, settings in ((bench.ours(), ""), (cramped, f"shared_buffers {SMALL_CACHE}")):
                last, fifth, tenths = growth.pinned(queue)
                for number, rate in enumerate(tenths, 1):
                    if not settings:
                        name = f"pinned horizon: {growth.PINNED_JOBS:,} jobs by tenths"
                        bench.figures.add(name, f"tenth {number}", "jobs/s", rate)
                name = "pinned horizon: last 10,000 of 200,000 ÷ the first"
                bench.figures.add(name, settings or queue.name, "", last)
                name = "pinned horizon: last 40,000 of 200,000 ÷ the first, by parts"
                bench.figures.add(name, settings or queue.name, "", fifth)
        cramped.close()


def costs(bench: Bench) -> None:
    """What single statements cost, as they are and as they were."""
    ours, checked, add = bench.ours(), bench.queue(Checked), bench.figures.add
    assert isinstance(checked, Checked)
    for _ in range(bench.runs):
        for variant in statements.VARIANTS:
            for name, value in statements.costs(ours, variant).items():
                add(f"claim and complete 200 at once: {name} a job", variant, "", value)
        for variant in statements.SINGLES:
            tables = checked if variant == statements.RULES_AS_CHECKS else ours
            for name, value in statements.single(tables, variant).items():
                add(f"one job in a deep queue: {name}", variant, "", value)
        for notify in ("never", "as it is", "to a sleeper", "always") if raw.pgbench() else ():
            value = statements.inserts(ours, notify)
            add("inserts of 16 clients, by when they notify", notify, "inserts/s", value)


WORKLOADS: dict[str, Callable[[Bench], None]] = {
    "drain": drains,
    "latency": latencies,
    "turns": turns,
    "half-busy": half_busy,
    "steady": steadies,
    "submit": submits,
    "batch": batches,
    "bulk": bulks,
    "wait": waitings,
    "batching": batchings,
    "waiters": crowds,
    "viewers": lookers,
    "lists": listings,
    "views": looks,
    "indexes": indexes,
    "fleet": fleets,
    "age": ages,
    "growth": growths,
    "pinned": pins,
    "statements": costs,
    "profile": profiles,
}
