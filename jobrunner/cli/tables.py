"""Tables and values for people, JSON for programs."""

import json
import re
from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

from psycopg.abc import Buffer
from psycopg.types.string import TextLoader

# PostgreSQL escapes those below the space; these could steer a terminal as well.
CONTROL = re.compile(r"[\x7f-\x9f]")


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


def to_json(value: Any, indent: str = "\n") -> str:
    """Write JSON: times in RFC 3339, durations in seconds, JSON of the database as it is."""
    inner = indent + "  "
    match value:
        case JsonText():
            return str(value)
        case Mapping() if value:
            names = (json.dumps(name, ensure_ascii=False) for name in value)
            written = (to_json(each, inner) for each in value.values())
            items = [f"{name}: {each}" for name, each in zip(names, written, strict=True)]
            return f"{{{inner}{f',{inner}'.join(items)}{indent}}}"
        case list() if value:
            items = [to_json(each, inner) for each in value]
            return f"[{inner}{f',{inner}'.join(items)}{indent}]"
        case _:
            return json.dumps(value, default=_json_value, ensure_ascii=False)


def plain(value: Any) -> str:
    """Write a value as a person reads it."""
    match value:
        case None:
            return "-"
        case datetime():
            return value.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%SZ")
        case timedelta():
            return str(value).split(".")[0]
        case dict():
            return json.dumps(value, ensure_ascii=False)
        case list() if value and isinstance(value[0], dict):
            return "\n".join(json.dumps(item, ensure_ascii=False) for item in value)
        case JsonText():
            return CONTROL.sub(lambda found: f"\\u{ord(found[0]):04x}", value)
        case list():
            return ", ".join(map(str, value)) or "-"
        case _:
            return str(value)


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
