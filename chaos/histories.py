"""What happened, as the client, the database and the workers saw it: plain records.

All times are seconds since the epoch on the clock of this machine, which PostgreSQL and the
workers share. Nothing here knows how the records came about, nor what is wrong with them.
"""

import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from threading import Lock
from time import time
from typing import Any, Literal

Result = Literal["ok", "failed", "unknown"]
FINAL = ("completed", "failed")


@dataclass(frozen=True)
class Operation:
    """A client's call: what it asked for and what it was told."""

    kind: Literal["submit", "cancel"]
    text: str  # names the job: each submission has a text of its own
    result: Result
    invoked: float
    returned: float
    job: str | None = None
    key: str | None = None  # Idempotency-Key
    via: str = ""
    detail: str = ""


@dataclass(frozen=True)
class Move:
    """One change of a row of ``job``, as the trigger saw it."""

    job: str
    text: str
    old: str | None  # status before; None: inserted
    new: str | None  # status after; None: deleted
    old_attempt: int
    attempt: int
    old_token: str | None
    token: str | None
    old_runner: str | None
    runner: str | None
    run_at: float
    at: float
    code: str | None = None  # of an entry that this move appended to errors
    cancelled: bool = False  # whether its error is a cancel's
    execution: str | None = None  # what the recorded outcome says it comes from
    holder_lives: bool = False  # whether the runner that held it was not found dead
    started: float | None = None  # since when it is claimed, as its row says


@dataclass(frozen=True)
class RunnerMove:
    """A change of ``lost_at`` in a row of ``runner``."""

    runner: str
    was_lost: bool
    is_lost: bool
    at: float


@dataclass(frozen=True)
class Execution:
    """A model at work on a job: from its first line in the log to the last."""

    id: str
    text: str
    worker: int
    runner: int  # process id; the id of a runner has it in the middle
    started: float
    last_seen: float
    ended: bool


@dataclass(frozen=True)
class Row:
    """A job as it stands at the end."""

    job: str
    text: str
    status: str
    attempt: int
    max_attempts: int
    token: str | None
    key: str | None
    errors: tuple[int, ...]  # the attempts that failed


@dataclass(frozen=True)
class Disturbance:
    """A fault while it lasted, and the process ids of the runners that it hit.

    None means all of them, a lone 0 that no runner had to notice.
    """

    kind: str
    begin: float
    end: float
    runners: tuple[int, ...] = ()


@dataclass
class History:
    """Everything that the checker may look at."""

    operations: list[Operation] = field(default_factory=list)
    moves: list[Move] = field(default_factory=list)
    runner_moves: list[RunnerMove] = field(default_factory=list)
    executions: list[Execution] = field(default_factory=list)
    rows: list[Row] = field(default_factory=list)
    disturbances: list[Disturbance] = field(default_factory=list)
    kills: list[tuple[float, int]] = field(default_factory=list)  # kill -9 of runners
    deaths: list[tuple[float, int]] = field(default_factory=list)  # runners that ended, however
    healed: float = 0.0
    drained: float | None = None  # None: not within the deadline
    leftovers: list[str] = field(default_factory=list)
    crashes: list[str] = field(default_factory=list)  # whose log has a traceback, and its error
    workers: int = 1

    def save(self, file: Path) -> None:
        """Write it as JSON, to be read after a violation."""
        file.write_text(json.dumps(asdict(self), indent=1))


class Notebook:
    """Where the threads of the client note what they did."""

    def __init__(self) -> None:
        self._operations: list[Operation] = []
        self._lock = Lock()

    @property
    def operations(self) -> list[Operation]:
        """What has returned so far."""
        with self._lock:
            return list(self._operations)

    def record(
        self,
        kind: Literal["submit", "cancel"],
        text: str,
        call: Callable[[], tuple[Result, str | None, str]],
        **more: Any,
    ) -> Operation:
        """Make a call, which tells its result, the job and a detail, and note it."""
        invoked = time()
        result, job, detail = call()
        done = Operation(kind, text, result, invoked, time(), job, detail=detail, **more)
        with self._lock:
            self._operations.append(done)
        return done


def read_executions(log: Path) -> list[Execution]:
    """Read what the chaos model has written: lines of a start, signs of life, an end."""
    found: dict[str, Execution] = {}
    for line in _lines(log):
        known = found.get(line["id"])
        found[line["id"]] = Execution(
            id=line["id"],
            text=line["text"],
            worker=line["worker"],
            runner=line["runner"],
            started=known.started if known else line["at"],
            last_seen=line["at"],
            ended=line["event"] == "end",
        )
    return list(found.values())


def _lines(log: Path) -> Iterable[dict[str, Any]]:
    if not log.exists():
        return
    for line in log.read_text().splitlines():
        yield json.loads(line)
