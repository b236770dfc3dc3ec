"""How a job says that it has been started, whatever runs it: the time, in a datagram."""

import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from time import time

PORT_VARIABLE = "BENCHMARK_EAR"
HOST = "127.0.0.1"
START_SECONDS = 30
MOMENT = struct.Struct("<d")
# What a payload says that is to be answered by a signal.
SIGNAL = b"signal"


def signal_start() -> None:
    """Say that a job has been started, and when: now."""
    now = time()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.sendto(MOMENT.pack(now), (HOST, int(os.environ[PORT_VARIABLE])))


class Ear:
    """Where the signals arrive."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((HOST, 0))
        self._socket.settimeout(START_SECONDS)
        self.port: int = self._socket.getsockname()[1]

    def hear(self) -> float:
        """Wait for the next signal; the seconds since the epoch that it brings.

        :raises TimeoutError: when none comes.
        """
        return float(MOMENT.unpack(self.receive(MOMENT.size))[0])

    def receive(self, size: int) -> bytes:
        """Wait for the next message, of so many bytes.

        :raises TimeoutError: when none comes.
        """
        return self._socket.recv(size)

    def close(self) -> None:
        """Hear no more."""
        self._socket.close()


@contextmanager
def ear(variable: str = PORT_VARIABLE) -> Iterator[Ear]:
    """Listen, and let those who are started from here know where, by their environment."""
    listener = Ear()
    os.environ[variable] = str(listener.port)
    try:
        yield listener
    finally:
        del os.environ[variable]
        listener.close()
