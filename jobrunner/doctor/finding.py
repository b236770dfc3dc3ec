"""What the doctor has found, and what its checks are given."""

from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, Literal

from jobrunner.database import BoundedConnection
from jobrunner.settings import Settings

# Unseen is what can't be looked at, from here or by this login.
Level = Literal["ok", "warning", "problem", "unseen"]

READ_STANDBY = "select pg_is_in_recovery()"


@dataclass(frozen=True)
class Finding:
    """What was looked at, how it is, and how to mend it where it is not as it should be."""

    level: Level
    what: str
    advice: str | None = None

    def to_row(self) -> dict[str, Any]:
        """Give it as JSON has it."""
        return asdict(self)


@dataclass(frozen=True)
class Patient:
    """The database that is examined, and the settings of who examines it."""

    connection: BoundedConnection
    settings: Settings
    url: str

    def on_standby(self) -> bool:
        """Tell whether the server only follows another one."""
        [(standby,)] = self.connection.execute(READ_STANDBY).fetchall()
        return bool(standby)


Check = Callable[[Patient], Iterator[Finding]]


def ok(what: str) -> Finding:
    """Say that something is as it should be."""
    return Finding("ok", what)


def warning(what: str, advice: str) -> Finding:
    """Say what will do for now."""
    return Finding("warning", what, advice)


def problem(what: str, advice: str) -> Finding:
    """Say what keeps jobs from being done, or puts them at risk."""
    return Finding("problem", what, advice)


def unseen(what: str, advice: str) -> Finding:
    """Say what could not be looked at."""
    return Finding("unseen", what, advice)


def size(count: float) -> str:
    """Write a number of bytes."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" or count >= 10 else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} TB"


def duration(seconds: float) -> str:
    """Write a span of time."""
    for unit, length in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * length:
            return f"{seconds / length:.0f} {unit}"
    return f"{seconds:.0f} s"
