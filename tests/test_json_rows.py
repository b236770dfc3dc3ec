"""A list says of a job what its own address says, though it is written another way."""

import json
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient

from helpers import Jobs
from web import json_rows

NAME = 'a "quoted" model\\ — \n 模型'


def listed(client: FlaskClient) -> Any:
    return client.get("/jobs").get_json()["jobs"]


@pytest.mark.parametrize("status", ["processing", "completed", "failed"])
@pytest.mark.parametrize("model", ["sentiment", NAME])
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata", "America/St_Johns"])
def test_a_list_shows_a_job_as_its_own_address_does(
    status: str, model: str, zone: str, client: FlaskClient, jobs: Jobs
) -> None:
    job_id = jobs.add(status=status, model=model, priority=-7)
    jobs.db.execute(f"alter role web_login set timezone = '{zone}'")
    try:
        [job] = listed(client)
        assert job == client.get(f"/jobs/{job_id}").get_json()
    finally:
        jobs.db.execute("alter role web_login reset timezone")

    assert list(job) == list(client.get(f"/jobs/{job_id}").get_json())
    assert job["model"] == model


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("'2026-01-31 12:00:00+00'::timestamptz", "2026-01-31T12:00:00Z"),
        ("'2026-01-31 12:00:00.1+00'::timestamptz", "2026-01-31T12:00:00.100000Z"),
        ("'2026-01-31 12:00:00.123456+00'::timestamptz", "2026-01-31T12:00:00.123456Z"),
        ("'2026-01-31 23:30:00.5-05'::timestamptz", "2026-02-01T04:30:00.500000Z"),
        ("'0999-01-31 12:00:00+00'::timestamptz", "0999-01-31T12:00:00Z"),
        ("'a\"b\\c' || chr(7) || chr(8232)", 'a"b\\c\x07\u2028'),
        ("(-7)::int2", -7),
        ('\'{"a": [1e3, null, "ä"]}\'::jsonb', {"a": [1000, None, "ä"]}),
        ("null::jsonb", None),
    ],
)
@pytest.mark.parametrize("zone", ["UTC", "Asia/Kolkata"])
def test_a_column_is_json(
    value: str, written: object, zone: str, db: psycopg.Connection[Any]
) -> None:
    db.execute(f"set timezone = '{zone}'")
    try:
        with json_rows.cursor(db) as cursor:
            row = cursor.execute(f"select {value} as value").fetchone()  # type: ignore[arg-type]
    finally:
        db.execute("reset timezone")

    assert row
    assert json.loads(json_rows.write(row, ["value", "queue"])) == {"value": written, "queue": None}
