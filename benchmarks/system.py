"""A whole system for a benchmark: PostgreSQL with fsync on, the web, runners."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import Event
from time import monotonic

import psycopg

from jobrunner import database, embedded, migrations

START_SECONDS = 30


@contextmanager
def postgres(**options: str) -> Iterator[str]:
    """Run a server of our own, set as the embedded one is, but for these; give its URL."""
    with server(options) as started:
        yield started.url


@contextmanager
def server(options: Mapping[str, str] | None = None) -> Iterator[embedded.Server]:
    """Run a server of our own, migrated, that can be stopped and started again."""
    with TemporaryDirectory() as folder:
        started = embedded.Server(Path(folder), options=dict(options or {}))
        try:
            with database.connect(started.start()) as connection:
                migrations.migrate(connection)
            yield started
        finally:
            started.stop()


@contextmanager
def process(url: str, model: str, workers: int) -> Iterator[None]:
    """Run a runner."""
    arguments = ["-m", "jobrunner", "start", "--model", model, "--workers", str(workers)]
    with _service(arguments, url):
        yield


@contextmanager
def runner(url: str, model: str, workers: int) -> Iterator[None]:
    """Run a runner and wait until it sleeps with all workers ready."""
    query = "select from runner where sleeping and ready_workers = %s"
    with process(url, model, workers), psycopg.connect(url, autocommit=True) as connection:
        wait_for(lambda: connection.execute(query, [workers]).rowcount == 1, "the runner")
        yield


@contextmanager
def _service(arguments: list[str], url: str, **settings: str) -> Iterator[None]:
    process = subprocess.Popen(
        [sys.executable, *arguments],
        env={**os.environ, "DATABASE_URL": url, **settings},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield
    finally:
        process.terminate()
        process.wait()


def wait_for(ready: Callable[[], object], what: str) -> None:
    """Wait until it is so.

    :raises SystemExit: when it is not in START_SECONDS.
    """
    deadline = monotonic() + START_SECONDS
    while not ready():
        if monotonic() > deadline:
            raise SystemExit(f"waited in vain for {what}")
        Event().wait(0.01)


def worked_by(pid: int) -> float:
    """Seconds that a process has had a processor; Linux tells."""
    file = Path(f"/proc/{pid}/schedstat")
    return int(file.read_text().split()[0]) / 1e9 if file.exists() else 0.0
