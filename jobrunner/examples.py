"""The examples that a model is trained on: texts and their labels, from a CSV file."""

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from jobrunner.errors import TrainingError

LABELS = ("negative", "positive")
# Characters of a cell; the texts of jobs have 10,000 at most.
MAX_CELL = 10_000_000
MAX_QUOTED = 30


@dataclass(frozen=True)
class Examples:
    """Texts with whether each is positive, and how many rows were not worth keeping."""

    texts: list[str]
    positive: list[bool]
    # The same text with the same label again.
    repeated: int = 0
    # Without a text.
    empty: int = 0

    def count(self, positive: bool) -> int:
        """Count the examples of a class."""
        return self.positive.count(positive)


def read(file: Path, text_column: str, label_column: str) -> Examples:
    """Read the examples of a file in UTF-8 whose first row names the columns.

    What stands twice is kept once: it would be learned and then asked for.

    :raises TrainingError: when the file is not as it should be; it names the line.
    """
    kept: dict[tuple[str, bool], None] = {}
    rows = empty = 0
    try:
        for text, positive in _rows(file, text_column, label_column):
            rows += 1
            if text:
                kept[text, positive] = None
            else:
                empty += 1
    except UnicodeDecodeError:
        raise TrainingError(f"{file} is not UTF-8: save it as CSV UTF-8") from None
    except OSError as error:
        raise TrainingError(f"{file}: {error.strerror}") from None
    texts, labels = [text for text, _ in kept], [positive for _, positive in kept]
    return Examples(texts, labels, rows - empty - len(kept), empty)


def _rows(file: Path, text_column: str, label_column: str) -> Iterator[tuple[str, bool]]:
    csv.field_size_limit(MAX_CELL)
    # Spreadsheets write a mark before the first column.
    with file.open(encoding="utf-8-sig", newline="") as opened:
        reader = csv.reader(opened, strict=True)
        try:
            head = next(reader, None)
            if head is None:
                raise TrainingError(f"{file} is empty")
            text_at, label_at = (_place(file, head, name) for name in (text_column, label_column))
            for row in reader:
                # A line with nothing in it is no row.
                if row:
                    where = f"{file}, line {reader.line_num}"
                    if len(row) != len(head):
                        raise TrainingError(f"{where}: {len(row)} cells under {len(head)} columns")
                    yield row[text_at].strip(), _label(where, row[label_at])
        except csv.Error as error:
            raise TrainingError(f"{file}, line {reader.line_num}: {error}") from None


def _place(file: Path, head: list[str], name: str) -> int:
    if name not in head:
        found = ", ".join(_quoted(column) for column in head)
        raise TrainingError(f"{file} has no column {name}, only {found}")
    return head.index(name)


def _label(where: str, cell: str) -> bool:
    label = cell.strip().lower()
    if label not in LABELS:
        raise TrainingError(f"{where}: {_quoted(cell)} is neither positive nor negative")
    return label == "positive"


def _quoted(cell: str) -> str:
    """Show what may be anything: short, and in one line."""
    return repr(cell if len(cell) <= MAX_QUOTED else cell[:MAX_QUOTED] + "…")
