"""`POST /predict` over keep-alive connections: how long until the answer, how many a second."""

import json
import socket
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from time import perf_counter

BODY = json.dumps({"text": "This product is amazing!" * 4}).encode()
REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    b"Content-Length: %d\r\n\r\n%b" % (len(BODY), BODY)
)
CLIENT_PROCESSES = 2


def measure(port: int, clients: int, requests: int) -> tuple[list[float], float]:
    """Post ``requests`` times in all; give each answer's seconds and the requests a second."""
    share = clients // CLIENT_PROCESSES
    started = perf_counter()
    with ProcessPoolExecutor(CLIENT_PROCESSES) as pool:
        count = requests // clients
        parts = [pool.submit(_clients, port, share, count) for _ in range(CLIENT_PROCESSES)]
        seconds = [second for part in parts for second in part.result()]
    return seconds, len(seconds) / (perf_counter() - started)


def _clients(port: int, clients: int, count: int) -> list[float]:
    with ThreadPoolExecutor(clients) as pool:
        parts = [pool.submit(_client, port, count) for _ in range(clients)]
        return [second for part in parts for second in part.result()]


def _client(port: int, count: int) -> list[float]:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return [_post(connection) for _ in range(count)]


def _post(connection: socket.socket) -> float:
    started = perf_counter()
    connection.sendall(REQUEST)
    answer = b""
    while b'"status"' not in answer or not answer.endswith(b"}"):
        part = connection.recv(65536)
        if not part:
            raise SystemExit("the web closed a connection")
        answer += part
    if not answer.startswith(b"HTTP/1.1 202"):
        raise SystemExit(f"not a 202: {answer[:200]!r}")
    return perf_counter() - started
