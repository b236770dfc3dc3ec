"""Signals, recorded and nothing more: the loop reads what came and acts."""

import signal
import socket
from types import FrameType, TracebackType
from typing import Self


class StopSignals:
    """Counts SIGTERM, SIGINT and SIGHUP, and wakes who waits for its file descriptor.

    A process that ``ends`` when it has obeyed is not to be ended by one that comes after that.

    :source: signal.set_wakeup_fd, in the standard library's documentation of ``signal``.
    """

    def __init__(self, *, ends: bool = False) -> None:
        self.count = 0
        self._ends = ends
        self._read, self._write = socket.socketpair()
        self._read.setblocking(False)
        self._write.setblocking(False)

    def __enter__(self) -> Self:
        self._former = {number: signal.signal(number, self._record) for number in _wanted()}
        self._former_fd = signal.set_wakeup_fd(self._write.fileno())
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        signal.set_wakeup_fd(self._former_fd)
        for number, handler in self._former.items():
            signal.signal(number, signal.SIG_IGN if self._ends and self.count else handler)
        self._read.close()
        self._write.close()

    def fileno(self) -> int:
        """Readable when a signal has come."""
        return self._read.fileno()

    def clear(self) -> None:
        """Take note of the wake-ups, so that the next wait waits."""
        try:
            while self._read.recv(64):
                pass
        except BlockingIOError:
            pass

    def _record(self, number: int, frame: FrameType | None) -> None:
        # A terminal that is closed may say so twice, by its shell and by the kernel: that is
        # no second request.
        self.count = max(self.count, 1) if number == signal.SIGHUP else self.count + 1


def _wanted() -> list[signal.Signals]:
    """Give the signals to hear; one who is started by ``nohup`` outlives the terminal."""
    nohup = signal.getsignal(signal.SIGHUP) == signal.SIG_IGN
    return [signal.SIGTERM, signal.SIGINT, *([] if nohup else [signal.SIGHUP])]
