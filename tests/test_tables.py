"""Tables: the same values for people and for programs."""

import json
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from jobrunner.cli import tables

NOON = datetime(2026, 1, 31, 12, 0, 0, 250_000, tzinfo=UTC)
ID = UUID("01890a5d-ac96-774b-bcce-b302099a8057")


def test_columns_stand_under_their_names_with_numbers_to_the_right() -> None:
    rows = [
        {"model": "sentiment", "jobs_per_second": Decimal("0.50"), "pending": 7},
        {"model": "x", "jobs_per_second": Decimal("12.00"), "pending": 123456789},
    ]

    assert tables.table(rows).splitlines() == [
        "model      jobs per second    pending",
        "sentiment             0.50          7",
        "x                    12.00  123456789",
    ]


def test_a_number_is_to_the_right_also_where_the_first_row_has_none() -> None:
    rows = [{"seconds": None}, {"seconds": 1.5}]

    assert tables.table(rows).splitlines() == ["seconds", "      -", "    1.5"]


def test_no_rows_are_no_table() -> None:
    assert tables.table([]) == ""


def test_one_row_is_a_line_a_column() -> None:
    assert tables.pairs({"id": ID, "result": None}) == f"id      {ID}\nresult  -"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, "-"),
        (NOON, "2026-01-31 12:00:00Z"),
        (NOON.astimezone(timezone(timedelta(hours=5))), "2026-01-31 12:00:00Z"),
        (timedelta(days=1, seconds=5, microseconds=9), "1 day, 0:00:05"),
        ({"text": "schön"}, '{"text": "schön"}'),
        ([{"attempt": 1}, {"attempt": 2}], '{"attempt": 1}\n{"attempt": 2}'),
        (["a", "b"], "a, b"),
        ([], "-"),
        (0, "0"),
    ],
)
def test_a_person_reads(value: Any, expected: str) -> None:
    assert tables.plain(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (NOON, "2026-01-31T12:00:00.250000Z"),
        (timedelta(minutes=1, milliseconds=500), 60.5),
        (Decimal("1.25"), 1.25),
        (ID, str(ID)),
        ({"text": "schön ☃"}, {"text": "schön ☃"}),
        (None, None),
    ],
)
def test_a_program_reads(value: Any, expected: Any) -> None:
    assert json.loads(tables.to_json([value])) == [expected]


def test_a_text_can_not_steer_the_terminal() -> None:
    assert "\x1b" not in tables.plain({"text": "\x1b[2J\x07"})


def test_what_json_can_not_say_is_an_error_not_a_guess() -> None:
    with pytest.raises(TypeError, match="object"):
        tables.to_json(object())
