"""Idempotency-Key: a submission that is repeated is not made twice."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from helpers import Jobs, login_url
from web import create_app
from web_server import WebServer, web_settings

Db = psycopg.Connection[Any]

ITEMS = [{"text": "good"}, {"text": "bad", "priority": 3}, {"text": "good"}]


def post(client: FlaskClient, key: str, path: str = "/predict", **body: Any) -> TestResponse:
    return client.post(path, json=body, headers={"Idempotency-Key": key})


def test_the_same_key_with_the_same_body_gives_the_same_job(
    client: FlaskClient, jobs: Jobs
) -> None:
    first = post(client, "a key", text="fine", priority=8)
    again = post(client, "a key", priority=8.0, text="fine")

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.get_json() == first.get_json()
    assert jobs.count() == 1


def test_a_key_goes_on_to_hold_when_the_job_is_done_and_the_web_was_restarted(
    client: FlaskClient, jobs: Jobs, web_url: str
) -> None:
    job_id = post(client, "a key", text="fine").get_json()["job_id"]
    jobs.start(job_id)
    jobs.finish(job_id)
    other = create_app(web_settings(web_url))

    again = post(other.test_client(), "a key", text="fine")

    other.extensions["database"].close()
    assert again.get_json() == {"job_id": job_id, "status": "processing"}
    assert jobs.count() == 1


@pytest.mark.parametrize(
    "body", [{"text": "other"}, {"text": "fine", "priority": 1}], ids=["text", "priority"]
)
def test_the_same_key_with_another_body_is_refused(
    client: FlaskClient, jobs: Jobs, body: dict[str, Any]
) -> None:
    post(client, "a key", text="fine")

    refused = post(client, "a key", **body)

    assert refused.status_code == 422
    assert [error["header"] for error in refused.get_json()["errors"]] == ["Idempotency-Key"]
    assert jobs.count() == 1


def test_other_keys_and_none_are_other_jobs(client: FlaskClient, jobs: Jobs) -> None:
    ids = {post(client, key, text="fine").get_json()["job_id"] for key in ("a", "A", "b")}
    ids |= {client.post("/predict", json={"text": "fine"}).get_json()["job_id"] for _ in range(2)}

    assert len(ids) == jobs.count() == 5


@pytest.mark.parametrize("key", ["", "x" * 256, "grün", "a\tb", " "])
def test_a_key_that_is_none_is_refused(client: FlaskClient, jobs: Jobs, key: str) -> None:
    headers = [("Idempotency-Key", key.encode().decode("latin-1"))]

    refused = client.post("/predict", json={"text": "fine"}, headers=headers)

    assert refused.status_code == 400
    assert "Idempotency-Key" in refused.get_json()["detail"]
    assert jobs.count() == 0


def test_a_key_lives_as_long_as_its_job(client: FlaskClient, jobs: Jobs, db: Db) -> None:
    first = post(client, "a key", text="fine").get_json()["job_id"]
    jobs.start(first)
    jobs.finish(first)
    db.execute("delete from job")

    second = post(client, "a key", text="another")

    assert second.status_code == 202
    assert second.get_json()["job_id"] != first


@pytest.mark.parametrize(
    ("path", "body"), [("/predict", {"text": "fine"}), ("/predict/batch", {"items": ITEMS})]
)
def test_what_was_accepted_is_given_again_though_the_queue_is_full_now(
    web_url: str, jobs: Jobs, path: str, body: dict[str, Any]
) -> None:
    app = create_app(web_settings(web_url, JOBRUNNER_MAX_PENDING=1))
    client = app.test_client()
    first = post(client, "a key", path, **body)
    app.extensions["backlog"]._snapshot = None

    assert post(client, "another", path, **body).status_code == 429
    again = post(client, "a key", path, **body)

    app.extensions["database"].close()
    assert again.status_code == 202
    assert again.get_json() == first.get_json()


@pytest.mark.process
def test_fifty_posts_with_one_key_on_several_processes_make_one_job(
    owner_url: str, jobs: Jobs, threads: ThreadPoolExecutor
) -> None:
    headers = {"Content-Type": "application/json", "Idempotency-Key": "one"}
    url = login_url(owner_url, "web_login")
    with WebServer(url, WEB_CONCURRENCY="3") as web:
        answers = list(
            threads.map(
                lambda _: web.send("POST", "/predict", b'{"text": "fine"}', headers), range(50)
            )
        )

    assert {answer.status for answer in answers} == {202}
    assert len({answer.json["job_id"] for answer in answers}) == 1
    assert jobs.count() == 1


def test_the_key_of_a_batch_names_the_batch(client: FlaskClient, jobs: Jobs) -> None:
    first = post(client, "a key", "/predict/batch", items=ITEMS)
    again = post(client, "a key", "/predict/batch", items=ITEMS)

    assert (first.status_code, again.status_code) == (202, 202)
    assert again.get_json() == first.get_json()
    assert jobs.count() == 3
    assert post(client, "a key", "/predict/batch", items=ITEMS[:1]).status_code == 422
    assert post(client, "a key", text="good").status_code == 422


def test_a_batch_with_a_key_that_is_taken_meanwhile_is_not_inserted(
    app: Flask, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    from web import idempotency

    client, real, asked = app.test_client(), idempotency.find, []

    def find(key: idempotency.Key) -> idempotency.Found | None:
        asked.append(key)
        if len(asked) == 1:
            # Somebody else is faster, after we have looked.
            monkeypatch.setattr(idempotency, "find", real)
            assert post(client, "a key", "/predict/batch", items=ITEMS).status_code == 202
            return None
        return real(key)

    monkeypatch.setattr(idempotency, "find", find)
    answer = post(client, "a key", "/predict/batch", items=ITEMS)

    assert answer.status_code == 202
    assert jobs.count() == 3
    assert set(answer.get_json()["job_ids"]) == {
        str(row[0]) for row in jobs.db.execute("select id from job")
    }
