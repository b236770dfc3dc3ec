"""By when a request has to have arrived.

A socket's own limit begins anew with each byte. This one does not: a client that sends a
byte now and then can not hold a thread for longer than an honest one.
"""

import socket
from contextlib import suppress
from time import monotonic


class Deadlines:
    """The sockets of this process that are being read, each with its deadline."""

    def __init__(self) -> None:
        self._ends: dict[socket.socket, float] = {}

    def set(self, sock: socket.socket, seconds: float) -> None:
        """Give what is read from a socket so many seconds from now."""
        self._ends[sock] = monotonic() + seconds

    def clear(self, sock: socket.socket) -> None:
        """Say that all has arrived."""
        self._ends.pop(sock, None)

    def enforce(self) -> None:
        """Let those who still read past their deadline find the end of what is sent.

        An answer can still be written.
        """
        now = monotonic()
        for sock, end in self._ends.copy().items():
            if now > end:
                with suppress(OSError):
                    sock.shutdown(socket.SHUT_RD)


deadlines = Deadlines()
