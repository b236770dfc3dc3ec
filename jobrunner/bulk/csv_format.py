"""CSV: a header, then a row a record, which may go over several lines (RFC 4180)."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from itertools import islice

from jobrunner.bulk.checks import Fault, check_text
from jobrunner.bulk.lines import MAX_LINE_BYTES, Lines
from jobrunner.bulk.ndjson_format import TEXT_MODEL
from jobrunner.bulk.rows import Outcome, Row
from jobrunner.errors import InputError

# What the output adds; see ndjson_format.ADDED.
ADDED = ("job_id", "status", "sentiment", "confidence", "error_code", "error_message")
WHOLE_RESULT = "result"

write = json.JSONEncoder(ensure_ascii=False).encode


class CsvFormat:
    """The records of one input, and of its output.

    :raises InputError: when the input has no header with the column of the texts.
    """

    def __init__(self, lines: Lines, model: str, text_column: str) -> None:
        csv.field_size_limit(MAX_LINE_BYTES)
        self._lines = lines
        # What is no UTF-8 becomes what no text may contain, and so is found in its row.
        decoded = (line.decode(errors="surrogateescape") for line in lines)
        self._reader = csv.reader(decoded, strict=True)
        self._whole_result = model != TEXT_MODEL
        self._added = [*ADDED, *([WHOLE_RESULT] if self._whole_result else [])]
        self._columns = self._read_header(text_column)
        self._text_place = self._columns.index(text_column)
        # None where all are kept, as they mostly are: then nothing has to be picked out.
        kept = [place for place, name in enumerate(self._columns) if name not in self._added]
        self._kept = kept if len(kept) < len(self._columns) else None

    def head(self) -> str:
        """Begin with the header: the input's columns, then ours."""
        return _record([*self._pick(self._columns), *self._added])

    def pass_over(self, count: int) -> int:
        """Skip so many records, unseen; return how many there were."""
        return sum(1 for _ in islice(self._records(), count))

    def rows(self) -> Iterator[Row]:
        """Read the records that are left; a blank line is none."""
        for number, record in self._records():
            if isinstance(record, csv.Error):
                yield Row(number, self._begin([]), "", f"is not CSV: {record}")
            else:
                yield self._row(number, record)

    def ended(self, begun: str, outcome: Outcome) -> str:
        """Add the job's columns."""
        whole = [outcome.result] if self._whole_result else []
        if not whole and outcome.error is None:
            # None of these needs quotes.
            return (
                f"{begun},{outcome.job_id},{outcome.status},"
                f"{outcome.sentiment},{outcome.confidence},,\r\n"
            )
        added = [
            outcome.job_id, outcome.status, outcome.sentiment, outcome.confidence,
            outcome.error_code, outcome.error_message, *whole,
        ]  # fmt: skip
        return f"{begun},{_record([value or '' for value in added])}"

    def _read_header(self, text_column: str) -> list[str]:
        where = self._lines.name
        try:
            header = next(self._reader, None)
        except csv.Error as error:
            raise InputError(f"{where}, line 1: is not CSV: {error}") from None
        if not header:
            raise InputError(f"{where} begins with no header: it should name the columns")
        if not _is_unicode(header):
            raise InputError(f"{where}, line 1: is not UTF-8")
        if text_column in self._added:
            raise InputError(f"the column {text_column} is one that the output adds")
        if text_column not in header:
            names = ", ".join(header)[:200]
            advice = "see --text-column"
            if self._whole_result:
                advice += ", or write other inputs as NDJSON"
            raise InputError(f"{where} has no column {text_column}, but {names}: {advice}")
        if len(set(header)) < len(header):
            raise InputError(f"{where} names a column twice in its header")
        return header

    def _records(self) -> Iterator[tuple[int, list[str] | csv.Error]]:
        """Read record after record, each with the number of its first line."""
        while True:
            number = self._lines.number + 1
            try:
                record = next(self._reader, None)
            except csv.Error as error:
                yield number, error
                continue
            if record is None:
                return
            if record:
                yield number, record

    def _row(self, number: int, record: list[str]) -> Row:
        try:
            if not _is_unicode(record):
                raise Fault("is not UTF-8")
            if len(record) != len(self._columns):
                raise Fault(f"has {len(record)} columns where the header has {self._width()}")
            text = check_text(record[self._text_place])
            return Row(number, self._begin(record), f'{{"text":{write(text)}}}')
        except Fault as fault:
            return Row(number, self._begin(record), "", str(fault))

    def _begin(self, record: Sequence[str]) -> str:
        """Write what is kept of a record, of any length, without the end of its line."""
        if len(record) != len(self._columns):
            record = [*record, *[""] * self._width()][: self._width()]
        if self._kept is None:
            return _record(record).removesuffix("\r\n")
        # Every record has a column of a job behind it.
        return _record([*self._pick(record), ""]).removesuffix(",\r\n")

    def _pick(self, record: Sequence[str]) -> Sequence[str]:
        return record if self._kept is None else [record[place] for place in self._kept]

    def _width(self) -> int:
        return len(self._columns)


def _record(fields: Sequence[str]) -> str:
    line = io.StringIO(newline="")
    csv.writer(line).writerow(fields)
    written = line.getvalue()
    if _is_unicode([written]):
        return written
    return written.encode(errors="surrogateescape").decode(errors="replace")


def _is_unicode(fields: Sequence[str]) -> bool:
    try:
        "".join(fields).encode()
    except UnicodeEncodeError:
        return False
    return True
