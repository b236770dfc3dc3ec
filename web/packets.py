"""Sends the head of an answer in one packet with its body: gunicorn sends two.

Each costs a system call, and wakes up the client.
"""

from collections.abc import Iterable
from functools import lru_cache
from time import time

from gunicorn import util  # type: ignore[import-untyped]
from gunicorn.http import wsgi  # type: ignore[import-untyped]


class Response(wsgi.Response):  # type: ignore[misc]
    """What gunicorn writes an answer with; its head is held back until there is more."""

    headers_sent: bool
    _head = b""

    @property
    def begun(self) -> bool:
        """Whether the client has a part of it."""
        return self.headers_sent and not self._head

    def send_headers(self) -> None:
        """Write the head, to be sent with what comes next."""
        if self.headers_sent:
            return
        major, minor = self.req.version
        lines = [
            f"HTTP/{major}.{minor} {self.status}",
            f"Server: {self.version}",
            f"Date: {http_date(int(time()))}",
            f"Connection: {'close' if self.should_close() else 'keep-alive'}",
        ]
        if self.chunked:
            lines.append("Transfer-Encoding: chunked")
        lines += [f"{name}: {value}" for name, value in self.headers]
        self._head = "\r\n".join([*lines, "", ""]).encode("latin-1")
        self.headers_sent = True

    def write_file(self, respiter: Iterable[bytes]) -> None:
        """Send a file, which the system reads for us: its head goes before it."""
        self.send_headers()
        self._send(b"")
        super().write_file(respiter)

    def close(self) -> None:
        """Send what there is yet to send."""
        self.send_headers()
        self._send(b"0\r\n\r\n" if self.chunked else b"")

    def _emit_body(self, data: bytes) -> None:
        self._send(b"%X\r\n%b\r\n" % (len(data), data) if self.chunked else data)

    def _send(self, data: bytes) -> None:
        if whole := self._head + data:
            self._head = b""
            util.write(self.sock, whole)


@lru_cache(maxsize=1)
def http_date(seconds: int) -> str:
    """Write a time, in seconds since the epoch, as the header Date wants it; each one once."""
    written: str = util.http_date(seconds)
    return written
