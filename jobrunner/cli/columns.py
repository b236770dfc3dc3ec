"""What a person at a terminal sees of rows: which columns, how written, in which colours.

This module and those that draw know the library rich; it is imported where a terminal is
written to, and nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from rich.text import Text

from jobrunner.cli.safe import safe
from jobrunner.cli.tables import plain

Row = Mapping[str, Any]

STYLES = {
    "pending": "yellow",
    "processing": "cyan",
    "completed": "green",
    "failed": "red",
    "working": "green",
    "idle": "green",
    "starting": "yellow",
    "stopping": "yellow",
    "silent": "bold red",
    "lost": "bold red",
}
QUIET = "bright_black"
BARS = "▁▂▃▄▅▆▇█"
BAR_WIDTH = 12


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


def brief(span: timedelta | None) -> str:
    """Write a span in a few characters: 45s, 12m, 3h04, 5d."""
    if span is None:
        return "-"
    seconds = max(0, int(span.total_seconds()))
    if seconds < 100:
        return f"{seconds}s"
    if seconds < 6000:
        return f"{seconds // 60}m"
    if seconds < 172_800:
        return f"{seconds // 3600}h{seconds // 60 % 60:02d}"
    return f"{seconds // 86_400}d"


def sparkline(counts: Sequence[int]) -> Text:
    """Draw counts side by side, the highest as a full block; a line where there was none."""
    most = max(counts, default=0)
    return Text.assemble(
        *((BARS[-(-count * 7 // most)], "green") if count else (BARS[0], QUIET) for count in counts)
    )


def bar(percent: float) -> Text:
    """Draw how far something is."""
    done = round(BAR_WIDTH * min(100.0, max(0.0, percent)) / 100)
    return Text.assemble(("━" * done, "cyan"), ("━" * (BAR_WIDTH - done), QUIET))


def quiet(name: str) -> Callable[[Row], Text]:
    """Write what one looks at last."""
    return lambda row: Text(plain(row[name]), QUIET)


def word(name: str, style: str = "") -> Callable[[Row], Text]:
    """Write a value as it is; a state in its colour."""
    return lambda row: Text(plain(row[name]), style or STYLES.get(str(row[name]), ""))


def number(name: str, style: str = "") -> Callable[[Row], Text]:
    """Write a number, a zero so that it is passed over."""

    def cell(row: Row) -> Text:
        value = row[name]
        text = "-" if value is None else f"{value:,}"
        return Text(text, style if value else QUIET)

    return cell


def span(name: str) -> Callable[[Row], Text]:
    """Write a span of time briefly."""
    return lambda row: Text(brief(row[name]), "" if row[name] is not None else QUIET)


def clock(name: str) -> Callable[[Row], Text]:
    """Write a time of the last day as that, an earlier one with its date."""
    return lambda row: Text(moment(row[name]), QUIET)


def moment(at: datetime | None) -> str:
    """Write a time without its date where that goes without saying."""
    if at is None:
        return "-"
    at = at.astimezone(UTC)
    recent = datetime.now(UTC) - at < timedelta(hours=12)
    return at.strftime("%H:%M:%SZ" if recent else "%Y-%m-%d %H:%M")


def _status(row: Row) -> Text:
    code = row["error_code"]
    said = word("status")(row)
    return said.append(f" {safe(code)}", QUIET) if code else said


def _attempts(row: Row) -> Text:
    style = "yellow" if row["attempt"] > 1 else QUIET
    return Text(f"{row['attempt']}/{row['max_attempts']}", style)


def _age(row: Row) -> Text:
    return Text(brief(datetime.now(UTC) - row["created_at"]))


def _took(row: Row) -> Text:
    started, finished = row["started_at"], row["finished_at"]
    if not started:
        return Text("-", QUIET)
    taken = (finished or datetime.now(UTC)) - started
    seconds = max(0.0, taken.total_seconds())
    text = f"{seconds:.2f}s" if seconds < 10 else brief(taken)
    return Text(text, "" if finished else "cyan")


def _retries(row: Row) -> Text:
    return number("waiting_to_retry", "yellow")(row)


def _workers(row: Row) -> Text:
    ready, workers = row["ready"], row["workers"]
    return Text(f"{ready}/{workers}", "" if ready == workers else "yellow")


def _models(row: Row) -> Text:
    versions = row["versions"] or []
    models = row["models"]
    if len(versions) != len(models):
        return Text(plain(models))
    named = zip(models, versions, strict=True)
    text = ", ".join(f"{model} {version}" if version else model for model, version in named)
    return Text(safe(text))


def _heartbeat(row: Row) -> Text:
    style = "red" if row["state"] in ("silent", "lost") else QUIET
    return Text(brief(row["last_heartbeat_ago"]), style)


def _percent(row: Row) -> Text:
    percent = float(row["percent"] or 0)
    return Text.assemble(bar(percent), f" {percent:3.0f}%")


def _pattern(row: Row) -> Text:
    return sparkline(row["completed_by_minute"])


def _crew(row: Row) -> Text:
    waits_for_nobody = row["pending"] and not row["workers"]
    return Text(f"{row['workers']}", "bold red" if waits_for_nobody else "")


JOBS = (
    Column("job", word("id"), whole=True),
    Column("status", _status),
    Column("model", word("model")),
    Column("age", _age, right=True),
    Column("took", _took, right=True, rank=1),
    Column("attempt", _attempts, right=True, rank=2),
    Column("priority", number("priority"), right=True, rank=4),
    Column("created", clock("created_at"), rank=5),
    Column("runner", quiet("claimed_by"), rank=3),
)

KEYS = (
    Column("key", word("id"), whole=True),
    Column("client", word("client")),
    Column("operator", lambda row: Text("yes", "cyan") if row["operator"] else Text("no", QUIET)),
    Column("max pending", number("max_pending"), right=True),
    Column("created", word("created_at"), rank=1),
    Column("revoked", word("revoked_at", "red")),
)

MIGRATIONS = (
    Column("version", word("version"), whole=True),
    Column("name", word("name")),
    Column("applied", lambda row: Text(plain(row["applied_at"]), "green")
           if row["applied_at"] else Text("not yet", "yellow")),
)  # fmt: skip

QUEUES = (
    Column("queue", word("model", "bold")),
    Column("pending", number("pending"), right=True),
    Column("retry", _retries, right=True, rank=3),
    Column("running", number("processing", "cyan"), right=True),
    Column("oldest", span("oldest_pending_age"), right=True, rank=1),
    Column("jobs/s", number("jobs_per_second"), right=True, rank=2),
    Column("workers", _crew, right=True),
    Column("done a minute", _pattern, rank=5),
    Column("versions", word("versions"), rank=4),
)

RUNNERS = (
    Column("runner", word("runner"), whole=True),
    Column("state", word("state")),
    Column("ready", _workers, right=True),
    Column("holds", number("busy", "cyan"), right=True),
    Column("beat", _heartbeat, right=True, rank=1),
    Column("jobs/s", number("jobs_per_second"), right=True, rank=2),
    Column("serves", _models, rank=3),
    Column("done", number("completed"), right=True, rank=4),
    Column("failed", number("failed", "red"), right=True, rank=4),
    Column("MB", number("memory_mb"), right=True, rank=5),
    Column("up", span("up_for"), right=True, rank=5),
)

TROUBLES = (
    Column("trouble", word("runner"), whole=True),
    Column("", word("trouble", "red"), long=True),
)

PROGRESS = (
    Column("in work", word("job"), whole=True),
    Column("model", word("model")),
    Column("", _percent),
    Column("for", span("running_for"), right=True),
    Column("", word("progress"), rank=1, long=True),
)

FAILURES = (
    Column("failed", clock("finished_at")),
    Column("model", word("model")),
    Column("code", word("code", "red")),
    Column("message", word("message"), long=True),
    Column("job", quiet("job"), whole=True, rank=1),
)
