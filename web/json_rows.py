"""Rows of which each column is JSON already, for answers of many rows.

To make Python objects of what PostgreSQL sends, and text of those again, takes most of the
time of such an answer.
"""

import re
from collections.abc import Iterable, Mapping
from datetime import UTC

import psycopg
from psycopg.abc import Buffer, Loader
from psycopg.adapt import Loader as BaseLoader
from psycopg.rows import dict_row
from psycopg.types.datetime import TimestamptzLoader

from web.answers import ENCODER

JsonRow = dict[str, str | None]

# As PostgreSQL writes a time in UTC (DateStyle ISO).
UTC_TIME = re.compile(r"(\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d)(?:\.(\d+))?\+00")


class AsItIs(BaseLoader):
    """What is JSON as PostgreSQL writes it: a number, or JSON."""

    def load(self, data: Buffer) -> str:
        """Decode it."""
        return bytes(data).decode()


class Quoted(BaseLoader):
    """What has nothing in it that JSON escapes."""

    def load(self, data: Buffer) -> str:
        """Put it in quotes."""
        return f'"{bytes(data).decode()}"'


class Text(BaseLoader):
    """Any text."""

    def load(self, data: Buffer) -> str:
        """Escape what has to be."""
        return ENCODER.encode(bytes(data).decode())


class Time(TimestamptzLoader):
    """A time, as RFC 3339 in UTC, with microseconds unless there are none."""

    def load(self, data: Buffer) -> str:  # type: ignore[override]
        """Write it as every other answer does."""
        if match := UTC_TIME.fullmatch(bytes(data).decode()):
            day, time, fraction = match.groups()
            return f'"{day}T{time}.{fraction:0<6}Z"' if fraction else f'"{day}T{time}Z"'
        return ENCODER.encode(super().load(data).astimezone(UTC))


LOADERS: dict[str, type[Loader]] = {
    "jsonb": AsItIs,
    "int2": AsItIs,
    "float4": AsItIs,
    "uuid": Quoted,
    "text": Text,
    "timestamptz": Time,
}


def cursor(connection: psycopg.Connection[object]) -> psycopg.Cursor[JsonRow]:
    """Make a cursor whose rows have the JSON of each column by its name; null is None."""
    made = connection.cursor(row_factory=dict_row)
    for type_name, loader in LOADERS.items():
        made.adapters.register_loader(type_name, loader)
    return made


def write(row: Mapping[str, str | None], names: Iterable[str]) -> str:
    """Write a row as a JSON object with these names, in this order."""
    return "{" + ", ".join([f'"{name}": {row.get(name) or "null"}' for name in names]) + "}"
