"""The web as tests need it: settings for an app in this process, and a real gunicorn."""

import json
import os
import re
import socket
import subprocess
import sys
from http.client import HTTPConnection, HTTPResponse
from tempfile import TemporaryFile
from typing import Any, Self

from helpers import Jobs, wait_for
from jobrunner.embedded import free_port
from web.settings import Settings

SECONDS = 15
# A process that answers nobody any more is given this long, and killed then.
STOP_SECONDS = 45
JSON = {"Content-Type": "application/json"}


def web_settings(url: str, **more: Any) -> Settings:
    """Settings as the environment would give them."""
    return Settings.model_validate({"DATABASE_URL": url, **more})


def add_crew(
    jobs: Jobs, *, workers: int, seconds: float | None, heartbeat_ago: str = "0 s"
) -> None:
    """Let a runner be alive whose workers take so long for a job."""
    jobs.add_runner("crew", heartbeat_ago=heartbeat_ago)
    crew = {"workers": workers, "seconds": seconds}
    jobs.db.execute(
        "update runner set workers = %(workers)s, inference_seconds = %(seconds)s", crew
    )


class Answer:
    """A response, read to its end."""

    def __init__(self, response: HTTPResponse) -> None:
        self.status = response.status
        self.headers = response.headers
        self.body = response.read()

    @property
    def json(self) -> Any:
        return json.loads(self.body)


class WebServer:
    """A gunicorn with the project's own settings."""

    def __init__(self, url: str, **environ: str) -> None:
        self.port = free_port()
        # A file, not a pipe: nobody reads it meanwhile, and a full pipe would stop the server.
        self.log = TemporaryFile()  # noqa: SIM115 - closed in __exit__
        self.environ = os.environ | {"DATABASE_URL": url, "PORT": str(self.port)} | environ

    def __enter__(self) -> Self:
        self.start()
        return self

    def start(self) -> None:
        """Start it, and wait until it answers."""
        command = ["gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"]
        self.process = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=self.environ,
            stderr=self.log,
        )
        wait_for(self._answers, "gunicorn answers")

    def __exit__(self, *_: object) -> None:
        self.stop()
        self.log.close()

    def workers(self) -> list[str]:
        """The pids of its worker processes; another one means that one has crashed."""
        return re.findall(r"Booting worker with pid: (\d+)", self.logged())

    def stop(self) -> str:
        """Stop it as a deployment does; give what it logged."""
        self.process.terminate()
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            # Its workers end by themselves when it is gone.
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"the web did not stop:\n{self.logged()}") from None
        return self.logged()

    def logged(self) -> str:
        """What it has logged so far."""
        # Not by seeking: the server writes where this file stands.
        size = os.fstat(self.log.fileno()).st_size
        return os.pread(self.log.fileno(), size, 0).decode()

    def send(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] = JSON
    ) -> Answer:
        """Send one well-formed request on a connection of its own."""
        connection = HTTPConnection("127.0.0.1", self.port, timeout=SECONDS)
        try:
            connection.request(method, path, body, headers)
            return Answer(connection.getresponse())
        finally:
            connection.close()

    def predict(self, **fields: Any) -> Answer:
        return self.send("POST", "/predict", json.dumps({"text": "I love it"} | fields).encode())

    def raw(self, request: bytes, *, end: bool = True) -> Answer | None:
        """Send bytes as they are; None if the connection is closed without an answer."""
        with socket.create_connection(("127.0.0.1", self.port), timeout=SECONDS) as connection:
            try:
                connection.sendall(request)
                if end:
                    connection.shutdown(socket.SHUT_WR)
                response = HTTPResponse(connection)
                response.begin()
                return Answer(response)
            except ConnectionError:
                return None

    def _answers(self) -> bool:
        assert self.process.poll() is None, self.logged()
        try:
            return self.send("GET", "/livez").status == 200
        except OSError:
            return False
