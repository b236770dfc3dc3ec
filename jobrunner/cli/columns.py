"""What a person at a terminal sees of rows: which columns, how written, in which colours.

This module and those that draw know the library rich; it is imported where a terminal is
written to, and nowhere else.
"""

from collections.abc import Callable
from dataclasses import dataclass

from rich.text import Text

from jobrunner.cli import cells
from jobrunner.cli.cells import QUIET, Row
from jobrunner.cli.tables import plain


@dataclass(frozen=True)
class Column:
    """How a column is headed and written.

    From a narrow terminal those of a high rank stay away. What is ``whole`` is never broken;
    one of a table may be ``long``: it takes the room that the others leave.
    """

    heading: str
    cell: Callable[[Row], Text]
    rank: int = 0
    right: bool = False
    whole: bool = False
    long: bool = False


JOBS = (
    Column("job", cells.word("id"), whole=True),
    Column("status", cells.outcome),
    Column("model", cells.word("model")),
    Column("age", cells.age, right=True),
    Column("took", cells.took, right=True, rank=1),
    Column("attempt", cells.attempts, right=True, rank=2),
    Column("priority", cells.number("priority"), right=True, rank=4),
    Column("created", cells.clock("created_at"), rank=5),
    Column("runner", cells.quiet("claimed_by"), rank=3),
)

KEYS = (
    Column("key", cells.word("id"), whole=True),
    Column("client", cells.word("client")),
    Column("operator", lambda row: Text("yes", "cyan") if row["operator"] else Text("no", QUIET)),
    Column("max pending", cells.number("max_pending"), right=True),
    Column("created", cells.word("created_at"), rank=1),
    Column("revoked", cells.word("revoked_at", "red")),
)

MIGRATIONS = (
    Column("version", cells.word("version"), whole=True),
    Column("name", cells.word("name")),
    Column("applied", lambda row: Text(plain(row["applied_at"]), "green")
           if row["applied_at"] else Text("not yet", "yellow")),
)  # fmt: skip

QUEUES = (
    Column("queue", cells.word("model", "bold")),
    Column("pending", cells.number("pending"), right=True),
    Column("retry", cells.retries, right=True, rank=3),
    Column("running", cells.number("processing", "cyan"), right=True),
    Column("oldest", cells.span("oldest_pending_age"), right=True, rank=1),
    Column("jobs/s", cells.number("jobs_per_second"), right=True, rank=2),
    Column("workers", cells.crew, right=True),
    Column("done a minute", cells.by_minute, rank=5),
    Column("versions", cells.word("versions"), rank=4),
)

RUNNERS = (
    Column("runner", cells.word("runner"), whole=True),
    Column("state", cells.word("state")),
    Column("ready", cells.ready, right=True),
    Column("holds", cells.number("busy", "cyan"), right=True),
    Column("beat", cells.heartbeat, right=True, rank=1),
    Column("jobs/s", cells.number("jobs_per_second"), right=True, rank=2),
    Column("serves", cells.serves, rank=3),
    Column("done", cells.number("completed"), right=True, rank=4),
    Column("failed", cells.number("failed", "red"), right=True, rank=4),
    Column("MB", cells.number("memory_mb"), right=True, rank=5),
    Column("up", cells.span("up_for"), right=True, rank=5),
)

TROUBLES = (
    Column("trouble", cells.word("runner"), whole=True),
    Column("", cells.word("trouble", "red"), long=True),
)

PROGRESS = (
    Column("in work", cells.word("job"), whole=True),
    Column("model", cells.word("model")),
    Column("", cells.percent),
    Column("for", cells.span("running_for"), right=True),
    Column("", cells.word("progress"), rank=1, long=True),
)

FAILURES = (
    Column("failed", cells.clock("finished_at")),
    Column("model", cells.word("model")),
    Column("code", cells.word("code", "red")),
    Column("message", cells.word("message"), long=True),
    Column("job", cells.quiet("job"), whole=True, rank=1),
)
