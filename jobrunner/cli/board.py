"""Draws the board: as long as it is, or as much of it as a screen holds."""

from collections.abc import Mapping, Sequence
from datetime import UTC
from typing import Any

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from jobrunner.board import Board
from jobrunner.cli import columns, screen
from jobrunner.cli.cells import QUIET, Row
from jobrunner.cli.columns import Column
from jobrunner.cli.safe import safe

# The line at the top with one below it, and the one at the bottom.
FRAME = 3
# Of each table: its head, and the line below it.
OVERHEAD = 2

KEYS = "q or Ctrl-C ends"

NO_RUNNER = "No runner: start one with `jobrunner start`."

Section = tuple[Sequence[Column], Sequence[Row]]


def draw(board: Board, to: Console, height: int | None = None) -> RenderableType:
    """Draw it, in so many lines at most, or as it is."""
    warning = (
        []
        if board.runners
        else [Text(NO_RUNNER, "bold red", no_wrap=height is not None, overflow="ellipsis")]
    )
    sections = _sections(board)
    shown = [len(rows) for _, rows in sections]
    if height is not None:
        room = height - OVERHEAD * len(warning)
        sections = sections[: room // (OVERHEAD + 1)]
        shown = share(shown[: len(sections)], room - OVERHEAD * len(sections))
    drawn = [
        _table(section, count, to, fold=height is None)
        for section, count in zip(sections, shown, strict=True)
    ]
    return screen.sections(*warning, *drawn)


def share(wanted: Sequence[int], room: int) -> list[int]:
    """Share lines out among tables, one after the other, as each wants them."""
    shown = [0] * len(wanted)
    left = list(wanted)
    while room > 0 and any(left):
        for place, want in enumerate(left):
            if want and room > 0:
                shown[place] += 1
                left[place] -= 1
                room -= 1
    return shown


def screenful(board: Board | None, trouble: str | None, to: Console) -> RenderableType:
    """Draw what fills a screen; ``trouble`` is what keeps the board from being read."""
    room = to.height - FRAME
    body = draw(board, to, room) if board else Text()
    fill = room - len(to.render_lines(body, pad=False))
    return Group(_head(board, trouble), Text(), body, *[Text()] * fill, Text(KEYS, QUIET))


def _sections(board: Board) -> list[Section]:
    troubled = [row for row in board.runners if row["trouble"] and row["state"] != "lost"]
    # What is idle or gone comes last: it is the first that a small screen has no room for.
    queues = sorted(board.queues, key=lambda queue: not (queue["pending"] or queue["processing"]))
    runners = sorted(board.runners, key=lambda runner: runner["state"] == "lost")
    everything: list[Section] = [
        (columns.QUEUES, queues),
        (columns.RUNNERS, runners),
        (columns.TROUBLES, troubled),
        (columns.PROGRESS, board.progress),
        (columns.FAILURES, board.failures),
    ]
    return [section for section in everything if section[1]]


def _table(section: Section, count: int, to: Console, *, fold: bool) -> RenderableType:
    kind, rows = section
    if count >= len(rows):
        return screen.table(kind, rows, to, fold=fold)
    # The last line says what is not shown.
    shown = rows[: count - 1]
    drawn = screen.table(kind, shown, to, fold=fold)
    return Group(drawn, Text(f"… {len(rows) - len(shown)} more", QUIET))


def _head(board: Board | None, trouble: str | None) -> Table:
    """Write the line at the top: how it stands in all, or that the database is away."""
    line = Table.grid(expand=True)
    line.add_column(no_wrap=True, overflow="ellipsis", ratio=1)
    line.add_column(justify="right", no_wrap=True)
    when = board.at.astimezone(UTC).strftime("%H:%M:%SZ") if board else ""
    if trouble:
        line.add_row(Text(f" {safe(trouble)} ", "bold white on red"), Text(f"as of {when}", "red"))
    elif board:
        line.add_row(_sums(board), Text(when, QUIET))
    return line


def _sums(board: Board) -> Text:
    def total(rows: Sequence[Mapping[str, Any]], name: str) -> int:
        return sum(row[name] or 0 for row in rows)

    live = [runner for runner in board.runners if runner["state"] not in ("lost", "silent")]
    rate = total(board.queues, "jobs_per_second")
    return Text.assemble(
        ("jobrunner", "bold"),
        f"  {total(board.queues, 'pending'):,} pending",
        f"  {total(board.queues, 'processing'):,} running",
        f"  {rate:,.1f} jobs/s",
        f"  {len(live)} runners" if len(live) != 1 else "  1 runner",
        f"  {total(live, 'ready'):,} workers",
    )
