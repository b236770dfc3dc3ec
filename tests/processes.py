"""Real processes of the system, for the tests of its promises."""

import json
import os
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import Event, Thread
from time import monotonic
from typing import Any, Self

from helpers import wait_for
from jobrunner.embedded import free_port

HERE = Path(__file__).parent

# Options of a runner whose jobs do what their texts say.
TOLD = "--model", "sentiment=strange_models:Told"


def environment(url: str, **settings: object) -> dict[str, str]:
    """The environment of a service: the database, and what the test sets."""
    inherited = {name: value for name, value in os.environ.items() if "JOBRUNNER" not in name}
    changes = {name: str(value) for name, value in settings.items()}
    return inherited | {"DATABASE_URL": url, "PYTHONPATH": str(HERE)} | changes


class Process:
    """A child of the test whose output goes to a file."""

    def __init__(self, arguments: list[str], env: Mapping[str, str], log: Path) -> None:
        self.log_file = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *arguments], env=env, stdout=output, stderr=output
            )
        self.pid = self.process.pid

    @property
    def log(self) -> str:
        return self.log_file.read_text()

    def lines(self, move: str) -> list[dict[str, str]]:
        """The lines of its log that tell of a move, by key."""
        found = (line.split(" ") for line in self.log.splitlines())
        return [
            dict(pair.split("=", 1) for pair in parts[3:] if "=" in pair)
            for parts in found
            if len(parts) > 2 and parts[2] == move
        ]

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def wait(self, seconds: float = 30) -> int:
        """Wait until it has ended; its exit code."""
        return self.process.wait(seconds)

    def end(self) -> None:
        if self.process.poll() is None:
            self.send(signal.SIGCONT)
            self.process.kill()
            self.process.wait()


class System:
    """Runners and a web on one database, ended with the test."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder
        self.processes: list[Process] = []

    def runner(self, *arguments: str, url: str | None = None, **settings: object) -> Process:
        """Start a runner and wait until its workers are ready; ``--workers`` is 2."""
        env = environment(url or self.url, **settings)
        log = self.folder / f"runner-{len(self.processes)}.log"
        command = ["-m", "jobrunner", "start", *arguments]
        process = self._start(Process(command, env, log))
        workers = arguments[arguments.index("--workers") + 1] if "--workers" in arguments else "2"
        ready = int(workers)
        wait_for(lambda: len(process.lines("worker_ready")) >= ready, f"ready: {log}")
        return process

    def web(self, url: str, **settings: object) -> "Web":
        """Start the web and wait until it answers."""
        port = free_port()
        env = environment(url, PORT=port, **settings)
        log = self.folder / f"web-{len(self.processes)}.log"
        command = ["-m", "gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"]
        self._start(Process(command, env, log))
        web = Web(f"http://127.0.0.1:{port}")
        wait_for(lambda: web.get("/readyz")[0] == 200, f"the web is ready: {log}")
        return web

    def end(self) -> None:
        for process in self.processes:
            process.end()

    def _start(self, process: Process) -> Process:
        self.processes.append(process)
        return process


class Web:
    """A client of the web; a refused or broken connection has status 0."""

    def __init__(self, base: str) -> None:
        self.base = base

    def get(self, path: str) -> tuple[int, Any]:
        return self._answer(urllib.request.Request(self.base + path))

    def submit(self, text: str) -> tuple[int, Any]:
        return self.post("/predict", {"text": text})

    def post(self, path: str, body: Any) -> tuple[int, Any]:
        headers = {"Content-Type": "application/json"}
        data = json.dumps(body).encode()
        return self._answer(urllib.request.Request(self.base + path, data, headers))

    def _answer(self, request: urllib.request.Request) -> tuple[int, Any]:
        try:
            with urllib.request.urlopen(request, timeout=15) as answer:
                return answer.status, json.load(answer)
        except urllib.error.HTTPError as error:
            with error:
                return error.code, json.load(error)
        except OSError:
            return 0, None


@dataclass(frozen=True)
class Posted:
    """What became of a POST: its job if that was accepted, and when it was answered."""

    status: int
    job_id: str | None
    began: float
    ended: float


class Load:
    """Clients that post one job after the other while the block lasts."""

    def __init__(self, web: Web, *, clients: int = 4, pause: float = 0.05) -> None:
        self.posted: list[Posted] = []
        self._web = web
        self._pause = pause
        self._over = Event()
        self._threads = [Thread(target=self._post) for _ in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    @property
    def accepted(self) -> list[str]:
        """The ids of the jobs that were acknowledged."""
        return [post.job_id for post in self.posted if post.status == 202 and post.job_id]

    @property
    def statuses(self) -> set[int]:
        """What it was answered."""
        return {post.status for post in self.posted}

    def since(self, moment: float) -> list[Posted]:
        """What was posted after a moment and has been answered."""
        return [post for post in self.posted if post.began > moment]

    def _post(self) -> None:
        while not self._over.wait(self._pause):
            began = monotonic()
            status, body = self._web.submit("I love it")
            job_id = body["job_id"] if status == 202 else None
            self.posted.append(Posted(status, job_id, began, monotonic()))


@contextmanager
def system(url: str, folder: Path) -> Iterator[System]:
    started = System(url, folder)
    try:
        yield started
    finally:
        started.end()
