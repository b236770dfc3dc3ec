"""Claims as the moves of a job tell them, and the executions that were started under them.

A crash of the server may forget a claim: then its move is not there. Its runner takes it up again,
which is a move that says since when the job has been claimed. Unless the runner is gone as well.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from chaos.histories import Disturbance, Execution, History, Move

# The worker reads its clock a moment after the database has read its own.
CLOCK_SECONDS = 0.05
# What makes the server forget a claim that is not on disk, or not on the standby's.
CRASHES = ("postgres_immediate_restart", "crash_after_claim", "failover")
# A commit that nobody waits for is on disk after three times wal_writer_delay (0.2 s) at most.
FLUSH_SECONDS = 1.0


@dataclass(frozen=True)
class Claim:
    """A claim from its move to the one that ended it (infinite: none did)."""

    job: str
    move: Move
    end: float
    # When it was made: before its move, where that has taken it up again after a crash.
    since: float

    @property
    def runner(self) -> int:
        """The process id of who claimed."""
        return process_of(self.move.runner or "")

    @property
    def is_taken_up_again(self) -> bool:
        """Whether a crash had made the server forget it."""
        return self.since < self.move.at

    def precedes(self, execution: Execution) -> bool:
        """Whether the runner of the execution had it by then."""
        began = execution.started + CLOCK_SECONDS
        return self.runner == execution.runner and self.since <= began


def claims_of(moves: list[Move], crashes: Sequence[Disturbance] = ()) -> Iterator[Claim]:
    """The claims of a job, by its moves in order."""
    for place, move in enumerate(moves):
        if move.new == "processing":
            end = moves[place + 1].at if place + 1 < len(moves) else float("inf")
            yield Claim(move.job, move, end, _since(move, crashes))


def _since(move: Move, crashes: Sequence[Disturbance]) -> float:
    """When a claim was made: what the row says counts only where the server crashed since."""
    said = move.at if move.started is None else move.started
    forgotten = any(said <= crash.end and crash.begin <= move.at for crash in crashes)
    return said if forgotten and said + CLOCK_SECONDS < move.at else move.at


def crashes_of(history: History) -> list[Disturbance]:
    """What may have made the server forget claims."""
    return [one for one in history.disturbances if one.kind in CRASHES]


def is_forgotten_for_good(execution: Execution, history: History) -> bool:
    """Whether a crash may have forgotten the claim of an execution that was found to have none,
    and its runner ended, or was found dead, before it took up anything again."""
    lost = [(seen.at, process_of(seen.runner)) for seen in history.runner_moves if seen.is_lost]
    ends = (
        at
        for at, process in [*history.deaths, *lost]
        if process == execution.runner and at >= execution.started
    )
    end = min(ends, default=None)
    return end is not None and any(
        crash.begin - FLUSH_SECONDS <= execution.started <= crash.end
        # Who claims has answered the roll call, and said what it holds.
        and not _claims_between(history, execution.runner, crash.end, end)
        for crash in crashes_of(history)
    )


def _claims_between(history: History, runner: int, begin: float, end: float) -> bool:
    return any(
        move.new == "processing"
        and process_of(move.runner or "") == runner
        and begin < move.at <= end
        for move in history.moves
    )


def process_of(runner: str) -> int:
    """The process id in the id of a runner, host-pid-random."""
    parts = runner.rsplit("-", 2)
    return int(parts[1]) if len(parts) == 3 and parts[1].isdigit() else 0


def overlaps(executions: Iterable[Execution]) -> int:
    """How many pairs of executions of one job were at work at once."""
    by_text: dict[str, list[Execution]] = defaultdict(list)
    for execution in sorted(executions, key=_began):
        by_text[execution.text].append(execution)
    return sum(
        later.started < earlier.last_seen
        for group in by_text.values()
        for place, earlier in enumerate(group)
        for later in group[place + 1 :]
    )


def _began(execution: Execution) -> float:
    return execution.started
