"""One line a move, in logfmt with fixed keys: never a text, a result or a secret.

Not the standard library's ``logging``: a busy runner writes 50,000 lines a second, which took
it longer than the jobs themselves. Lines within ``together`` are written with one call.
"""

import logging
import os
import re
import select
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from time import gmtime, strftime, time

STDERR = 2
PATIENCE_MILLISECONDS = 1000
is_plain = re.compile(r"[\w.:/,+@%()\[\]-]+", re.ASCII).fullmatch


class Lines:
    """Where lines go: standard error, once it was said so."""

    def __init__(self) -> None:
        self.on = False
        self._held: list[str] | None = None
        self._second = 0
        self._prefix = ""

    def add(self, level: str, move: str, fields: dict[str, object]) -> None:
        """Write a line, or hold it back until its like can be written with it."""
        if self.on:
            pairs = " ".join([f"{key}={plain(value)}" for key, value in fields.items()])
            self._put(f"{self._now()} {level} {move} {pairs}\n")

    def add_each(
        self, level: str, move: str, form: str, rows: Iterable[tuple[object, ...]]
    ) -> None:
        """The same for a line each row, where all have the same form."""
        if self.on:
            line = f"{self._now()} {level} {move} {form}\n"
            self._put("".join([line % row for row in rows]))

    def _put(self, text: str) -> None:
        if self._held is None:
            _write(text)
        else:
            self._held.append(text)

    @contextmanager
    def together(self) -> Iterator[None]:
        """Hold back the lines of this block and write them at its end."""
        self._held = []
        try:
            yield
        finally:
            lines, self._held = self._held, None
            if lines:
                _write("".join(lines))

    def _now(self) -> str:
        now = time()
        if int(now) != self._second:
            self._second = int(now)
            self._prefix = strftime("%Y-%m-%dT%H:%M:%S", gmtime(now))
        return f"{self._prefix}.{int(now % 1 * 1000):03d}Z"


_lines = Lines()
together = _lines.together


def set_up() -> None:
    """Send everything from info up to standard error."""
    _lines.on = True
    # psycopg warns of each lost connection; the runner says so itself, once.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def info(move: str, **fields: object) -> None:
    """Log a move that is as it should be."""
    _lines.add("info", move, fields)


def info_each(move: str, form: str, rows: Iterable[tuple[object, ...]]) -> None:
    """Log the same move of many: ``form`` is for ``%``, and what it takes must be plain."""
    _lines.add_each("info", move, form, rows)


def warning(move: str, **fields: object) -> None:
    """Log a move that somebody may want to look into."""
    _lines.add("warning", move, fields)


def error(move: str, **fields: object) -> None:
    """Log what somebody should look into."""
    _lines.add("error", move, fields)


def plain(value: object) -> str:
    """Write a value as logfmt wants it: quoted where it has to be, on one line."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = str(value)
    if is_plain(text):
        return text
    text = _one_line(text)
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    """Escape what would end the line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _write(text: str) -> None:
    """Write to standard error, unless nobody reads there: no reason to stand still."""
    data = text.encode("utf-8", "replace")
    poll = select.poll()
    poll.register(STDERR, select.POLLOUT)
    with suppress(OSError):
        # A pipe that has room for so much takes it at once.
        while data and poll.poll(PATIENCE_MILLISECONDS):
            data = data[os.write(STDERR, data[: select.PIPE_BUF]) :]
