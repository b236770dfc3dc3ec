"""Celery with Redis, no result kept; as a module, the tasks of its workers."""

import os
import shutil
import subprocess
from importlib.util import find_spec
from tempfile import TemporaryDirectory
from time import time
from typing import Any

from benchmarks.queues import Queue, python
from benchmarks.signals import signal_start
from jobrunner.embedded import free_port

REDIS_VARIABLE = "BENCHMARK_REDIS"


def make_app(broker: str, transport: type | None = None) -> Any:
    """The application, for who submits and for who works."""
    from celery import Celery

    app = Celery("benchmark", broker=broker)
    app.conf.task_ignore_result = True
    app.conf.broker_transport = transport

    @app.task(name="quick")
    def quick(text: str, signal: bool = False) -> None:
        if signal:
            signal_start()

    return app


class Answers:
    """When Redis's last answer was read, in seconds since the epoch, by ``transport``."""

    def __init__(self) -> None:
        from kombu.transport import redis

        self.read_at = 0.0
        answers = self

        class TimedConnection(redis.Channel.connection_class):  # type: ignore[misc]
            def read_response(self, *args: Any, **kwargs: Any) -> Any:
                answer = super().read_response(*args, **kwargs)
                answers.read_at = time()
                return answer

        class TimedChannel(redis.Channel):  # type: ignore[misc]
            connection_class = TimedConnection

        class TimedTransport(redis.Transport):  # type: ignore[misc]
            Channel = TimedChannel

        self.transport = TimedTransport


class Celery(Queue):
    """Two solo workers, as light as it gets."""

    name = "Celery + Redis"
    settings = "solo pool, results ignored, Redis in memory only"
    jobs = 5_000
    redis_options: tuple[str, ...] = ()

    @classmethod
    def missing(cls) -> str | None:
        if not (find_spec("celery") and find_spec("redis")):
            return "the packages celery and redis"
        return None if shutil.which("redis-server") else "the program redis-server"

    def install(self) -> None:
        self.port = free_port()
        self._folder = TemporaryDirectory()
        usual = ["--port", str(self.port), "--save", "", "--bind", "127.0.0.1"]
        self._server = subprocess.Popen(
            ["redis-server", *usual, "--dir", self._folder.name, *self.redis_options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        self._answers = Answers()
        self._app = make_app(self.broker, self._answers.transport)

    @property
    def broker(self) -> str:
        """Where its Redis listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def fill(self, count: int) -> None:
        task = self._app.tasks["quick"]
        with self._app.producer_or_acquire() as producer:
            for _ in range(count):
                task.apply_async(["This product is amazing! " * 8], producer=producer)

    def submit(self) -> float:
        self._app.tasks["quick"].apply_async(["now", True])
        return self._answers.read_at

    def left(self) -> int:
        import redis

        client = redis.Redis(port=self.port)
        return int(client.llen("celery")) + int(client.hlen("unacked"))

    def commands(self, processes: int) -> list[list[str]]:
        options = ["worker", "--pool", "solo", "--loglevel", "warning", "--without-gossip"]
        command = [*python("celery", "--app", f"{__name__}:app", *options), "--without-mingle"]
        return [[*command, "--hostname", f"{number}@localhost"] for number in range(processes)]

    @property
    def environment(self) -> dict[str, str]:
        return super().environment | {REDIS_VARIABLE: self.broker}

    def close(self) -> None:
        self._server.terminate()
        self._server.wait()
        self._folder.cleanup()


class CeleryOnDisk(Celery):
    """The same, with a Redis that has what it answered for after a crash, as PostgreSQL has."""

    name = "Celery + Redis on disk"
    settings = "the same, but Redis flushes each change (appendfsync always)"
    redis_options = ("--appendonly", "yes", "--appendfsync", "always")


if REDIS_VARIABLE in os.environ:
    app = make_app(os.environ[REDIS_VARIABLE])
