"""How connections are served: no client keeps others waiting by what it does not do."""

import errno
import logging
import os
import re
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from http.client import HTTPConnection, HTTPResponse
from pathlib import Path
from statistics import median
from time import monotonic
from typing import cast

import pytest

from helpers import login_url, wait_for
from web import loads
from web.connections import Worker
from web_server import Answer, WebServer

pytestmark = pytest.mark.process

SLOW_SECONDS = 25


@pytest.fixture
def connections(gunicorn: WebServer) -> Iterator["Connections"]:
    with ExitStack() as stack:
        yield Connections(gunicorn.port, stack)


class Connections:
    """Opens connections that end with the test."""

    def __init__(self, port: int, stack: ExitStack) -> None:
        self._address = ("127.0.0.1", port)
        self._stack = stack

    def open(self, sent: bytes = b"") -> socket.socket:
        connection = self._stack.enter_context(socket.create_connection(self._address, timeout=15))
        connection.sendall(sent)
        return connection


def get(path: str, *, close: bool = False) -> bytes:
    kept = b"Connection: close\r\n" if close else b""
    return b"GET %b HTTP/1.1\r\nHost: x\r\n%b\r\n" % (path.encode(), kept)


def read(connection: socket.socket) -> Answer:
    response = HTTPResponse(connection)
    response.begin()
    return Answer(response)


def test_many_requests_are_answered_on_one_connection(gunicorn: WebServer) -> None:
    connection = HTTPConnection("127.0.0.1", gunicorn.port, timeout=15)
    local = set()
    for _ in range(5):
        connection.request("GET", "/livez")
        assert connection.getresponse().read()
        local.add(connection.sock.getsockname())
    connection.close()

    assert len(local) == 1


def test_requests_that_are_sent_at_once_are_answered_in_order(connections: Connections) -> None:
    connection = connections.open(get("/livez") + get("/nowhere") + get("/livez", close=True))

    received = b""
    while part := connection.recv(65536):
        received += part

    assert re.findall(rb"HTTP/1.1 (\d+)", received) == [b"200", b"404", b"200"]


def test_a_client_that_pauses_is_answered_on_the_same_connection(connections: Connections) -> None:
    connection = connections.open()
    for pause in (0.0, 0.5, 1.5):
        # Not a wait for something: it is the pause that is tried.
        assert not wait_until_readable(connection, pause)
        connection.sendall(get("/livez"))
        assert read(connection).status == 200


def wait_until_readable(connection: socket.socket, seconds: float) -> bool:
    connection.settimeout(seconds or 0.001)
    try:
        connection.recv(1, socket.MSG_PEEK)
        return True
    except TimeoutError:
        return False
    finally:
        connection.settimeout(15)


def test_clients_that_ask_to_close_and_do_not_close_hold_up_nobody(
    connections: Connections, gunicorn: WebServer
) -> None:
    lingering = [connections.open(get("/livez", close=True)) for _ in range(60)]
    assert all(read(connection).status == 200 for connection in lingering)

    started = monotonic()
    assert gunicorn.predict().status == 202

    # A graceful close waits for two seconds; one after the other that would be a minute.
    assert monotonic() - started < 10


def test_a_closed_connection_is_closed_at_once(connections: Connections) -> None:
    connection = connections.open(get("/livez", close=True))

    assert read(connection).status == 200
    assert connection.recv(1) == b""


def test_a_refused_upload_has_its_answer_before_the_end(connections: Connections) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    connection = connections.open()
    with suppress(ConnectionError):  # where we are so slow that the answer is there before
        connection.sendall(head + b"Content-Length: 2000000\r\n\r\n" + b"x" * 300_000)

    assert read(connection).status == 413


def test_a_body_that_nobody_wants_and_that_never_comes_is_not_waited_for(
    connections: Connections, gunicorn: WebServer
) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: text/plain\r\n"
    connection = connections.open(head + b"Content-Length: 1000\r\n\r\n")
    assert read(connection).status == 415

    # The end comes after the pause for a client that is still sending, not after 7 s of them.
    started = monotonic()
    assert connection.recv(1) == b""
    assert monotonic() - started < 6


@pytest.mark.parametrize(
    ("head", "status"),
    [(b"GET /livez", b"200"), (b"POST /predict", b"415"), (b"GET /nowhere", b"404")],
)
def test_a_body_that_nobody_wants_and_that_makes_no_sense_brings_no_second_answer(
    connections: Connections, head: bytes, status: bytes
) -> None:
    chunked = b" HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"

    connection = connections.open(head + chunked)
    received = b"".join(iter(lambda: connection.recv(65536), b""))

    assert received.startswith(b"HTTP/1.1 " + status)
    assert received.count(b"HTTP/1.1 ") == 1


def test_who_comes_while_it_stops_is_refused_and_not_left_to_wait(owner_url: str) -> None:
    with WebServer(login_url(owner_url, "web_login")) as web:
        address = ("127.0.0.1", web.port)
        before = served(web)
        with socket.create_connection(address) as busy:
            busy.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n"
                         b"Content-Type: application/json\r\n\r\n")  # fmt: skip
            wait_for(lambda: served(web) - before, "it is served")
            web.process.terminate()

            wait_for(lambda: refused(address), "who comes is refused", 10)
            assert web.process.poll() is None  # for the one that is being served


def served(web: WebServer) -> set[str]:
    """The connections that its processes have open."""
    return {each for pid in web.workers() for each in accepted(pid, web.port)}


def refused(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, timeout=1).close()
        return False
    except ConnectionRefusedError:
        return True


def test_a_process_without_a_file_descriptor_left_goes_on() -> None:
    class Full:
        def accept(self) -> None:
            raise OSError(errno.EMFILE, "Too many open files")

    worker = Worker.__new__(Worker)
    worker.age, worker.nr_conns, worker.log = 1, 0, logging.getLogger("test")

    worker.accept(cast("socket.socket", Full()))

    assert worker.nr_conns == 0
    loads.loads.clear(1)


def test_clients_that_send_a_byte_now_and_then_are_cut_off(connections: Connections) -> None:
    head = b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    in_head = connections.open(head + b"X: ")
    in_body = connections.open(head + b"Content-Length: 1000\r\n\r\n")

    assert trickle_until_refused(in_head) == b""
    assert trickle_until_refused(in_body).startswith(b"HTTP/1.1 408")


def trickle_until_refused(connection: socket.socket) -> bytes:
    """Send a byte each half second until there is an answer or an end; give its beginning."""
    deadline = monotonic() + SLOW_SECONDS
    while monotonic() < deadline:
        try:
            connection.sendall(b"a")
        except ConnectionError:
            return b""
        if wait_until_readable_or_reset(connection, 0.5):
            return received(connection)
    raise AssertionError("still served")


def wait_until_readable_or_reset(connection: socket.socket, seconds: float) -> bool:
    try:
        return wait_until_readable(connection, seconds)
    except ConnectionError:
        return True


def received(connection: socket.socket) -> bytes:
    try:
        return connection.recv(100)
    except ConnectionError:
        return b""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_the_process_with_the_fewest_connections_takes_the_next_ones(owner_url: str) -> None:
    url, keep = login_url(owner_url, "web_login"), "--keep-alive 600"
    with ExitStack() as stack, WebServer(url, GUNICORN_CMD_ARGS=keep) as web:
        connections = Connections(web.port, stack)

        def open_one() -> None:
            assert read(connections.open(get("/livez"))).status == 200

        def held() -> list[int]:
            return [len(accepted(pid, web.port)) for pid in web.workers()]

        def taken_by_the_second() -> int:
            """How many of the next 16 it takes when it has 16 fewer than the first."""
            slow = int(web.workers()[1])
            os.kill(slow, signal.SIGSTOP)
            while held()[0] < held()[1] + 16:
                open_one()
            os.kill(slow, signal.SIGCONT)
            before = held()[1]
            for _ in range(16):
                open_one()
            return held()[1] - before

        while min(held(), default=0) < 2 or len(held()) < 2:  # one each, beside the listener
            open_one()

        # A process that stands still for a moment lets the other one have some.
        assert median(taken_by_the_second() for _ in range(7)) >= 14


def accepted(pid: str, port: int) -> set[str]:
    """The connections to the port that a process has open, by inode."""
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    inodes = {line[9] for line in lines if line[1].endswith(f":{port:04X}")}
    return inodes & set(open_sockets(pid))


def open_sockets(pid: str) -> Iterator[str]:
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            yield str(link.readlink()).removeprefix("socket:[").removesuffix("]")


def test_a_load_is_seen_by_other_processes_and_can_be_cleared() -> None:
    found = loads.Loads()
    assert found.least() == loads.NOBODY
    found.set(1, 7)
    if (child := os.fork()) == 0:
        found.set(2, 3)
        os._exit(0)
    os.waitpid(child, 0)

    assert found.least() == 3
    found.clear(2)
    assert found.least() == 7
