"""Draws rows on a terminal, as wide as that is."""

from collections.abc import Mapping, Sequence
from typing import Any, TextIO

from rich.console import Console, Group, RenderableType
from rich.highlighter import JSONHighlighter
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from jobrunner.cli.cells import QUIET, Row, word
from jobrunner.cli.columns import Column
from jobrunner.cli.safe import safe
from jobrunner.cli.tables import JsonText, plain

LEVELS = {
    "ok": ("✓", "green"),
    "warning": ("!", "yellow"),
    "problem": ("✗", "bold red"),
    "unseen": ("?", QUIET),
}
MOST_RANKS = 9
# Of a column that takes what room is left.
LEAST_LONG = 24
# Of any other column, with the space before it.
LEAST = 6


def console(file: TextIO | None = None) -> Console:
    """Make one that takes no text for markup, and highlights nothing by itself."""
    return Console(file=file, markup=False, emoji=False, highlight=False)


def put(*drawn: RenderableType) -> None:
    """Write to standard output."""
    console().print(*drawn)


def table(columns: Sequence[Column], rows: Sequence[Row], to: Console, *, fold: bool) -> Table:
    """Draw rows in as many of the columns as fit.

    What is still too long goes on in further lines (``fold``), or is cut off.
    """
    for rank in range(MOST_RANKS, -1, -1):
        chosen = [column for column in columns if column.rank <= rank]
        width = _width(_table(chosen, rows, LEAST_LONG, fold=fold), to)
        if width <= to.width:
            break
    # Where what is never broken leaves the others no room, it is broken as well.
    whole = [column for column in chosen if column.whole]
    others = (len(chosen) - len(whole)) * LEAST
    breaks = fold and _width(_table(whole, rows, LEAST_LONG, fold=fold), to) + others > to.width
    return _table(chosen, rows, LEAST_LONG + to.width - width, fold=fold, breaks=breaks)


def pairs(row: Mapping[str, Any]) -> Table:
    """Draw one row, a line or more a column."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(style="bold", overflow="fold")
    drawn.add_column(overflow="fold")
    for name, value in row.items():
        drawn.add_row(name.replace("_", " "), _value(name, value, row))
    return drawn


def finding(level: str, what: str, advice: str | None) -> Table:
    """Draw what the doctor has found: its level, what it is, and below that how to mend it."""
    drawn = Table.grid(padding=(0, 2, 0, 0))
    drawn.add_column(width=9, no_wrap=True)
    drawn.add_column(overflow="fold")
    sign, style = LEVELS[level]
    drawn.add_row(Text(f"{sign} {level}", style), Text(safe(what)))
    if advice:
        drawn.add_row("", Text(f"→ {safe(advice)}", "cyan"))
    return drawn


def sections(*drawn: RenderableType) -> Group:
    """Put what is drawn under each other, with a line between."""
    spaced = [part for each in drawn for part in (each, Text())]
    return Group(*spaced[:-1])


def _width(drawn: Table, to: Console) -> int:
    return Measurement.get(to, to.options.update(max_width=10_000), drawn).maximum


def _table(
    columns: Sequence[Column], rows: Sequence[Row], long: int, *, fold: bool, breaks: bool = False
) -> Table:
    """Draw all of these columns, where a long one may be so wide."""
    drawn = Table(box=None, padding=(0, 2, 0, 0), pad_edge=False)
    for place, column in enumerate(columns):
        drawn.add_column(
            Text(column.heading, QUIET if place else "bold"),
            justify="right" if column.right else "left",
            overflow="fold" if fold else "ellipsis",
            no_wrap=not breaks and (column.whole or not fold),
            max_width=max(LEAST_LONG, long) if column.long else None,
        )
    for row in rows:
        drawn.add_row(*(column.cell(row) for column in columns))
    return drawn


def _value(name: str, value: Any, row: Row) -> Text:
    if value is None:
        return Text("-", QUIET)
    if isinstance(value, JsonText):
        return JSONHighlighter()(Text(plain(value)))
    return word(name)(row)
