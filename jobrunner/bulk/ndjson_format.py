"""NDJSON: a line, an object. What it holds is kept as it is written, to the last digit."""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, NoReturn

from jobrunner.bulk.checks import Fault, check_input, check_text
from jobrunner.bulk.lines import Lines
from jobrunner.bulk.rows import Outcome, Row

# The one model whose input is nothing but a text.
TEXT_MODEL = "sentiment"
# What the output adds; where the input has the like, as an output that is submitted again
# does, the new one stands in its place.
ADDED = frozenset({"job_id", "status", "result", "error"})

write = json.JSONEncoder(ensure_ascii=False, allow_nan=False).encode


class NdjsonFormat:
    """The rows of one input, and of its output."""

    def __init__(self, lines: Lines, model: str) -> None:
        self._lines = lines
        self._has_inputs = model != TEXT_MODEL

    def head(self) -> str:
        """Begin with nothing."""
        return ""

    def pass_over(self, count: int) -> int:
        """Skip so many rows, unseen; return how many there were."""
        filled = (line for line in self._lines if line.strip())
        return sum(1 for _ in islice(filled, count))

    def rows(self) -> Iterator[Row]:
        """Read the rows that are left; a blank line is none."""
        for line in self._lines:
            if line.strip():
                yield self._row(line)

    def ended(self, begun: str, outcome: Outcome) -> str:
        """Add the job's columns and close the object."""
        job_id = f'"{outcome.job_id}"' if outcome.job_id else "null"
        return (
            f'{begun}"job_id":{job_id},"status":"{outcome.status}",'
            f'"result":{outcome.result or "null"},"error":{outcome.error or "null"}}}\n'
        )

    def _row(self, line: bytes) -> Row:
        begun, number = "{", self._lines.number
        try:
            text = _decode(line)
            fields = _parse(text)
            begun = _begin(text, fields)
            return Row(number, begun, self._input(fields))
        except Fault as fault:
            return Row(number, begun, "", str(fault))

    def _input(self, fields: dict[str, Any]) -> str:
        if self._has_inputs and "input" in fields:
            return write(check_input(fields["input"]))
        if "text" not in fields:
            raise Fault("input or text is required" if self._has_inputs else "text is required")
        return f'{{"text":{write(check_text(fields["text"]))}}}'


def _decode(line: bytes) -> str:
    try:
        return line.decode().rstrip()
    except UnicodeDecodeError:
        raise Fault("is not UTF-8") from None


def _parse(text: str) -> dict[str, Any]:
    try:
        value = DECODER.decode(text)
    except json.JSONDecodeError as error:
        raise Fault(f"is not JSON: see column {error.colno}") from None
    except RecursionError:
        raise Fault("is nested too deeply") from None
    except ValueError:
        raise Fault("holds a number with too many digits") from None
    if not isinstance(value, dict):
        raise Fault("should be an object")
    return value


def _begin(text: str, fields: dict[str, Any]) -> str:
    """Give the object without its end, ready for more members."""
    if not ADDED.isdisjoint(fields):
        # A lone surrogate can be written as its escape only.
        fields = {name: value for name, value in fields.items() if name not in ADDED}
        text = json.dumps(fields)
    opened = text.lstrip()[:-1].rstrip()
    return f"{opened}," if fields else opened


def _refuse_constant(name: str) -> NoReturn:
    raise Fault("is not JSON: NaN and Infinity are not numbers there")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise Fault("names a field of an object twice")
    return members


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
