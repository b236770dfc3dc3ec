"""What a person at a terminal sees meanwhile; everybody else sees the notes only."""

from time import monotonic
from typing import TextIO

EVERY_SECONDS = 0.1
BAR_WIDTH = 24
CLEAR = "\r\x1b[K"


class Progress:
    """A line that is drawn again and again, and notes above it."""

    def __init__(self, file: TextIO) -> None:
        self.is_seen = file.isatty()
        self._file = file
        self._total: int | None = None
        self._done_before = 0
        self._began = monotonic()
        self._drawn_at = 0.0
        self._line = ""

    def begin(self, total: int | None, done_before: int) -> None:
        """Begin anew, with so many rows in all, if that is known."""
        self._total, self._done_before = total, done_before
        self._began = monotonic()

    def note(self, text: str) -> None:
        """Say something once."""
        self._put(f"{CLEAR if self._line else ''}{text}\n{self._line}")

    def show(self, done: int, failed: int) -> None:
        """Draw how far it is, ten times a second at most."""
        if self.is_seen and monotonic() > self._drawn_at + EVERY_SECONDS:
            self._drawn_at = monotonic()
            self._line = self._words(done, failed)
            self._put(CLEAR + self._line)

    def end(self) -> None:
        """Take the line away."""
        if self._line:
            self._put(CLEAR)
            self._line = ""

    def _put(self, text: str) -> None:
        self._file.write(text)
        self._file.flush()

    def _words(self, done: int, failed: int) -> str:
        rate = (done - self._done_before) / max(0.001, monotonic() - self._began)
        counts = f"{done}/{self._total} done" if self._total is not None else f"{done} so far"
        bar = ""
        if self._total:
            filled = BAR_WIDTH * min(done, self._total) // self._total
            bar = f"[{'#' * filled}{'.' * (BAR_WIDTH - filled)}] "
        return f"{bar}{counts}, {rate:.0f}/s, {failed} failed"
