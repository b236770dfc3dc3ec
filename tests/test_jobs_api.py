"""GET /jobs/<id> and GET /jobs: the truth about jobs, in the contract's form."""

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from math import ceil
from time import monotonic
from typing import Any
from urllib.parse import urlencode

import psycopg
import pytest
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from helpers import ERROR, POSITIVE, Jobs
from web import create_app
from web_server import add_crew, web_settings

Read = Callable[[object], dict[str, Any]]

UNKNOWN = "0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"

KEYS = (
    "job_id status result error errors model priority attempt created_at started_at finished_at"
    " queue retry_of batch_id model_version batch_size inference_seconds progress"
).split()


@pytest.fixture
def read(client: FlaskClient) -> Read:
    def read(job_id: object) -> dict[str, Any]:
        job: dict[str, Any] = client.get(f"/jobs/{job_id}").get_json()
        return job

    return read


def ids(response: TestResponse) -> list[str]:
    return [job["job_id"] for job in response.get_json()["jobs"]]


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed"])
def test_a_job_has_every_key_of_the_contract_in_its_order(
    status: str, client: FlaskClient, jobs: Jobs
) -> None:
    job_id = jobs.add(status=status)

    response = client.get(f"/jobs/{job_id}")

    job = json.loads(response.data)
    assert response.status_code == 200
    assert response.content_type == "application/json"
    assert list(job) == KEYS
    assert (job["job_id"], job["status"]) == (str(job_id), status)


def test_a_pending_job_has_a_place_and_nothing_else_yet(read: Read, jobs: Jobs) -> None:
    job = read(jobs.add())

    assert job["queue"] == {"position": 0, "at_least": False, "eta_seconds": None}
    assert (job["result"], job["error"], job["errors"], job["attempt"]) == (None, None, [], 0)
    assert (job["started_at"], job["finished_at"]) == (None, None)


def test_a_processing_job_has_started(read: Read, jobs: Jobs) -> None:
    job = read(jobs.add(status="processing"))

    assert (job["attempt"], job["queue"], job["finished_at"]) == (1, None, None)
    assert job["started_at"]


def test_a_completed_job_has_its_result(read: Read, jobs: Jobs) -> None:
    job = read(jobs.add(status="completed"))

    assert (job["result"], job["error"], job["queue"]) == (POSITIVE, None, None)


def test_a_failed_job_has_its_error(read: Read, jobs: Jobs) -> None:
    job = read(jobs.add(status="failed"))

    assert (job["result"], job["error"], job["queue"]) == (None, ERROR, None)


def test_each_failed_attempt_is_told(read: Read, jobs: Jobs, db: psycopg.Connection[Any]) -> None:
    failed = [{"attempt": 1, **ERROR}, {"attempt": 2, **ERROR}]
    job_id = jobs.add(attempt=2)
    db.execute("update job set errors = %s where id = %s", [json.dumps(failed), job_id])

    assert read(job_id)["errors"] == failed


def test_the_input_is_not_shown(client: FlaskClient, jobs: Jobs) -> None:
    job_id = jobs.add("my-secret-diary")

    shown = client.get(f"/jobs/{job_id}").data + client.get("/jobs").data

    assert b"my-secret-diary" not in shown


def test_times_are_rfc_3339_in_utc(read: Read, jobs: Jobs, db: psycopg.Connection[Any]) -> None:
    job_id = jobs.add(status="completed")

    job = read(job_id)

    for name in ("created_at", "started_at", "finished_at"):
        assert job[name].endswith("Z")
        assert datetime.fromisoformat(job[name]) == jobs.get(job_id)[name]
        assert datetime.fromisoformat(job[name]) - datetime.now(UTC) < timedelta(minutes=1)


@pytest.mark.parametrize("path", ["//jobs", "//livez", "///docs", "//jobs/" + UNKNOWN])
def test_an_empty_segment_is_no_address(path: str, client: FlaskClient) -> None:
    response = client.get("/", base_url="http://localhost", environ_overrides={"PATH_INFO": path})

    assert response.status_code == 404


@pytest.mark.parametrize(
    "job_id",
    [UNKNOWN, "0", "abc", "null", "%00", "%ff", "..", "x" * 5000, "{" + UNKNOWN + "}",
     UNKNOWN.replace("-", ""), f"urn:uuid:{UNKNOWN}", f"{UNKNOWN} ", "1' or '1'='1"],
)  # fmt: skip
def test_an_id_that_is_unknown_or_none_is_not_found(job_id: object, client: FlaskClient) -> None:
    response = client.get(f"/jobs/{job_id}")

    assert response.status_code == 404
    assert response.content_type == "application/problem+json"


def test_an_id_may_be_written_in_capitals(client: FlaskClient, jobs: Jobs) -> None:
    job_id = jobs.add()

    assert client.get(f"/jobs/{str(job_id).upper()}").get_json()["job_id"] == str(job_id)


@pytest.mark.parametrize("status", ["pending", "processing"])
def test_an_unfinished_job_says_when_to_look_again(
    status: str, client: FlaskClient, jobs: Jobs
) -> None:
    response = client.get(f"/jobs/{jobs.add(status=status)}")

    assert 1 <= int(response.headers["Retry-After"]) <= 30


@pytest.mark.parametrize("status", ["completed", "failed"])
def test_a_final_job_is_not_to_be_asked_for_again(
    status: str, client: FlaskClient, jobs: Jobs
) -> None:
    response = client.get(f"/jobs/{jobs.add(status=status)}")

    assert "Retry-After" not in response.headers


def runs_for(jobs: Jobs) -> float:
    """The seconds since the only job was started."""
    query = "select extract(epoch from clock_timestamp() - started_at)::float8 from job"
    [(seconds,)] = jobs.db.execute(query).fetchall()
    return float(seconds)


def test_retry_after_of_a_processing_job_is_what_its_inference_still_takes(
    client: FlaskClient, jobs: Jobs
) -> None:
    add_crew(jobs, workers=2, seconds=20)
    job_id = jobs.add(status="processing", finished="12 s")

    least = runs_for(jobs)
    response = client.get(f"/jobs/{job_id}")
    most = runs_for(jobs)

    assert ceil(20 - most) <= int(response.headers["Retry-After"]) <= ceil(20 - least)


def test_the_place_counts_whom_a_runner_claims_before(read: Read, jobs: Jobs) -> None:
    jobs.add("more urgent", priority=5)
    jobs.add("older", due_in="-10 s")
    job_id = jobs.add("this one")
    jobs.add("less urgent", priority=-5, due_in="-10 s")
    jobs.add("younger", due_in="10 s")
    jobs.add("of another model", model="other", priority=100)
    jobs.add("in work already", status="processing", priority=100)
    jobs.add("done", status="completed", priority=100)

    assert read(job_id)["queue"]["position"] == 2


def test_the_place_is_counted_to_1000(read: Read, jobs: Jobs, db: psycopg.Connection[Any]) -> None:
    db.execute("""insert into job (input) select '{"text": "x"}' from generate_series(1, 999)""")
    almost = jobs.add()
    beyond = jobs.add()

    assert read(almost)["queue"] == {"position": 999, "at_least": False, "eta_seconds": None}
    assert read(beyond)["queue"] == {"position": 1000, "at_least": True, "eta_seconds": None}


def test_the_estimate_is_the_present_rate_of_the_live_runners(read: Read, jobs: Jobs) -> None:
    add_crew(jobs, workers=2, seconds=5)
    for _ in range(4):
        jobs.add()

    assert read(jobs.add())["queue"]["eta_seconds"] == 15


def test_the_estimate_counts_the_time_until_the_next_attempt(read: Read, jobs: Jobs) -> None:
    add_crew(jobs, workers=2, seconds=5)
    began = monotonic()

    eta = read(jobs.add(due_in="60 s"))["queue"]["eta_seconds"]

    assert began - monotonic() <= eta - 65 <= 0.1


@pytest.mark.parametrize(
    ("seconds", "heartbeat_ago"), [(None, "0 s"), (5, "31 s")], ids=["no rate yet", "silent"]
)
def test_there_is_no_estimate_where_nobody_can_tell(
    seconds: float | None, heartbeat_ago: str, read: Read, jobs: Jobs
) -> None:
    add_crew(jobs, workers=2, seconds=seconds, heartbeat_ago=heartbeat_ago)

    assert read(jobs.add())["queue"]["eta_seconds"] is None


def test_a_job_that_is_known_is_not_sent_again(client: FlaskClient, jobs: Jobs) -> None:
    job_id = jobs.add()
    first = client.get(f"/jobs/{job_id}")
    known = {"If-None-Match": first.headers["ETag"]}

    again = client.get(f"/jobs/{job_id}", headers=known)
    assert (again.status_code, again.data) == (304, b"")
    assert again.headers["ETag"] == first.headers["ETag"]
    assert first.headers["Cache-Control"] == "private, no-cache"

    jobs.start(job_id)
    changed = client.get(f"/jobs/{job_id}", headers=known)
    assert (changed.status_code, changed.get_json()["status"]) == (200, "processing")


def test_who_wants_a_job_as_it_is_not_any_more_is_refused_as_ever(
    client: FlaskClient, jobs: Jobs
) -> None:
    path = f"/jobs/{jobs.add(status='completed')}"

    refused = client.get(path, headers={"If-Match": '"another"'})

    assert (refused.status_code, refused.mimetype) == (412, "application/problem+json")
    assert refused.get_json()["status"] == 412
    assert refused.headers["Cache-Control"] == "no-store"


def test_a_final_job_may_be_kept_for_long_by_its_client_alone(
    client: FlaskClient, jobs: Jobs
) -> None:
    response = client.get(f"/jobs/{jobs.add(status='completed')}")

    directives = set(response.headers["Cache-Control"].split(", "))
    assert {"private", "immutable"} < directives


def test_jobs_are_listed_newest_first(client: FlaskClient, jobs: Jobs) -> None:
    added = [str(jobs.add()) for _ in range(3)]

    response = client.get("/jobs")

    assert ids(response) == added[::-1]
    assert all(list(job) == KEYS for job in json.loads(response.data)["jobs"])
    assert response.get_json()["next"] is None
    assert "Link" not in response.headers


def test_an_empty_list_is_a_page_like_any_other(client: FlaskClient, jobs: Jobs) -> None:
    response = client.get("/jobs")

    assert response.get_json() == {"jobs": [], "next": None}


def test_50_jobs_are_a_page_unless_another_number_is_asked_for(
    client: FlaskClient, jobs: Jobs
) -> None:
    for _ in range(51):
        jobs.add()

    assert len(ids(client.get("/jobs"))) == 50
    assert len(ids(client.get("/jobs?limit=1000"))) == 51


def test_the_pages_hold_each_job_once_while_new_ones_arrive(
    client: FlaskClient, jobs: Jobs
) -> None:
    added = [str(jobs.add()) for _ in range(5)]
    found: list[str] = []
    address = "/jobs?limit=2"
    while address:
        response = client.get(address)
        found += ids(response)
        address = response.get_json()["next"]
        jobs.add("a new one")

    assert found == added[::-1]


def test_the_next_page_is_also_a_link(client: FlaskClient, jobs: Jobs) -> None:
    for _ in range(2):
        jobs.add()

    response = client.get("/jobs?limit=1")

    assert response.headers["Link"] == f'<{response.get_json()["next"]}>; rel="next"'


@pytest.mark.parametrize("status", ["pending", "processing", "completed", "failed"])
def test_a_status_is_listed_alone_on_all_its_pages(
    status: str, client: FlaskClient, jobs: Jobs
) -> None:
    for each in ("pending", "processing", "completed", "failed") * 2:
        jobs.add(status=each)

    first = client.get(f"/jobs?status={status}&limit=1").get_json()
    second = client.get(first["next"]).get_json()

    assert [job["status"] for job in first["jobs"] + second["jobs"]] == [status, status]
    assert second["next"] is None


def test_a_cursor_that_was_tampered_with_is_refused(client: FlaskClient, jobs: Jobs) -> None:
    jobs.add_many(2)
    cursor = client.get("/jobs?limit=1").get_json()["next"].partition("cursor=")[2]
    other = "B" if cursor[0] == "A" else "A"

    assert client.get(f"/jobs?cursor={cursor}").status_code == 200
    assert client.get(f"/jobs?cursor={other}{cursor[1:]}").status_code == 422


def test_a_cursor_is_good_for_every_process_and_after_a_restart(
    client: FlaskClient, jobs: Jobs, web_url: str
) -> None:
    added = jobs.add_many(2)
    address = client.get("/jobs?limit=1").get_json()["next"]
    other = create_app(web_settings(web_url))

    assert ids(other.test_client().get(address)) == [added[0]]
    other.extensions["database"].close()


def test_jobs_of_a_model_or_a_batch_are_listed_alone(client: FlaskClient, jobs: Jobs) -> None:
    jobs.db.execute("insert into model (name) values ('other')")
    other = [jobs.add(model="other") for _ in range(3)]
    jobs.add()
    batch = client.post("/predict/batch", json={"items": [{"text": "a"}, {"text": "b"}]}).get_json()

    first = client.get("/jobs?model=other&limit=2").get_json()
    second = client.get(first["next"]).get_json()
    of_batch = client.get(f"/jobs?batch_id={batch['batch_id']}")

    assert [job["job_id"] for job in first["jobs"] + second["jobs"]] == other[::-1]
    assert set(ids(of_batch)) == set(batch["job_ids"])
    assert ids(client.get(f"/jobs?batch_id={batch['batch_id']}&model=other")) == []


def test_jobs_of_a_time_are_listed_alone(client: FlaskClient, jobs: Jobs) -> None:
    added = jobs.add_many(5)
    times = [jobs.get(job_id)["created_at"].isoformat() for job_id in added]
    query = urlencode({"created_after": times[0], "created_before": times[4]})

    assert ids(client.get(f"/jobs?{query}")) == added[3:0:-1]
    assert ids(client.get(f"/jobs?created_after={times[3]}")) == added[4:]
    assert ids(client.get("/jobs?created_after=2999-01-01T00:00:00Z")) == []
    assert ids(client.get("/jobs?created_before=0001-01-01T00:00%2B14:00")) == []
    assert ids(client.get("/jobs?created_after=9999-12-31T23:59:59.999999-14:00")) == []
    assert len(ids(client.get("/jobs?created_before=9999-12-31T23:59:59Z"))) == 5
    pages = client.get(f"/jobs?{query}&limit=1").get_json()
    assert ids(client.get(pages["next"])) == [added[2]]


@pytest.mark.parametrize(
    ("query", "parameter"),
    [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=-1", "limit"),
        ("limit=", "limit"),
        ("limit=ten", "limit"),
        ("limit=1e2", "limit"),
        ("limit=%C2%B2", "limit"),
        ("limit=5&limit=6", "limit"),
        ("status=done", "status"),
        ("status=", "status"),
        ("status=%00", "status"),
        ("cursor=", "cursor"),
        ("cursor=abc", "cursor"),
        ("cursor=" + "!" * 22, "cursor"),
        ("cursor=" + "A" * 33, "cursor"),
        ("cursor=" + "A" * 32, "cursor"),
        ("model=", "model"),
        ("model=%00", "model"),
        ("batch_id=x", "batch_id"),
        ("batch_id=" + UNKNOWN.replace("-", ""), "batch_id"),
        ("created_after=yesterday", "created_after"),
        ("created_after=2026-01-31T12:00:00", "created_after"),
        ("created_after=2026-02-31T12:00:00Z", "created_after"),
        ("created_before=1769860800", "created_before"),
        ("page=2", "page"),
        ("%00=2", "\0"),
    ],
)
def test_a_query_that_makes_no_sense_is_refused_and_named(
    query: str, parameter: str, client: FlaskClient
) -> None:
    response = client.get(f"/jobs?{query}")

    problem = response.get_json()
    assert response.status_code == 422
    assert response.content_type == "application/problem+json"
    assert [error["parameter"] for error in problem["errors"]] == [parameter]


@pytest.mark.parametrize("query", ["", "?status=pending", "?status=failed", "?limit=1000"])
def test_a_job_that_somebody_wrote_by_hand_is_shown_too(
    query: str, client: FlaskClient, db: psycopg.Connection[Any]
) -> None:
    db.execute("""insert into job (model, input) values ('no such model', '{"any": "thing"}')""")
    db.execute(
        """
        insert into job (model, input, status, finished_at, errors, error)
        values ('other', '{}', 'failed', now(), '[1, "two", null]',
            '{"code": "c", "message": "m", "retryable": false, "more": [1]}')
        """
    )

    response = client.get(f"/jobs{query}")

    assert response.status_code == 200
    assert all(client.get(f"/jobs/{job_id}").status_code == 200 for job_id in ids(response))
