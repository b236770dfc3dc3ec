"""Plain tables and values for people who read a file or a pipe, JSON for programs.

On a terminal, screen.py draws them.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.abc import Buffer
from psycopg.types.string import TextLoader

from jobrunner.cli.safe import safe, safe_lines


class JsonText(str):
    """JSON as the database wrote it.

    It is not read: Python can't read all that PostgreSQL keeps, such as a number of 5000
    digits, or what is nested 3000 deep.
    """


class JsonLoader(TextLoader):
    """Gives JSON columns as their text."""

    def load(self, data: Buffer) -> JsonText:
        """Decode what came."""
        text = super().load(data)
        return JsonText(text if isinstance(text, str) else text.decode())


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Write rows with the same keys in columns under their names; numbers to the right."""
    if not rows:
        return ""
    names = list(rows[0])
    cells = [[plain(row[name]) for name in names] for row in rows]
    heads = [name.replace("_", " ") for name in names]
    widths = [max(map(len, column)) for column in zip(heads, *cells, strict=True)]
    right = [any(isinstance(row[name], int | float | Decimal) for row in rows) for name in names]
    lines = [_line(line, widths, right) for line in [heads, *cells]]
    return "\n".join(lines)


def pairs(row: Mapping[str, Any]) -> str:
    """Write one row as a line a column."""
    width = max(map(len, row))
    return "\n".join(f"{name.ljust(width)}  {plain(value)}" for name, value in row.items())


def to_json(value: Any) -> str:
    """Write JSON: times in RFC 3339, durations in seconds, JSON of the database as it is."""
    return safe_lines(_json(value, "\n"))


def to_json_line(value: Any) -> str:
    """Write JSON that is one line."""
    return safe(json.dumps(value, default=_json_value, ensure_ascii=False))


def plain(value: Any) -> str:
    """Write a value as a person reads it; no text of a user can steer the terminal."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case timedelta():
            return str(value).split(".")[0]
        case dict():
            return safe(json.dumps(value, ensure_ascii=False))
        case list() if value and isinstance(value[0], dict):
            return "\n".join(map(plain, value))
        case list():
            return ", ".join(map(plain, value)) or "-"
        case _:
            return safe(str(value))


def _json(value: Any, indent: str) -> str:
    inner = indent + "  "
    match value:
        case JsonText():
            return str(value)
        case Mapping() if value:
            names = (json.dumps(name, ensure_ascii=False) for name in value)
            written = (_json(each, inner) for each in value.values())
            items = [f"{name}: {each}" for name, each in zip(names, written, strict=True)]
            return f"{{{inner}{f',{inner}'.join(items)}{indent}}}"
        case list() if value:
            items = [_json(each, inner) for each in value]
            return f"[{inner}{f',{inner}'.join(items)}{indent}]"
        case _:
            return json.dumps(value, default=_json_value, ensure_ascii=False)


def _line(cells: Iterable[str], widths: list[int], right: list[bool]) -> str:
    aligned = (
        cell.rjust(width) if to_right else cell.ljust(width)
        for cell, width, to_right in zip(cells, widths, right, strict=True)
    )
    return "  ".join(aligned).rstrip()


def _json_value(value: Any) -> Any:
    match value:
        case datetime():
            return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
        case timedelta():
            return value.total_seconds()
        case Decimal():
            return float(value)
        case UUID():
            return str(value)
    raise TypeError(type(value).__name__)
