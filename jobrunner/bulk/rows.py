"""A row of the input, what becomes of it, and what both formats have in common."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

FINAL = ("completed", "failed")


class Row(NamedTuple):
    """What was read.

    ``begun`` is how its row of the output begins; ``input`` is the job's, as JSON; where there
    is a ``fault`` there is none.
    """

    line: int
    begun: str
    input: str
    fault: str = ""


class Outcome(NamedTuple):
    """How a job stands. ``result`` and ``error`` are JSON, as the database wrote it."""

    position: int
    status: str
    job_id: str | None
    result: str | None
    error: str | None
    sentiment: str | None
    confidence: str | None
    error_code: str | None
    error_message: str | None


class Format(Protocol):
    """Reads rows and writes what became of them."""

    def head(self) -> str:
        """Give what the output begins with."""

    def pass_over(self, count: int) -> int:
        """Skip so many rows, unseen; return how many there were."""

    def rows(self) -> Iterator[Row]:
        """Read the rows that are left."""

    def ended(self, begun: str, outcome: Outcome) -> str:
        """End a row of the output that has begun."""
