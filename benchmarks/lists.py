"""`GET /jobs` beside many jobs: how long a page takes, by what is asked for.

One client on one connection goes from random places on through the pages, by ``next``.
"""

import json
import sys
from collections.abc import Iterator, Mapping
from datetime import timedelta
from http.client import HTTPConnection
from random import Random
from time import monotonic, perf_counter
from urllib.parse import urlencode

from benchmarks.queues.history import RARE, UNUSED, History

PAGE_JOBS = 50
# What begins deep in a list gets there by long strides, which are not counted.
STRIDE_JOBS = 1000
STRIDES = 40
WALK_PAGES = 10
REQUESTS = 300
# A case whose pages take seconds has fewer of them.
CASE_SECONDS = 10.0
WINDOW = timedelta(days=1)

SINGLE_BAR, COMBINED_BAR = 10, 100
DRAWN = "…"

Filters = Mapping[str, str]

CASES: tuple[Filters, ...] = (
    {},
    {"status": "completed"},
    {"status": "failed"},
    {"status": "pending"},
    {"status": "processing"},
    {"model": "sentiment"},
    {"model": RARE},
    {"model": UNUSED},
    {"batch_id": DRAWN},
    {"created_after": DRAWN},
    {"created_before": DRAWN},
    {"status": "failed", "model": RARE},
    {"status": "failed", "created_before": DRAWN},
    {"status": "completed", "model": RARE},
    {"status": "pending", "model": RARE},
    {"status": "processing", "model": RARE},
    {"status": "processing", "model": "sentiment"},
    {"model": "sentiment", "created_after": DRAWN, "created_before": DRAWN},
    {"model": RARE, "created_after": DRAWN, "created_before": DRAWN},
    {"batch_id": DRAWN, "status": "failed"},
)


class Reader:
    """A client that reads one page after the other."""

    def __init__(self, port: int) -> None:
        self._connection = HTTPConnection("127.0.0.1", port)

    def get(self, address: str) -> tuple[float, str | None]:
        """Read a page; the seconds it took, and the address of the next one."""
        began = perf_counter()
        self._connection.request("GET", address)
        response = self._connection.getresponse()
        body = response.read()
        seconds = perf_counter() - began
        # The database ends what takes too long: that is slow, and no reason to stop.
        if response.status == 503:
            print(f"{address} was given up after {seconds:.1f} s", file=sys.stderr)
        elif response.status != 200:
            raise SystemExit(f"{address} was refused: {body[:200]!r}")
        return seconds, json.loads(body).get("next")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()


def name_of(filters: Filters) -> str:
    """Say what is asked for."""
    return "&".join(f"{name}={value}" for name, value in filters.items()) or "no filter"


def bar_of(filters: Filters) -> str:
    """Say what a page may take."""
    return f"at most {SINGLE_BAR if len(filters) <= 1 else COMBINED_BAR} ms"


def measure(port: int, history: History, filters: Filters) -> list[float]:
    """Give the seconds of pages from random places on."""
    random, reader = Random(1), Reader(port)
    places = _drawn(history, filters, random)
    if DRAWN not in filters.values():
        places += _deep(reader, filters)
    seconds: list[float] = []
    until = monotonic() + CASE_SECONDS
    for taken in _walks(reader, places, random):
        seconds.append(taken)
        # Of less than two there are no quantiles.
        if len(seconds) == REQUESTS or (len(seconds) > 1 and monotonic() > until):
            break
    reader.close()
    return seconds


def _walks(reader: Reader, places: list[str], random: Random) -> Iterator[float]:
    while True:
        address: str | None = random.choice(places)
        for _ in range(WALK_PAGES):
            if address:
                seconds, address = reader.get(address)
                yield seconds


def _drawn(history: History, filters: Filters, random: Random) -> list[str]:
    """First pages, with what is to be drawn: one where that is nothing."""
    names = [name for name, value in filters.items() if value == DRAWN]
    batches = history.batches() if "batch_id" in names else []
    places = []
    for _ in range(REQUESTS if names else 1):
        after = history.time(random)
        before = after + WINDOW if "created_after" in names else after
        drawn = {"created_after": after.isoformat(), "created_before": before.isoformat()}
        if batches:
            drawn["batch_id"] = str(random.choice(batches))
        places.append(_address({**filters, **{name: drawn[name] for name in names}}, PAGE_JOBS))
    return places


def _deep(reader: Reader, filters: Filters) -> list[str]:
    """Pages farther and farther from the first one."""
    places: list[str] = []
    address: str | None = _address(filters, STRIDE_JOBS)
    while address and len(places) < STRIDES:
        _, address = reader.get(address)
        if address:
            places.append(address.replace(f"limit={STRIDE_JOBS}", f"limit={PAGE_JOBS}"))
    return places


def _address(filters: Filters, limit: int) -> str:
    return "/jobs?" + urlencode({**filters, "limit": limit})
