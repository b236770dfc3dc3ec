"""The system under test: the services as real processes, each behind channels of the proxy."""

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from time import monotonic, time

from chaos.model import LOG_VARIABLE
from chaos.plan import Plan
from chaos.postgres import Postgres, children, send, url, wait_for
from chaos.proxy import Channel, Proxy
from jobrunner.embedded import free_port
from jobrunner.processes import child_setup

WORKERS = 2
GRACE_SECONDS = 3
END_SECONDS = 20.0
RESTART_SECONDS = 0.3
WEB = ["-m", "gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"]
START = ["start", "--workers", str(WORKERS), "--model", "chaos=chaos.model:Chaos"]
# With the error in its last line, which is not indented as the others are.
TRACEBACK = re.compile(r"^Traceback .*(?:\n +.*)*\n(.*)", re.MULTILINE)
HERE = Path(__file__).resolve().parent.parent


class Service:
    """A process that is started again when it has ended, unless it is kept down."""

    def __init__(self, name: str, arguments: list[str], env: dict[str, str], log: Path) -> None:
        self.name = name
        self.kept_down = False
        self.pids: list[int] = []
        self.process: subprocess.Popen[bytes] | None = None
        self._arguments = arguments
        self._env = env
        self._log = log
        self._ended_at = 0.0
        self.deaths: list[tuple[float, int]] = []

    @property
    def pid(self) -> int:
        """Its process id, or that of its last life."""
        return self.pids[-1] if self.pids else 0

    @property
    def running(self) -> bool:
        """Whether it lives."""
        return self.process is not None and self.process.poll() is None

    def tend(self) -> None:
        """Start it when it is not there and should be. Call from the main thread."""
        if self.pids and not self.running and len(self.deaths) < len(self.pids):
            self.deaths.append((time(), self.pid))
        if self.running or self.kept_down:
            self._ended_at = monotonic()
        elif not self.pids or monotonic() - self._ended_at > RESTART_SECONDS:
            self.start()

    def start(self) -> None:
        """Start it, in a session of its own; it dies with us."""
        with self._log.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, *self._arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=HERE,
                env=self._env,
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGKILL),
            )
        self.pids.append(self.process.pid)

    def send(self, signum: int) -> None:
        """Send it a signal, if it lives."""
        if self.running:
            send([self.pid], signum)

    def kill(self) -> None:
        """Kill it and its whole session, and reap it."""
        if self.process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)
        self.process.wait()

    def end(self) -> bool:
        """Let it end by itself, asked by SIGTERM; whether it did so in time."""
        self.kept_down = True
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            if self.process:
                self.process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self.kill()
            return False
        return True


class Runner(Service):
    """A runner, with the channels of its two connections."""

    link: Channel
    listener: Channel

    @property
    def workers(self) -> list[int]:
        """The process ids of its workers."""
        return children(self.pid) if self.running else []


class System:
    """PostgreSQL, the proxy, the web and the runners of one run."""

    def __init__(self, plan: Plan, folder: Path, runner_program: list[str]) -> None:
        self.folder = folder
        self.worker_log = folder / "workers.log"
        self.proxy = Proxy()
        self.postgres = Postgres(folder, with_standby=plan.wants_standby, weaken=plan.weaken)
        self.runners: list[Runner] = []
        self._plan = plan
        self._program = runner_program

    def start(self) -> None:
        """Start it all and wait until it is ready."""
        self.postgres.start()
        self.direct_url = url("chaos_web", self.postgres.ports)
        self.web_channel, self.web = self._web()
        self.runners = [self._runner(place) for place in range(self._plan.runners)]
        self.tend()
        wait_for(self._web_answers, "the web answers")
        with self.postgres.connect() as connection:
            query = "select from runner where ready_workers = %s"
            ready = [WORKERS]
            wait_for(
                lambda: connection.execute(query, ready).rowcount == len(self.runners),
                "the runners are ready",
            )

    def tend(self) -> None:
        """Start again what has ended. Call from the main thread, now and then."""
        for service in (*self.runners, self.web):
            service.tend()

    def heal(self) -> None:
        """Let everything pass, and everybody go on."""
        for channel in (self.web_channel, *self.channels):
            self.proxy.do(channel.heal)
        for service in (*self.runners, self.web):
            service.kept_down = False
            service.send(signal.SIGCONT)

    @property
    def deaths(self) -> list[tuple[float, int]]:
        """When which runners were found to have ended."""
        return [death for runner in self.runners for death in runner.deaths]

    @property
    def channels(self) -> list[Channel]:
        """The channels of the runners."""
        return [channel for runner in self.runners for channel in (runner.link, runner.listener)]

    def command(self, *arguments: str) -> subprocess.Popen[bytes]:
        """Run a ``jobrunner`` command beside all that; it dies with us."""
        with (self.folder / "commands.log").open("ab") as output:
            return subprocess.Popen(
                [sys.executable, *self._program, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=HERE,
                env=self._environment(url("chaos_runner", self.postgres.ports)),
                preexec_fn=child_setup(signal.SIGKILL),
            )

    def stop_services(self) -> list[str]:
        """Stop the runners by command and the web by signal; name what did not obey."""
        for runner in self.runners:
            runner.kept_down = True
        stop = self.command("stop", "--all", "--timeout", str(END_SECONDS))
        failed = ["jobrunner stop --all"] if stop.wait() else []
        services = (*self.runners, self.web)
        return failed + [service.name for service in services if not service.end()]

    def crashes(self) -> list[str]:
        """Say whose log has a traceback, and which error it ends with."""
        return [
            f"{log.stem}: {error}"
            for log in sorted(self.folder.glob("*.log"))
            for error in TRACEBACK.findall(log.read_text(errors="replace"))
        ]

    def end(self) -> None:
        """End whatever is left, however."""
        for service in (*self.runners, *([self.web] if hasattr(self, "web") else [])):
            service.kill()
        self.proxy.close()
        self.postgres.end()

    def _web(self) -> tuple[Channel, Service]:
        channel, ports = self.proxy.open("web", self.postgres.ports)
        self.web_port = free_port()
        env = self._environment(url("chaos_web", ports))
        env |= {"PORT": str(self.web_port), "WEB_CONCURRENCY": "1", "WEB_THREADS": "16"}
        return channel, Service("web", WEB, env, self.folder / "web.log")

    def _runner(self, place: int) -> Runner:
        name = f"runner-{place}"
        link, link_ports = self.proxy.open(f"{name} link", self.postgres.ports)
        listener, listener_ports = self.proxy.open(f"{name} listener", self.postgres.ports)
        env = self._environment(url("chaos_runner", link_ports)) | {
            "JOBRUNNER_LISTEN_URL": url("chaos_runner", listener_ports),
            "JOBRUNNER_LEASE_SECONDS": str(self._plan.lease_seconds),
            "JOBRUNNER_POLL_SECONDS": str(self._plan.poll_seconds),
            "JOBRUNNER_GRACE_SECONDS": str(GRACE_SECONDS),
            LOG_VARIABLE: str(self.worker_log),
        }
        runner = Runner(name, [*self._program, *START], env, self.folder / f"{name}.log")
        runner.link, runner.listener = link, listener
        return runner

    def _environment(self, database_url: str) -> dict[str, str]:
        inherited = {name: v for name, v in os.environ.items() if "JOBRUNNER" not in name}
        return inherited | {"DATABASE_URL": database_url}

    def _web_answers(self) -> bool:
        connection = HTTPConnection("127.0.0.1", self.web_port, timeout=5)
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == 200
        except (OSError, HTTPException):
            return False
        finally:
            connection.close()
