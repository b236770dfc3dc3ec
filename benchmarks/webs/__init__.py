"""The webs that are measured, ours and others that take a text and answer at once."""

import os
import signal
import subprocess
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.client import HTTPConnection
from importlib.util import find_spec
from typing import LiteralString

from benchmarks.queues import end, execute, python
from benchmarks.system import wait_for
from jobrunner.embedded import free_port

PROCESSES = 2
THREADS = 32


class Web(ABC):
    """A web service that answers `POST /predict`."""

    name: str
    settings = f"gunicorn, {PROCESSES} processes of {THREADS} threads"
    # The packages that it needs beside ours, and the tables.
    needs: tuple[str, ...] = ()
    tables: tuple[LiteralString, ...] = ()

    def __init__(self, url: str, broker: str = "") -> None:
        self.url = url
        self._broker = broker

    @classmethod
    def missing(cls) -> str | None:
        """Say what it would need that is not there, if anything."""
        return next((f"the package {name}" for name in cls.needs if not find_spec(name)), None)

    @abstractmethod
    def command(self, port: int) -> list[str]:
        """The command that runs it."""

    @contextmanager
    def running(self, **settings: str) -> Iterator[int]:
        """Run it until the block ends; give its port."""
        execute(self.url, self.tables)
        port = free_port()
        environment = os.environ | {"DATABASE_URL": self.url, "PORT": str(port)} | settings
        environment |= {"BENCHMARK_REDIS": self._broker} if self._broker else {}
        process = subprocess.Popen(
            self.command(port),
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        try:
            wait_for(lambda: answers(port), self.name)
            yield port
        finally:
            end(process)
            # LitServe leaves processes behind, which work on in the way of the next one.
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


class Ours(Web):
    """This system's."""

    name = "jobrunner"
    settings = "gunicorn, 2 processes of 128 threads: its defaults"

    def command(self, port: int) -> list[str]:
        return python("gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()")


class Flask(Web):
    """A Flask application of another module of this package."""

    app: str

    def command(self, port: int) -> list[str]:
        workers = ["--workers", str(PROCESSES), "--threads", str(THREADS)]
        bind = ["--bind", f"127.0.0.1:{port}", "--worker-class", "gthread"]
        return python("gunicorn", *workers, *bind, f"benchmarks.webs.{self.app}")


class FlaskNothing(Flask):
    """Validates nothing, keeps nothing."""

    name = "Flask that keeps nothing"
    app = "flask_apps:nothing"


class FlaskInsert(Flask):
    """One INSERT and its commit, from a pool."""

    name = "Flask + one INSERT"
    tables = ("create table if not exists plain_job (id uuid primary key, input text not null)",)
    app = "flask_apps:insert"


class FlaskCelery(Flask):
    """A task for Celery, through Redis in memory."""

    name = "Flask + Celery"
    needs = ("celery", "redis")
    app = "flask_apps:celery"


class FastApi(Web):
    """A FastAPI application of another module of this package."""

    settings = f"uvicorn, {PROCESSES} processes"
    needs: tuple[str, ...] = ("fastapi", "uvicorn")
    app: str

    def command(self, port: int) -> list[str]:
        options = ["--port", str(port), "--workers", str(PROCESSES), "--log-level", "warning"]
        return python("uvicorn", *options, f"benchmarks.webs.{self.app}")


class FastApiBackground(FastApi):
    """The way of the tutorials: a row by SQLAlchemy, the work after the answer in the web."""

    name = "FastAPI + BackgroundTasks"
    needs = ("fastapi", "uvicorn", "sqlalchemy")
    tables = (
        """
        create table if not exists background_job (
            id varchar(36) primary key,
            text varchar not null,
            status varchar not null
        )
        """,
    )
    app = "fastapi_background:app"


class FastApiProcrastinate(FastApi):
    """A job of procrastinate, deferred from asyncio."""

    name = "FastAPI + procrastinate"
    needs = ("fastapi", "uvicorn", "procrastinate")
    app = "fastapi_procrastinate:app"


WEBS = (Ours, FlaskNothing, FlaskInsert, FlaskCelery, FastApiBackground, FastApiProcrastinate)


def answers(port: int) -> bool:
    """Whether anything listens there and says anything."""
    connection = HTTPConnection("127.0.0.1", port, timeout=5)
    try:
        connection.request("GET", "/readyz")
        return connection.getresponse().status < 500
    except OSError:
        return False
    finally:
        connection.close()
