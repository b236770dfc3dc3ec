"""Batches that a service makes of what comes: how full they are under load, what an item that is
alone waits, and what a bad one costs its neighbours."""

import selectors
from collections.abc import Iterator, Sequence
from statistics import quantiles
from time import monotonic, sleep

from benchmarks import drain, submit
from benchmarks.models import LONE_SECONDS, MAX_BATCH_SIZE, MOST_ITEMS
from benchmarks.queues.jobrunner import Batching
from benchmarks.submit import Client
from benchmarks.webs.batchers import Batcher

CLIENTS = 96
REQUESTS = 4_000
# So that plans are made, and an adaptive server has adapted.
WARM_UP = 1_000
LONE_REQUESTS = 150
# Long enough for a runner to fall asleep again.
PAUSE_SECONDS = 0.03
LOOK_SECONDS = 0.004
# While an item holds the model for so long, all that are to go together have come.
HOLD_SECONDS = 0.5
GOOD = MAX_BATCH_SIZE - 1

RATE = f"items of a model that takes {MAX_BATCH_SIZE} at once, {MOST_ITEMS:.0f}/s at most"
LONE = "POST to result on an idle service, less the model"
POISON = f"one bad item among {MAX_BATCH_SIZE}"

# A workload, a contender, a unit, a value and the contender's settings.
Figure = tuple[str, str, str, float, str]


class Asking(Client):
    """A client that may be refused."""

    strict = False


def drained(queue: Batching) -> Iterator[Figure]:
    """Give the figures of a full queue."""
    rate, name = drain.measure(queue, 1), f"{queue.name}, a full queue"
    yield from _rates(name, rate, queue.settings)


def in_flight(queue: Batching) -> Iterator[Figure]:
    """Give the figures of as many clients where no web takes its share of the processor: one
    connection submits a job for each that it sees to be finished."""
    queue.forget()
    with queue.running(1):
        queue.fill(CLIENTS)
        submitted, began, counted = CLIENTS, 0.0, 0
        while submitted < WARM_UP + REQUESTS:
            sleep(LOOK_SECONDS)
            if finished := CLIENTS - queue.left():
                queue.fill(finished)
                submitted += finished
            if not began and submitted >= WARM_UP:
                began, counted = monotonic(), submitted
        rate = (submitted - counted) / (monotonic() - began)
    yield from _rates(f"{queue.name}, no web", rate, f"{CLIENTS} in flight; {queue.settings}")


def loaded(web: Batcher, port: int) -> Iterator[Figure]:
    """Give the figures of many clients that each want a result."""
    sent = web.request("This product is amazing!")
    submit.measure(port, CLIENTS, WARM_UP, sent)
    seconds, rate = submit.measure(port, CLIENTS, REQUESTS, sent)
    yield from _rates(web.name, rate, f"{CLIENTS} clients; {web.settings}")
    p99 = quantiles(seconds, n=100)[98] * 1000
    yield f"POST to result, {CLIENTS} clients, p99", web.name, "ms", p99, web.settings


def _rates(name: str, rate: float, settings: str) -> Iterator[Figure]:
    yield RATE, name, "items/s", rate, settings
    yield f"{RATE}: the share of that", name, "", rate / MOST_ITEMS, settings


def lone(web: Batcher, port: int) -> Iterator[Figure]:
    """Give the figures of a client that has the service for itself."""
    client = Client(port, web.request("This product is amazing!"))
    with client.socket:
        seconds = [_ask(web, client) - LONE_SECONDS for _ in range(LONE_REQUESTS)]
    cuts = quantiles(seconds, n=100)
    for cut, value in (("p50", cuts[49]), ("p99", cuts[98])):
        yield f"{LONE}, {cut}", web.name, "ms", value * 1000, web.settings


def _ask(web: Batcher, client: Client) -> float:
    sleep(PAUSE_SECONDS)
    client.post()
    while (seconds := client.receive()) is None:
        pass
    if not web.is_result(client.body):
        raise SystemExit(f"{web.name} gave no result: {client.body[:200]!r}")
    return seconds


def poisoned(web: Batcher, port: int) -> Iterator[Figure]:
    """Give the figures of a batch of which one item makes the model raise.

    The seconds are from when the model is free for it.
    """
    holder = Asking(port, web.request(f"hold {HOLD_SECONDS}"))
    texts = ["This product is amazing!"] * GOOD
    texts.insert(GOOD // 2, "poison")
    clients = [Asking(port, web.request(text)) for text in texts]
    holder.post()
    free = monotonic() + HOLD_SECONDS + LONE_SECONDS
    sleep(HOLD_SECONDS / 5)
    times = _answers(clients)
    bad = times.pop(GOOD // 2) - free
    results = [_has_result(web, client) for client in clients]
    if results.pop(GOOD // 2):
        raise SystemExit(f"{web.name} has a result for what the model can not do")
    for client in (holder, *clients):
        client.socket.close()
    yield f"{POISON}: results of the others", web.name, "", sum(results), web.settings
    good = max(times) - free
    yield f"{POISON}: until the others are answered", web.name, "s", good, web.settings
    yield f"{POISON}: until all are answered", web.name, "s", max(bad, good), web.settings


def _answers(clients: Sequence[Client]) -> list[float]:
    """Post all at once; when each was answered."""
    times: dict[Client, float] = {}
    with selectors.DefaultSelector() as selector:
        for client in clients:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.post()
        while len(times) < len(clients):
            for key, _ in selector.select():
                if key.data.receive() is not None:
                    # Who has nothing more to ask may be closed meanwhile.
                    selector.unregister(key.data.socket)
                    times[key.data] = monotonic()
    return [times[client] for client in clients]


def _has_result(web: Batcher, client: Client) -> bool:
    return client.status == 200 and web.is_result(client.body)
