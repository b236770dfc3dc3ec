"""How an answer is sent: its head together with what comes first of its body."""

import os
import socket
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from email.utils import parsedate_to_datetime
from pathlib import Path
from time import time
from typing import Any

import pytest
from gunicorn.config import Config
from gunicorn.workers.gthread import TConn

from web.connections import Worker
from web.logs import GunicornLogger

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class Kept:
    """The server's end of a connection, which remembers what was sent at once."""

    def __init__(self, sock: socket.socket) -> None:
        self._sock = sock
        self.sent: list[bytes] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sock, name)

    def sendall(self, data: bytes) -> None:
        self.sent.append(data)
        self._sock.sendall(data)


class Served:
    """A worker of gunicorn's that serves one connection, in this process."""

    def __init__(self, **settings: Any) -> None:
        config = Config()
        for name, value in settings.items():
            config.set(name, value)
        self.worker = Worker(1, os.getppid(), [], None, 30, config, GunicornLogger(config))
        self.worker.alive = True
        self.worker.keepalived_conns = deque()
        self.client, server = socket.socketpair()
        self.client.settimeout(5)
        self.sock = Kept(server)
        here = ("127.0.0.1", 1)
        self.connection = TConn(config, self.sock, here, here)
        self.connection.data_ready = True

    def serve(self, app: Application, method: str = "GET", version: str = "1.1") -> list[bytes]:
        """Serve one request by the app; give what was sent, piece by piece."""
        self.worker.wsgi = app
        self.client.sendall(f"{method} / HTTP/{version}\r\nHost: x\r\n\r\n".encode())
        self.client.shutdown(socket.SHUT_WR)
        self.worker.handle(self.connection)
        return self.sock.sent

    def close(self) -> None:
        self.client.close()
        self.sock.close()
        self.worker.tmp.close()


@pytest.fixture
def served() -> Iterator[Served]:
    with closing(Served()) as served:
        yield served


def read_all(client: socket.socket) -> bytes:
    return b"".join(iter(lambda: client.recv(65536), b""))


def answering(*body: bytes, status: str = "200 OK", length: bool = True) -> Application:
    headers = [("Content-Length", str(sum(map(len, body))))] if length else []

    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response(status, headers)
        return list(body)

    return app


def test_head_and_body_are_sent_at_once(served: Served) -> None:
    [sent] = served.serve(answering(b"good"))

    head, _, body = sent.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 200 OK\r\nServer: gunicorn\r\nDate: ")
    assert head.endswith(b"\r\nConnection: keep-alive\r\nContent-Length: 4")
    assert body == b"good"


def test_the_head_says_what_time_it_is(served: Served) -> None:
    before = int(time())

    [sent] = served.serve(answering(b"good"))

    date = sent.partition(b"Date: ")[2].partition(b"\r\n")[0].decode()
    assert before <= parsedate_to_datetime(date).timestamp() <= time()


def test_of_a_stream_each_part_is_sent_when_it_is_there(served: Served) -> None:
    first, second, end = served.serve(answering(b"one", b"two!", length=False))

    assert b"\r\nTransfer-Encoding: chunked\r\n" in first
    assert first.endswith(b"\r\n\r\n3\r\none\r\n")
    assert (second, end) == (b"4\r\ntwo!\r\n", b"0\r\n\r\n")


@pytest.mark.parametrize(
    ("method", "status"), [("HEAD", "200 OK"), ("GET", "204 NO CONTENT"), ("GET", "304 SAME")]
)
def test_a_head_without_a_body_is_sent_by_itself(served: Served, method: str, status: str) -> None:
    [sent] = served.serve(answering(b"good", status=status), method)

    assert sent.startswith(f"HTTP/1.1 {status}\r\n".encode())
    assert sent.endswith(b"\r\n\r\n")
    assert b"good" not in sent


def test_an_empty_body_is_none(served: Served) -> None:
    [sent] = served.serve(answering())

    assert sent.endswith(b"\r\nContent-Length: 0\r\n\r\n")


@pytest.mark.parametrize("parts", [[], [b""]])
def test_a_stream_without_a_part_has_its_head_and_its_end(
    served: Served, parts: list[bytes]
) -> None:
    [sent] = served.serve(answering(*parts, length=False))

    assert sent.startswith(b"HTTP/1.1 200 OK\r\n")
    assert sent.endswith(b"\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n")


def test_a_file_comes_after_its_head(served: Served, tmp_path: Path) -> None:
    (tmp_path / "long").write_bytes(b"0123456789" * 100_000)

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("Content-Length", "1000000")])
        file: Iterable[bytes] = environ["wsgi.file_wrapper"]((tmp_path / "long").open("rb"))
        return file

    with ThreadPoolExecutor() as threads:
        received = threads.submit(read_all, served.client)
        [head] = served.serve(app)
        served.sock.close()

    assert head.endswith(b"\r\nContent-Length: 1000000\r\n\r\n")
    assert received.result() == head + b"0123456789" * 100_000


def test_who_speaks_http_1_0_is_told_of_the_end(served: Served) -> None:
    [sent] = served.serve(answering(b"good", length=False), version="1.0")

    assert b"\r\nConnection: close\r\n" in sent
    assert sent.endswith(b"\r\n\r\ngood")


def test_an_app_that_breaks_before_its_answer_gives_an_error(served: Served) -> None:
    def app(_environ: dict[str, Any], _start: Callable[..., Any]) -> Iterable[bytes]:
        raise RuntimeError("my-secret-diary")

    sent = b"".join(served.serve(app))

    assert sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")
    assert b"my-secret-diary" not in sent


def test_an_answer_of_which_nothing_was_sent_gives_an_error(served: Served) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b""
        raise RuntimeError("my-secret-diary")

    sent = b"".join(served.serve(app))

    assert sent.startswith(b"HTTP/1.1 500 Internal Server Error\r\n")


def test_an_answer_that_breaks_off_is_followed_by_nothing(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        raise RuntimeError("my-secret-diary")

    [sent] = served.serve(app)

    assert sent.endswith(b"\r\n\r\n3\r\none\r\n")
    assert served.sock.fileno() < 0
    assert [record.getMessage() for record in caplog.records] == ["Error handling request"]


def test_a_client_that_is_gone_is_no_error(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    def app(_environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterator[bytes]:
        start_response("200 OK", [])
        yield b"one"
        served.client.close()
        while True:
            yield b"two"

    served.serve(app)

    assert served.sock.fileno() < 0
    assert caplog.records == []


def test_after_so_many_requests_a_process_makes_room_for_another() -> None:
    with closing(Served(max_requests=1)) as served:
        [sent] = served.serve(answering(b"good"))

    assert b"\r\nConnection: close\r\n" in sent
    assert not served.worker.alive
