"""How single values are written on a terminal: briefly, and in which colours."""

from collections.abc import Callable, Mapping, Sequence
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


def outcome(row: Row) -> Text:
    """Write the status, and why it failed."""
    code = row["error_code"]
    said = word("status")(row)
    return said.append(f" {safe(code)}", QUIET) if code else said


def attempts(row: Row) -> Text:
    """Write which attempt it is, of how many."""
    style = "yellow" if row["attempt"] > 1 else QUIET
    return Text(f"{row['attempt']}/{row['max_attempts']}", style)


def age(row: Row) -> Text:
    """Write how long ago it was submitted."""
    return Text(brief(datetime.now(UTC) - row["created_at"]))


def took(row: Row) -> Text:
    """Write how long its last attempt took, or has been taking."""
    started, finished = row["started_at"], row["finished_at"]
    if not started:
        return Text("-", QUIET)
    taken = (finished or datetime.now(UTC)) - started
    seconds = max(0.0, taken.total_seconds())
    text = f"{seconds:.2f}s" if seconds < 10 else brief(taken)
    return Text(text, "" if finished else "cyan")


def retries(row: Row) -> Text:
    """Write how many wait for their next attempt."""
    return number("waiting_to_retry", "yellow")(row)


def ready(row: Row) -> Text:
    """Write how many workers are ready, of all."""
    is_ready, workers = row["ready"], row["workers"]
    return Text(f"{is_ready}/{workers}", "" if is_ready == workers else "yellow")


def serves(row: Row) -> Text:
    """Write the models with their versions."""
    versions = row["versions"] or []
    models = row["models"]
    if len(versions) != len(models):
        return Text(plain(models))
    named = zip(models, versions, strict=True)
    text = ", ".join(f"{model} {version}" if version else model for model, version in named)
    return Text(safe(text))


def heartbeat(row: Row) -> Text:
    """Write how long the last heartbeat is past."""
    style = "red" if row["state"] in ("silent", "lost") else QUIET
    return Text(brief(row["last_heartbeat_ago"]), style)


def percent(row: Row) -> Text:
    """Draw how far a job is."""
    percent = float(row["percent"] or 0)
    return Text.assemble(bar(percent), f" {percent:3.0f}%")


def by_minute(row: Row) -> Text:
    """Draw what was completed, minute by minute."""
    return sparkline(row["completed_by_minute"])


def crew(row: Row) -> Text:
    """Write how many workers a queue has; none, where jobs wait, is bad."""
    waits_for_nobody = row["pending"] and not row["workers"]
    return Text(f"{row['workers']}", "bold red" if waits_for_nobody else "")
