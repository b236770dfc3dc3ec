"""Everything on this machine: a database, the migrations, the web, a runner.

One process looks after the others. They are stopped in the order web, runner, PostgreSQL, so
that nothing is accepted or finished that could not be stored.
"""

import fcntl
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException
from multiprocessing import connection as waiting
from pathlib import Path
from time import monotonic
from typing import TextIO

from jobrunner import control, database, embedded, log, migrations
from jobrunner.errors import AlreadyRunning, JobrunnerError, PortTaken
from jobrunner.processes import child_setup
from jobrunner.settings import Settings, child_environment
from jobrunner.signals import StopSignals

READY_SECONDS = 60.0
WEB_STOP_SECONDS = 10.0
# Over the grace of the runner, for its last words.
RUNNER_STOP_SECONDS = 10.0
# A child that ends within this time of its start, so many times in a row, is given up.
SHORT_LIFE_SECONDS = 5.0
SHORT_LIVES = 3
LOOK_SECONDS = 0.2

WEB = ["-m", "gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"]
RUNNER = ["-m", "jobrunner", "start"]

BANNER = """
  jobrunner is up. Ctrl-C stops everything.

    API        {base}            the documentation: {base}/docs
    database   {database}
    try it     curl -X POST {base}/predict -H "Content-Type: application/json" \\
                 -d '{{"text": "This product is amazing!"}}'
    then       curl {base}/jobs/<job_id>
    look       {command} status, {command} list, {command} psql
"""


@dataclass
class Child:
    """A process that is kept running until it is asked to stop."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    stop_seconds: float
    # What the kernel sends it when we are killed.
    death_signal: int
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    short_lives: int = field(default=0)

    def start(self) -> None:
        """Start it in a session of its own: a Ctrl-C is for ``up`` alone."""
        self.started = monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *self.arguments],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
            preexec_fn=child_setup(self.death_signal),
        )

    def tend(self) -> None:
        """Start it again where it has crashed; leave it where it has ended well.

        :raises JobrunnerError: when it does not stay up.
        """
        if self.process is None or (code := self.process.poll()) is None:
            return
        self.process = None
        if code == 0:
            log.info("child_ended", name=self.name)
            return
        short = monotonic() - self.started < SHORT_LIFE_SECONDS
        self.short_lives = self.short_lives + 1 if short else 1
        if self.short_lives >= SHORT_LIVES:
            raise JobrunnerError(f"the {self.name} does not stay up: its last exit code is {code}")
        log.warning("child_crashed", name=self.name, code=code)
        self.start()

    def stop(self, signals: StopSignals) -> None:
        """Ask it to end and wait; at last kill it with what it has started.

        A second signal, also one that came before, is passed on as SIGINT: to the runner a
        second request, to gunicorn the one that does not wait for requests under way.
        """
        if self.process is None:
            return
        self.process.terminate()
        deadline, passed = monotonic() + self.stop_seconds, 1
        while self.process.poll() is None and monotonic() < deadline:
            if signals.count > passed:
                passed = signals.count
                self.process.send_signal(signal.SIGINT)
            waiting.wait([signals.fileno()], LOOK_SECONDS / 4)
            signals.clear()
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()


def run(settings: Settings, say: Callable[[str], None]) -> None:
    """Start everything, look after it until a signal comes, stop everything.

    :raises JobrunnerError: when something can't be started or does not stay up.
    """
    require_port(settings.host, settings.port)
    with StopSignals() as signals, _only_one(settings), _server(settings, say) as server:
        url = server.url if server else database.url_of(settings)
        _migrate(url, say)
        web, runner = _children(settings, url)
        try:
            for child in (web, runner):
                child.start()
            if _await_ready(settings, url, web, runner, signals):
                say(_banner(settings))
            while not signals.count:
                waiting.wait([signals.fileno()], LOOK_SECONDS)
                for one in (server, web, runner):
                    if one:
                        one.tend()
        finally:
            say("Stopping: web, runner, database. Again Ctrl-C: at once.")
            for child in (web, runner):
                child.stop(signals)
    say("Stopped.")


def require_port(host: str, port: int) -> None:
    """Make sure that the port can be had.

    :raises PortTaken: when it can't.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except (socket.gaierror, UnicodeError):
            raise PortTaken(f"{host} is no address of this machine: set HOST to one") from None
        except OSError as error:
            raise PortTaken(
                f"{host}:{port} can not be had ({error.strerror}): stop what listens there,"
                " or set PORT to another, like PORT=8080"
            ) from None


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the folder: a second ``up`` would start a second server on the same data."""
    with _open_lock(settings.home) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"`jobrunner up` runs in {database.display(settings.home)} already:"
                " stop it, or set JOBRUNNER_HOME to another folder"
            ) from None
        yield


def _open_lock(home: Path) -> TextIO:
    try:
        home.mkdir(parents=True, exist_ok=True)
        return (home / "up.lock").open("a")
    except OSError as error:
        raise JobrunnerError(
            f"{database.display(home)} can not be used ({error.strerror}):"
            " set JOBRUNNER_HOME to a folder of your own"
        ) from None


@contextmanager
def _server(settings: Settings, say: Callable[[str], None]) -> Iterator[embedded.Server | None]:
    if settings.database_url:
        yield None
        return
    say(f"Starting PostgreSQL in {database.display(settings.home)} ...")
    server = embedded.Server(settings.home)
    server.start()
    try:
        yield server
    finally:
        server.stop()


def _migrate(url: str, say: Callable[[str], None]) -> None:
    with database.connect(url) as connection:
        applied = migrations.migrate(connection)
    if applied:
        say(f"Applied {len(applied)} migrations.")


def _children(settings: Settings, url: str) -> tuple[Child, Child]:
    environment = child_environment(
        {"DATABASE_URL": url, "HOST": settings.host, "PORT": str(settings.port)}
    )
    patience = settings.grace_seconds + RUNNER_STOP_SECONDS
    # An embedded database dies with us, and a runner could hand nothing back any more.
    runner_death = signal.SIGTERM if settings.database_url else signal.SIGKILL
    web = Child("web", WEB, environment, WEB_STOP_SECONDS, signal.SIGINT)
    return web, Child("runner", RUNNER, environment, patience, runner_death)


def _await_ready(
    settings: Settings, url: str, web: Child, runner: Child, signals: StopSignals
) -> bool:
    """Wait until the web answers and the runner is ready; False when a signal came first."""
    deadline = monotonic() + READY_SECONDS
    while not signals.count:
        if _web_answers(settings) and _is_ready(runner, url):
            return True
        if monotonic() > deadline:
            raise JobrunnerError(f"not ready after {READY_SECONDS:g} s: see the log above")
        for child in (web, runner):
            child.tend()
        waiting.wait([signals.fileno()], LOOK_SECONDS / 4)
    return False


def _web_answers(settings: Settings) -> bool:
    connection = HTTPConnection(_reachable(settings.host), settings.port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status == 200
    except (OSError, HTTPException):
        return False
    finally:
        connection.close()


def _is_ready(runner: Child, url: str) -> bool:
    if runner.process is None:
        return False
    with database.connect(url) as connection:
        return control.find_ready(connection, runner.process.pid) is not None


def _reachable(host: str) -> str:
    """An address to call for one to listen on."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(host, host)


def _banner(settings: Settings) -> str:
    host = _reachable(settings.host)
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
    where = "DATABASE_URL" if settings.database_url else database.display(settings.home)
    called = Path(sys.argv[0])
    on_path = called.name != "jobrunner" or shutil.which("jobrunner")
    command = "jobrunner" if on_path else str(called)
    return BANNER.format(base=base, database=where, command=command)
