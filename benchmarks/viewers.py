"""What the dashboard costs: its first view, and those who leave it open.

Meanwhile a few jobs a second are submitted and done, so that there is something to tell. What
the web and PostgreSQL take of the processor is read where Linux tells it, in /proc.
"""

import json
import os
import re
import selectors
import socket
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from http.client import HTTPConnection
from pathlib import Path
from shutil import which
from statistics import median
from threading import Event, Thread
from time import perf_counter

from benchmarks import queues, submit, webs
from benchmarks.queues.jobrunner import Jobrunner

VIEWERS = 50
RATE = 5
WATCH_SECONDS = 30.0
VIEWS = 7
STREAM = submit.get("/overview/events")
# What the page asks for at first, beside its files: which models there are, and the stream.
FIRST_EVENTS = ("overview", "jobs", "history")
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
PLOTS = "document.querySelector('#plots svg[aria-label], #no-plots:not([hidden])')"
ROWS = "document.querySelector('#jobs tbody tr')"
# Told by the page itself, since what drives the browser needs a while to ask: when the frame
# that shows the plots and the jobs was painted.
CLOCK = f"""
    new MutationObserver((_, observer) => {{
        if (!{PLOTS} || !{ROWS}) return;
        observer.disconnect();
        requestAnimationFrame(() => setTimeout(() => {{ window.drawnAt = performance.now(); }}));
    }}).observe(document, {{ subtree: true, childList: true, attributes: true }});
"""
DRAWN = "() => window.drawnAt"
# What a browser takes for anything at all.
BARE = "/livez"
PAINTED = "() => performance.getEntriesByName('first-contentful-paint').length"
FIRST_PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
SUBMIT = """
    insert into job (model, input)
    values ('sentiment', '{"text": "It takes a moment.", "seconds": 0.02}')
"""
SETTINGS = f"gunicorn, 2 processes of 128 threads; {RATE} jobs a second"
TICKS = os.sysconf("SC_CLK_TCK")

# A workload, a contender, a unit and a value.
Figure = tuple[str, str, str, float]


def missing() -> str | None:
    """Say what it would need that is not there, if anything."""
    return None if Path("/proc/self/stat").exists() else "/proc, which tells of processes"


def measure(queue: Jobrunner) -> Iterator[Figure]:
    """Give the figures of a run."""
    queue.forget()
    with webs.Ours(queue.url).running() as port, queue.running(1), _work(queue):
        queues.rest()
        yield from _first_view(port)
        web, database = _web(), _postmaster(queue)
        shares: dict[int, tuple[float, float]] = {}
        for count in (0, VIEWERS):
            with _looking(port, count) as told:
                shares[count] = _shares(web, database)
            if count and not told:
                raise SystemExit("those who look were told nothing")
        for name, place in (("web processes", 0), ("PostgreSQL", 1)):
            for count, share in shares.items():
                yield f"{name}, of one core", f"{count} look on", "%", share[place]
        added = sum(shares[VIEWERS]) - sum(shares[0])
        yield "what they add, of one core", f"{VIEWERS} look on", "%", added
        yield (
            "told to each",
            f"{VIEWERS} look on",
            "kB/s",
            sum(told) / VIEWERS / WATCH_SECONDS / 1e3,
        )


def _first_view(port: int) -> Iterator[Figure]:
    """What is loaded, in all, and how long that takes by one connection; and in a browser."""
    views = [_load(port) for _ in range(VIEWS)]
    yield "first view, all that is loaded", "HTTP", "kB", views[0][0] / 1e3
    yield "first view", "one connection", "ms", median(seconds for _, seconds in views) * 1e3
    yield from _in_browser(port)


def _load(port: int) -> tuple[int, float]:
    """Load the page, its files and its first data; the bytes and the seconds."""
    began, connection = perf_counter(), HTTPConnection("127.0.0.1", port)
    page = _get(connection, "/")
    files = sorted(set(re.findall(rb'(?:href|src)="(/dashboard/[^"]+)"', page)))
    size = len(page) + sum(len(_get(connection, file.decode())) for file in files)
    size += len(_get(connection, "/models"))
    connection.request("GET", "/overview/events")
    response, told = connection.getresponse(), set[str]()
    while not told.issuperset(FIRST_EVENTS):
        line = response.readline()
        size += len(line)
        if line.startswith(b"event: "):
            told.add(line.decode().strip().removeprefix("event: "))
        elif line.startswith(b"data: "):
            json.loads(line.removeprefix(b"data: "))
    size += len(response.readline())
    seconds = perf_counter() - began
    response.close()
    connection.close()
    return size, seconds


def _get(connection: HTTPConnection, path: str) -> bytes:
    # As every browser does.
    connection.request("GET", path, headers={"Accept-Encoding": "gzip"})
    response = connection.getresponse()
    body = response.read()
    if response.status != 200:
        raise SystemExit(f"{path} was refused: {response.status}")
    return body


def _in_browser(port: int) -> Iterator[Figure]:
    """How long until a browser that has nothing of it has painted something, and all of it."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        return
    if not (chromium := next(filter(None, map(which, CHROMIUMS)), None)):
        return
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        bare, painted, drawn = [], [], []
        for _ in range(VIEWS + 1):
            page = browser.new_context().new_page()
            page.goto(f"http://127.0.0.1:{port}{BARE}")
            page.wait_for_function(PAINTED)
            bare.append(float(page.evaluate(FIRST_PAINT)))
            page.context.close()
            page = browser.new_context().new_page()
            page.add_init_script(CLOCK)
            page.goto(f"http://127.0.0.1:{port}/", wait_until="commit")
            drawn.append(float(page.wait_for_function(DRAWN).json_value()))
            painted.append(float(page.evaluate(FIRST_PAINT)))
            page.context.close()
        browser.close()
    # The first one warms up the browser.
    yield "first view", f"Chromium, first paint of {BARE}", "ms", median(bare[1:])
    yield "first view", "Chromium, first paint", "ms", median(painted[1:])
    yield "first view", "Chromium, until all is drawn", "ms", median(drawn[1:])


@contextmanager
def _work(queue: Jobrunner) -> Iterator[None]:
    """Let jobs be submitted all the time."""
    over = Event()
    connection = queue.connection

    def run() -> None:
        while not over.wait(1 / RATE):
            connection.execute(SUBMIT)

    thread = Thread(target=run)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


@contextmanager
def _looking(port: int, count: int) -> Iterator[list[int]]:
    """Let so many look on; what each block of bytes was that they were told."""
    told: list[int] = []
    over = Event()
    with ExitStack() as stack, selectors.DefaultSelector() as selector:
        for _ in range(count):
            client = stack.enter_context(socket.create_connection(("127.0.0.1", port)))
            client.sendall(STREAM)
            selector.register(client, selectors.EVENT_READ)
        # What they are told at first is not what is measured.
        queues.rest()
        for key, _ in selector.select(0):
            _receive(key.fileobj)
        thread = Thread(target=_read, args=(selector, over, told))
        thread.start()
        try:
            yield told
        finally:
            over.set()
            thread.join()


def _read(selector: selectors.BaseSelector, over: Event, told: list[int]) -> None:
    while not over.is_set():
        ready = selector.select(0.2)
        told += [_receive(key.fileobj) for key, _ in ready]
        if not ready:
            over.wait(0.2)


def _receive(client: object) -> int:
    assert isinstance(client, socket.socket)
    part = client.recv(1_000_000)
    if not part:
        raise SystemExit("somebody who looks was sent away")
    return len(part)


def _shares(*families: int) -> tuple[float, ...]:
    """What part of one core each of these processes takes, with all that it has started, in %."""
    before, began = [_ticks(each) for each in families], perf_counter()
    Event().wait(WATCH_SECONDS)
    seconds = perf_counter() - began
    return tuple(
        (_ticks(each) - ticks) / TICKS / seconds * 100
        for each, ticks in zip(families, before, strict=True)
    )


def _ticks(family: int) -> int:
    """The processor time of a process and its children, those that are gone too."""
    return sum(sum(_stat(pid)[11:15]) for pid in (family, *_children(family)))


def _stat(pid: int) -> list[int]:
    """The numbers that stand behind the name and the state of a process (proc_pid_stat(5))."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return [0] * 20
    return [0, *(int(each) for each in text.rpartition(")")[2].split()[1:20])]


def _children(pid: int) -> list[int]:
    names = (entry.name for entry in Path("/proc").iterdir() if entry.name.isdigit())
    return [int(name) for name in names if _stat(int(name))[1] == pid]


def _web() -> int:
    """The gunicorn that this process has started."""
    for pid in _children(os.getpid()):
        if b"web:create_app()" in Path(f"/proc/{pid}/cmdline").read_bytes():
            return pid
    raise SystemExit("the web is not there")


def _postmaster(queue: Jobrunner) -> int:
    [(folder,)] = queue.connection.execute("show data_directory").fetchall()
    return int(Path(folder, "postmaster.pid").read_text().splitlines()[0])
