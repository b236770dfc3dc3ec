"""Everything on this machine: a database, the migrations, the web, a runner.

One process looks after the others. They are stopped in the order web, runner, PostgreSQL, so
that nothing is accepted or finished that could not be stored.
"""

import fcntl
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic
from typing import TextIO

from jobrunner import control, database, embedded, migrations
from jobrunner.banner import banner
from jobrunner.bar import Bar
from jobrunner.child import LOOK_SECONDS, Child
from jobrunner.errors import AlreadyRunning, JobrunnerError, PortTaken, SettingsError
from jobrunner.polling import readable
from jobrunner.settings import Settings, child_environment
from jobrunner.signals import StopSignals

READY_SECONDS = 60.0
WEB_STOP_SECONDS = 10.0
# Over the grace of the runner, for its last words.
RUNNER_STOP_SECONDS = 10.0
TEND_SECONDS = 0.2

# -P: the current folder may hold a web.py of the user's, as it does his models.
WEB = ["-P", "-m", "web"]
# Not gunicorn's own check: it reads WEB_CONCURRENCY before the web does, and can't say so.
CHECK_WEB = ["-P", "-c", "import web.gunicorn_config"]
RUNNER = ["-m", "jobrunner", "start"]


def run(settings: Settings, models: Sequence[tuple[str, str]], say: Callable[[str], None]) -> None:
    """Start everything, look after it until a signal comes, stop everything.

    ``models`` are the names that the runner serves, and what it runs for each.

    :raises JobrunnerError: when something can't be started or does not stay up.
    """
    with StopSignals(ends=True) as signals, _only_one(settings), _server(settings, say) as server:
        url = server.url if server else database.url_of(settings)
        _migrate(url, say)
        web, runner = _children(settings, url, models)
        try:
            for child in (web, runner):
                child.start()
            if _await_ready(settings, url, web, runner, signals):
                say(banner(settings, _base(settings), url, [name for name, _ in models]))
            _tend(server, web, runner, signals)
        finally:
            stopped = "web, runner, database" if server else "web, runner"
            say(f"Stopping: {stopped}. Again Ctrl-C: at once.")
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


def require_web(settings: Settings) -> None:
    """Have the web read its settings: a wrong one is said before anything is started.

    :raises SettingsError: with what the web says of it.
    """
    # Where the database is, is not known before it runs; that setting was checked by us.
    url = settings.database_url or "postgresql://"
    done = subprocess.run(
        [sys.executable, *CHECK_WEB],
        stdin=subprocess.DEVNULL,
        env=_environment(settings, url),
        capture_output=True,
        text=True,
    )
    if done.returncode != 0:
        lines = done.stderr.strip().splitlines() or ["the web can not be loaded"]
        raise SettingsError(lines[-1].removeprefix("jobrunner web: "))


@contextmanager
def _only_one(settings: Settings) -> Iterator[None]:
    """Hold the folder: a second ``up`` would start a second server on the same data.

    Only who holds it looks whether the web can be started: the second one would be told of
    the port that the first one has taken.
    """
    with _open_lock(settings.home) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise AlreadyRunning(
                f"`jobrunner up` runs in {database.display(settings.home)} already:"
                " stop it, or set JOBRUNNER_HOME to another folder"
            ) from None
        require_port(settings.host, settings.port)
        require_web(settings)
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
    with database.connect(url) as connection, Bar(sys.stderr, "Migrating") as bar:
        if bar.is_seen:
            bar.begin(migrations.count_pending(connection))
        applied = migrations.migrate(connection, lambda _: bar.step())
    if applied:
        say(f"Applied {len(applied)} migrations.")


def _children(
    settings: Settings, url: str, models: Sequence[tuple[str, str]]
) -> tuple[Child, Child]:
    environment = _environment(settings, url)
    patience = settings.grace_seconds + RUNNER_STOP_SECONDS
    # An embedded database dies with us, and a runner could hand nothing back any more.
    runner_death = signal.SIGTERM if settings.database_url else signal.SIGKILL
    start = [*RUNNER, *(part for model in models for part in ("--model", "=".join(model)))]
    web = Child("web", WEB, environment, WEB_STOP_SECONDS, signal.SIGINT, may_end=False)
    # `jobrunner stop` is how a runner comes to end by itself.
    return web, Child("runner", start, environment, patience, runner_death, may_end=True)


def _environment(settings: Settings, url: str) -> dict[str, str]:
    return child_environment(
        {"DATABASE_URL": url, "HOST": settings.host, "PORT": str(settings.port)}
    )


def _await_ready(
    settings: Settings, url: str, web: Child, runner: Child, signals: StopSignals
) -> bool:
    """Wait until the web answers and the runner is ready; False when a signal came first."""
    deadline = monotonic() + READY_SECONDS
    while not signals.count:
        web.proven = web.proven or _web_answers(settings)
        runner.proven = runner.proven or _is_ready(runner, url)
        if web.proven and runner.proven:
            return True
        if monotonic() > deadline:
            raise JobrunnerError(f"not ready after {READY_SECONDS:g} s: see the log above")
        for child in (web, runner):
            child.tend()
        readable([signals.fileno()], LOOK_SECONDS)
    return False


def _tend(server: embedded.Server | None, web: Child, runner: Child, signals: StopSignals) -> None:
    """Look after them until a signal comes."""
    while not signals.count:
        readable([signals.fileno()], TEND_SECONDS)
        for one in (server, web, runner):
            if one:
                one.tend()


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


def _base(settings: Settings) -> str:
    """The address of the web, for a client on this machine."""
    host = _reachable(settings.host)
    return f"http://{f'[{host}]' if ':' in host else host}:{settings.port}"
