"""What is to be submitted, and how; and what came of it."""

from dataclasses import dataclass
from pathlib import Path
from uuid import UUID

from jobrunner.bulk.csv_format import CsvFormat
from jobrunner.bulk.lines import Lines
from jobrunner.bulk.ndjson_format import NdjsonFormat
from jobrunner.bulk.rows import Format

CSV, NDJSON = "csv", "ndjson"
FORMATS = {".csv": CSV, ".ndjson": NDJSON, ".jsonl": NDJSON}
STREAM = "-"


@dataclass(frozen=True)
class Kind:
    """What must stay the same when a submission is continued."""

    format: str
    model: str
    priority: int
    text_column: str

    def read(self, lines: Lines) -> Format:
        """Read an input of this kind.

        :raises InputError: when its head is wrong.
        """
        if self.format == CSV:
            return CsvFormat(lines, self.model, self.text_column)
        return NdjsonFormat(lines, self.model)


@dataclass(frozen=True)
class Order:
    """What is to be done; ``-`` is standard input, or output."""

    source: str
    kind: Kind
    wait: bool = False
    output: str | None = None
    skip_invalid: bool = False


@dataclass
class Tally:
    """How many rows have been written, and as what."""

    completed: int = 0
    failed: int = 0
    invalid: int = 0

    @property
    def written(self) -> int:
        """All of them."""
        return self.completed + self.failed + self.invalid


@dataclass(frozen=True)
class Summary:
    """What was done: of ``rows`` in all how many are what, those of earlier runs among them."""

    batch_id: UUID
    rows: int
    tally: Tally

    @property
    def jobs(self) -> int:
        """How many were submitted."""
        return self.rows - self.tally.invalid


def format_of(name: str) -> str | None:
    """Tell the format by the end of a file's name."""
    return FORMATS.get(Path(name).suffix.lower())
