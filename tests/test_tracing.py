"""Which request, which trace: what a client calls them, the answer and the logs repeat."""

import json
import re
from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers import Jobs, wait_for
from processes import system
from web_server import JSON, WebServer

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
TRACE = f"00-{TRACE_ID}-00f067aa0ba902b7-01"


def submitted(client: FlaskClient, jobs: Jobs, traceparent: str) -> Any:
    response = client.post("/predict", json={"text": "x"}, headers={"traceparent": traceparent})
    assert response.status_code == 202
    return jobs.get(response.get_json()["job_id"])["traceparent"]


def test_a_request_keeps_the_id_that_it_came_with(client: FlaskClient) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": "from-the-proxy/7"})

    assert answer.headers["X-Request-ID"] == "from-the-proxy/7"


@pytest.mark.parametrize("given", ["", "a b", 'a"b', "a\tb", "ä", "x" * 129])
def test_a_request_with_an_id_that_is_none_is_given_one(given: str, client: FlaskClient) -> None:
    answer = client.get("/livez", headers={"X-Request-ID": given})

    assert re.fullmatch(r"[0-9a-f]{32}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("path", ["/nothing", "/jobs/x", "//jobs", "/jobs?limit=0"])
def test_errors_have_an_id_too_and_no_two_the_same(path: str, client: FlaskClient) -> None:
    ids = {client.get(path).headers["X-Request-ID"] for _ in range(3)}

    assert len(ids) == 3


@pytest.mark.parametrize(
    ("given", "kept"),
    [
        (TRACE, TRACE),
        (TRACE.replace("00-", "01-", 1) + "-more", TRACE),
        (TRACE + "-more", None),
        (TRACE.upper(), None),
        (TRACE.replace("00-", "ff-", 1), None),
        (TRACE.replace(TRACE_ID, "0" * 32), None),
        (TRACE.replace("00f067aa0ba902b7", "0" * 16), None),
        (TRACE[:-1], None),
        ("x", None),
        ("", None),
    ],
)
def test_a_job_keeps_the_trace_of_its_request(
    given: str, kept: str | None, client: FlaskClient, jobs: Jobs
) -> None:
    assert submitted(client, jobs, given) == kept


def test_the_jobs_of_a_batch_and_a_retry_keep_it_too(client: FlaskClient, jobs: Jobs) -> None:
    headers = {"traceparent": TRACE}
    items = {"items": [{"text": "good"}, {"text": "bad"}]}
    failed = jobs.add(status="failed")

    ids = client.post("/predict/batch", json=items, headers=headers).get_json()["job_ids"]
    retried = client.post(f"/jobs/{failed}/retry", headers=headers).get_json()["job_id"]

    assert [jobs.get(job_id)["traceparent"] for job_id in [*ids, retried]] == [TRACE] * 3


@pytest.mark.process
def test_the_logs_of_web_and_runner_name_the_trace(web_url: str, runner_url: str, jobs: Jobs,
                                                   tmp_path: Any) -> None:  # fmt: skip
    headers = JSON | {"traceparent": TRACE, "X-Request-ID": "monday"}
    with WebServer(web_url) as web, system(runner_url, tmp_path) as services:
        runner = services.runner(MOCK_DELAY_SECONDS=0)
        body = json.dumps({"text": "good"}).encode()
        job_id = web.send("POST", "/predict", body, headers).json["job_id"]
        plain_id = web.predict().json["job_id"]
        web.send("GET", f"/jobs/{job_id}", headers=headers)
        jobs.wait(job_id, "completed")
        jobs.wait(plain_id, "completed")
        wait_for(lambda: len(runner.lines("completed")) == 2, "both are logged")
        logged = web.stop()

    [submitted] = [line for line in logged.splitlines() if f"submitted job_id={job_id}" in line]
    assert f"request_id=monday trace_id={TRACE_ID}" in submitted
    assert re.search(rf"request method=GET path=/jobs/{job_id} .* request_id=monday\n", logged)
    assert traces(runner, "claimed") == traces(runner, "completed") == {job_id: TRACE_ID}


@pytest.mark.process
def test_what_was_not_submitted_has_a_line_of_its_request(web_url: str, jobs: Jobs) -> None:
    body, headers = json.dumps({"text": "good"}).encode(), JSON | {"Idempotency-Key": "monday"}
    with WebServer(web_url) as web:
        for name in ("first", "again"):
            answer = web.send("POST", "/predict", body, headers | {"X-Request-ID": name})
        path = answer.headers["Location"] + "/cancel"
        assert web.send("POST", path, headers={"X-Request-ID": "cancel"}).status == 202
        logged = web.stop()

    assert logged.count("request_id=first\n") == 1
    assert re.search(r"request method=POST path=/predict status=202 .* request_id=again\n", logged)
    assert re.search(rf"path={path} status=202 .* request_id=cancel\n", logged)


def traces(runner: Any, move: str) -> dict[str, str]:
    """The trace ids of the lines that have one, by job."""
    lines = runner.lines(move)
    return {line["job_id"]: line["trace_id"] for line in lines if "trace_id" in line}
