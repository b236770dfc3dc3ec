"""What others notice of clients that wait: one web process, with nobody and with 96 waiting.

Where jobs are finished meanwhile, a runner takes as long for each that fifty are a second.
What is measured itself is of a model that nobody serves, and so always the same.
"""

import json
import selectors
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import quantiles
from threading import Event, Thread
from time import monotonic

from benchmarks import queues, submit, webs
from benchmarks.queues.jobrunner import Jobrunner
from benchmarks.submit import Client

# As many as may wait in a process of 128 threads.
WAITERS = 96
ONE_PROCESS = {"WEB_CONCURRENCY": "1", "WEB_THREADS": "128"}
CONNECTIONS = 4
REQUESTS = 2000
WARM_UP = 200
WAIT_SECONDS = 30
# More than can be finished meanwhile.
JOBS = 10_000
LOOK_SECONDS = 0.1
SETTINGS = "gunicorn, 1 process of 128 threads"

# Whether clients wait, and whether a runner works. Who waits is compared with what stands before.
CROWDS = {
    "nobody waits": (False, False),
    f"{WAITERS} wait": (True, False),
    "nobody waits, 50 jobs/s": (False, True),
    f"{WAITERS} wait, 50 jobs/s": (True, True),
}

UNSERVED = "unserved"
MODEL = "insert into model (name) values (%s) on conflict do nothing"
POST = submit.request("/predict", submit.ITEM | {"model": UNSERVED})
READ = """
    insert into job (model, input)
    values (%s, '{"text": "Nobody does it."}')
    returning id::text
"""
FILL = """
    insert into job (model, input)
    select
        'sentiment',
        '{"text": "It takes a moment.", "seconds": 0.02}'
    from generate_series(1, %s)
"""
# In the order in which they will be finished.
PENDING = """
    select id::text
    from job
    where model = 'sentiment' and status = 'pending'
    order by run_at, id
"""
SESSIONS = """
    select
        application_name,
        count(*)
    from pg_stat_activity
    where application_name like 'jobrunner web%' and datname = current_database()
    group by application_name
    order by application_name
"""

# A workload, beside whom, a unit and a value.
Figure = tuple[str, str, str, float]


class Waiters:
    """Clients that wait for a job each, and for the next one when that is final."""

    def __init__(self, port: int, jobs: Sequence[str]) -> None:
        self._answered: list[float] = []
        self._early = 0
        self._jobs = iter(jobs)
        self._clients = [Client(port, self._next()) for _ in range(WAITERS)]
        self._ended = Event()
        # A thread that mostly sleeps, beside the one that measures.
        self._thread = Thread(target=self._run)

    def __enter__(self) -> "Waiters":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        # What ends a thread ends nothing else.
        alive = self._thread.is_alive()
        self._ended.set()
        self._thread.join()
        for client in self._clients:
            client.socket.close()
        if self._early or not alive:
            raise SystemExit(f"of those who wait {self._early or 'all'} did not")

    @property
    def rate(self) -> float:
        """How many were told of a final job a second, from the first to the last one."""
        times = self._answered
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 0.0

    def _run(self) -> None:
        with selectors.DefaultSelector() as selector:
            for client in self._clients:
                selector.register(client.socket, selectors.EVENT_READ, client)
                client.post()
            while not self._ended.is_set():
                for key, _ in selector.select(LOOK_SECONDS):
                    if (seconds := key.data.receive()) is not None:
                        self._go_on(key.data, seconds)

    def _go_on(self, client: Client, seconds: float) -> None:
        if json.loads(client.body)["finished_at"]:
            self._answered.append(monotonic())
            client.request = self._next()
        elif seconds < WAIT_SECONDS - 1:
            self._early += 1
            return
        client.post()

    def _next(self) -> bytes:
        return submit.get(f"/jobs/{next(self._jobs)}?wait={WAIT_SECONDS}")


def measure(queue: Jobrunner) -> Iterator[Figure]:
    """Give the figures of a run: each beside nobody, and then beside those who wait."""
    queue.forget()
    queue.connection.execute(MODEL, [UNSERVED])
    queue.connection.execute(FILL, [JOBS])
    [(read,)] = queue.connection.execute(READ, [UNSERVED]).fetchall()
    alone: dict[str, float] = {}
    with webs.Ours(queue.url).running(**ONE_PROCESS) as port:
        for who, (wait, work) in CROWDS.items():
            with _crowd(queue, port, wait, work) as waiters:
                calls = _calls(port, read)
                yield from ((name, who, unit, value) for name, unit, value in calls)
                if waiters is None:
                    alone = {name: value for name, _, value in calls}
                    continue
                for name, _, value in calls:
                    yield f"{name} ÷ that where nobody waits", who, "", value / alone[name]
                yield from _connections(queue, who)
                if work:
                    yield "waits that are answered meanwhile", who, "a second", waiters.rate


@contextmanager
def _crowd(queue: Jobrunner, port: int, wait: bool, work: bool) -> Iterator[Waiters | None]:
    with ExitStack() as stack:
        if work:
            stack.enter_context(queue.running(1))
        jobs = [row[0] for row in queue.connection.execute(PENDING)]
        waiters = stack.enter_context(Waiters(port, jobs)) if wait else None
        queues.rest()
        yield waiters


def _calls(port: int, read: str) -> list[tuple[str, str, float]]:
    """What is measured of each call, its unit, and its value."""
    calls = {"GET of a job": submit.get(f"/jobs/{read}"), "POST /predict": POST}
    figures = []
    for call, sent in calls.items():
        name = f"{call} beside waits, {CONNECTIONS} connections"
        submit.measure(port, CONNECTIONS, WARM_UP, sent)
        seconds, rate = submit.measure(port, CONNECTIONS, REQUESTS, sent)
        cuts = quantiles(seconds, n=100)
        figures += [
            (name, "requests/s", rate),
            (f"{name}, p50", "ms", cuts[49] * 1000),
            (f"{name}, p99", "ms", cuts[98] * 1000),
        ]
    return figures


def _connections(queue: Jobrunner, who: str) -> Iterator[Figure]:
    for name, count in queue.connection.execute(SESSIONS):
        yield f"database connections named “{name}”", who, "", count
