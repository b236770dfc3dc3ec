"""How far a long command is, for a person at a terminal; everybody else sees the notes only."""

from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING, Self, TextIO

if TYPE_CHECKING:
    from rich.progress import Progress

EVERY_SECONDS = 0.1


class Bar:
    """A bar that is drawn again and again, and notes above it; it goes away at the end.

    The library rich is imported when there is something to draw, and not where nobody looks.
    """

    def __init__(self, file: TextIO, what: str) -> None:
        self.is_seen = file.isatty()
        self._file = file
        self._what = what
        self._total: int | None = None
        self._done = self._done_before = 0
        self._began = monotonic()
        self._drawn_at = 0.0
        self._drawn: Progress | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.end()

    def begin(self, total: int | None, done_before: int = 0) -> None:
        """Begin anew, with so many in all, if that is known."""
        self._total, self._done_before = total, done_before
        self._began = monotonic()

    def note(self, text: str) -> None:
        """Say something once."""
        if self._drawn is None:
            self._file.write(f"{text}\n")
            self._file.flush()
        else:
            self._drawn.console.print(text)

    def step(self) -> None:
        """Draw that one more is done."""
        self.show(self._done + 1)

    def show(self, done: int, more: str = "") -> None:
        """Draw how far it is, ten times a second at most."""
        self._done = done
        if self._total is not None:
            self._total = max(self._total, done)
        if self.is_seen and monotonic() > self._drawn_at + EVERY_SECONDS:
            self._drawn_at = monotonic()
            drawn = self._drawn = self._drawn or self._start()
            [task] = drawn.task_ids
            words = self._words(more)
            drawn.update(task, completed=done, total=self._total, words=words, refresh=True)

    def end(self) -> None:
        """Take it away."""
        if self._drawn is not None:
            self._drawn.stop()
            self._drawn = None

    def _words(self, more: str) -> str:
        """Say it in figures."""
        counts = f"{self._done:,}" if self._total is None else f"{self._done:,}/{self._total:,}"
        rate = (self._done - self._done_before) / max(0.001, monotonic() - self._began)
        speed = f"{rate:,.0f}/s" if rate >= 1 else ""
        return "  ".join(part for part in (counts, speed, more) if part)

    def _start(self) -> "Progress":
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

        drawn = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=30),
            TextColumn("{task.fields[words]}", markup=False),
            TimeRemainingColumn(compact=True),
            console=Console(file=self._file, markup=False, emoji=False, highlight=False),
            auto_refresh=False,
            transient=True,
            redirect_stdout=False,
            redirect_stderr=False,
        )
        drawn.add_task(self._what, total=None, words="")
        drawn.start()
        return drawn
