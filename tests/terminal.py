"""A command on a terminal of the test's own."""

import fcntl
import os
import pty
import re
import signal
import struct
import sys
import termios
from collections.abc import Mapping
from select import select
from time import monotonic
from types import TracebackType
from typing import Self

CODES = re.compile(r"\x1b(\[[0-9;?]*[A-Za-z]|[()][A-Z0-9]|[=>])")
COLOURS = re.compile(r"\x1b\[[0-9;]*(3[0-7]|9[0-7]|38;)")
SECONDS = 30


class Terminal:
    """Runs `jobrunner` in a session of its own, as somebody at a terminal would."""

    def __init__(
        self,
        *arguments: str,
        env: Mapping[str, str],
        columns: int = 80,
        lines: int = 24,
        kind: str = "xterm-256color",
    ) -> None:
        command = [sys.executable, "-m", "jobrunner", *arguments]
        # Who runs the tests may say how wide their terminal is.
        kept = {name: value for name, value in env.items() if name not in ("COLUMNS", "LINES")}
        environment = kept | {"TERM": kind}
        # Its size is set before the command looks.
        self._gate, gate = os.pipe()
        self.pid, self.fd = pty.fork()
        if self.pid == 0:
            os.read(self._gate, 1)
            os.execve(command[0], command, environment)
        self.raw = ""
        self.code: int | None = None
        self.resize(columns, lines)
        os.write(gate, b"x")
        os.close(gate)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.fd)
        os.close(self._gate)

    @property
    def text(self) -> str:
        """What was written, without the codes."""
        return CODES.sub("", self.raw).replace("\r\n", "\n")

    @property
    def is_coloured(self) -> bool:
        return bool(COLOURS.search(self.raw))

    def resize(self, columns: int, lines: int) -> None:
        fcntl.ioctl(self.fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))

    def press(self, keys: str) -> None:
        os.write(self.fd, keys.encode())

    def modes(self) -> list[object]:
        """How the terminal takes keys: whole lines, say, and with an echo."""
        return termios.tcgetattr(self.fd)[:4]

    def wait_for(self, *texts: str) -> None:
        """Wait until all of that has been written since the last time."""
        seen, deadline = "", monotonic() + SECONDS
        while not all(text in CODES.sub("", seen) for text in texts):
            more = self._read(deadline - monotonic())
            assert more, f"{texts} not in: {CODES.sub('', seen)}"
            seen += more

    def wait_for_code(self, code: str) -> None:
        """Wait until that code has been written."""
        deadline = monotonic() + SECONDS
        while code not in self.raw:
            assert self._read(deadline - monotonic()), f"{code!r} did not come"

    def end(self) -> int:
        """Wait for the end; the exit code."""
        deadline = monotonic() + SECONDS
        while self._read(deadline - monotonic()):
            pass
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        self.code = os.waitstatus_to_exitcode(status)
        return self.code

    def _read(self, seconds: float) -> str:
        ready, _, _ = select([self.fd], [], [], max(0.0, seconds))
        assert ready, f"nothing more came after: {self.raw[-2000:]}"
        try:
            # At the end of it Linux gives an error, macOS nothing.
            more = os.read(self.fd, 65536).decode(errors="replace")
        except OSError:
            more = ""
        self.raw += more
        return more
