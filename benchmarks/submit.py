"""`POST /predict` over keep-alive connections: how long until the answer, how many a second.

The clients are one thread with a selector: on a machine with two cores, a thread a client
would measure the clients.
"""

import json
import re
import selectors
import socket
from time import perf_counter
from typing import Any

LENGTH = re.compile(rb"content-length: (\d+)", re.IGNORECASE)
ITEM = {"text": "This product is amazing!" * 4}
BATCH_ITEMS = 100


def request(path: str, fields: Any) -> bytes:
    """Write a POST of JSON."""
    body = json.dumps(fields).encode()
    return (
        b"POST %b HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        b"Content-Length: %d\r\n\r\n%b" % (path.encode(), len(body), body)
    )


def get(path: str) -> bytes:
    """Write a GET."""
    return b"GET %b HTTP/1.1\r\nHost: localhost\r\n\r\n" % path.encode()


SINGLE = request("/predict", ITEM)
BATCH = request("/predict/batch", {"items": [ITEM] * BATCH_ITEMS})
WAITING = request("/predict?wait=20", ITEM)


class Client:
    """A connection that posts as soon as it has its answer (or sends whatever ``request`` is)."""

    # Whether an answer that is a refusal ends all.
    strict = True

    def __init__(self, port: int, sent: bytes = SINGLE) -> None:
        self.request = sent
        self.socket = socket.create_connection(("127.0.0.1", port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._answer = b""
        self._started = 0.0

    def post(self) -> None:
        """Send the request."""
        self._answer, self._started = b"", perf_counter()
        self.socket.sendall(self.request)

    @property
    def body(self) -> bytes:
        """The body of the last answer."""
        return self._answer.partition(b"\r\n\r\n")[2]

    @property
    def status(self) -> int:
        """The status of the last answer."""
        return int(self._answer.split(b" ", 2)[1])

    def receive(self) -> float | None:
        """Take what has come; the seconds since the request once the answer is whole."""
        part = self.socket.recv(65536)
        if not part:
            raise SystemExit("the web closed a connection")
        self._answer += part
        head, gap, body = self._answer.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not gap or not length or len(body) < int(length[1]):
            return None
        if self.strict and not head.startswith(b"HTTP/1.1 20"):
            raise SystemExit(f"refused: {head[:200]!r}")
        return perf_counter() - self._started


def measure(
    port: int, clients: int, requests: int, sent: bytes = SINGLE
) -> tuple[list[float], float]:
    """Post ``requests`` times in all; give each answer's seconds and the requests a second."""
    seconds: list[float] = []
    started = perf_counter()
    with selectors.DefaultSelector() as selector:
        for client in [Client(port, sent) for _ in range(clients)]:
            selector.register(client.socket, selectors.EVENT_READ, client)
            client.post()
        while len(seconds) < requests:
            for key, _ in selector.select():
                if (taken := key.data.receive()) is not None:
                    seconds.append(taken)
                    key.data.post()
        elapsed = perf_counter() - started
        for key in list(selector.get_map().values()):
            key.data.socket.close()
    return seconds, len(seconds) / elapsed
