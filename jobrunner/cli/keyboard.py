"""Keys as they are pressed, and what else a program that fills the screen has to hear of."""

import os
import select
import signal
import sys
import termios
import tty
from types import FrameType, TracebackType
from typing import Self

from jobrunner.signals import StopSignals

QUIT = (b"q", b"Q", b"\x03", b"\x04")


class Keyboard:
    """Reads single keys from standard input, if that is a terminal, until it is given back.

    Signals to stop count as keys; a window of another size wakes who waits.
    """

    def __init__(self) -> None:
        self._fd = sys.stdin.fileno() if sys.stdin is not None and sys.stdin.isatty() else None
        self._stop = StopSignals()
        self._suspend = False

    def __enter__(self) -> Self:
        self._stop.__enter__()
        self._former = {
            number: signal.signal(number, self._record)
            for number in (signal.SIGWINCH, signal.SIGTSTP)
        }
        if self._fd is not None:
            self._modes = termios.tcgetattr(self._fd)
            tty.setcbreak(self._fd)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._fd is not None:
            termios.tcsetattr(self._fd, termios.TCSADRAIN, self._modes)
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._stop.__exit__(kind, error, trace)

    @property
    def suspended(self) -> bool:
        """Whether Ctrl-Z was pressed."""
        return self._suspend

    def ended(self, seconds: float) -> bool:
        """Wait so long for somebody to end it; a change of the window ends the wait."""
        watched = [self._stop.fileno(), *([] if self._fd is None else [self._fd])]
        ready, _, _ = select.select(watched, [], [], seconds)
        self._stop.clear()
        return bool(self._stop.count) or self._suspend or (self._fd in ready and self._pressed())

    def _pressed(self) -> bool:
        assert self._fd is not None
        keys = os.read(self._fd, 64)
        if not keys:
            # The terminal is gone, and would be readable for ever.
            return True
        return any(key in keys for key in QUIT)

    def _record(self, number: int, frame: FrameType | None) -> None:
        self._suspend = self._suspend or number == signal.SIGTSTP
