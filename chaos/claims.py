"""Claims as the moves of a job tell them, and the executions that were started under them."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from chaos.histories import Execution, Move

# The worker reads its clock a moment after the database has read its own.
CLOCK_SECONDS = 0.05


@dataclass(frozen=True)
class Claim:
    """A claim from its move to the one that ended it (infinite: none did)."""

    job: str
    move: Move
    end: float

    @property
    def runner(self) -> int:
        """The process id of who claimed."""
        return process_of(self.move.runner or "")

    def precedes(self, execution: Execution) -> bool:
        """Whether the runner of the execution had it by then."""
        began = execution.started + CLOCK_SECONDS
        return self.runner == execution.runner and self.move.at <= began


def claims_of(moves: list[Move]) -> Iterator[Claim]:
    """The claims of a job, by its moves in order."""
    for place, move in enumerate(moves):
        if move.new == "processing":
            end = moves[place + 1].at if place + 1 < len(moves) else float("inf")
            yield Claim(move.job, move, end)


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
