"""API keys: who has none sees nothing, who has one sees its own, and an operator sees all."""

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from math import inf
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from helpers import Jobs, login_url, wait_for
from jobrunner import keys
from web import access, create_app
from web.access import Caller
from web.quotas import Quota, Quotas
from web_server import WebServer, web_settings

Header = dict[str, str]

SOME_ID = "01890a5d-ac96-774b-bcce-b302099a8057"
CLOSED = [
    ("POST", "/predict"),
    ("POST", "/predict/batch"),
    ("POST", f"/models/{SOME_ID}/predict"),
    ("GET", f"/batches/{SOME_ID}"),
    ("GET", "/jobs"),
    ("GET", f"/jobs/{SOME_ID}"),
    ("GET", f"/jobs/{SOME_ID}/input"),
    ("GET", f"/jobs/{SOME_ID}/events"),
    ("POST", f"/jobs/{SOME_ID}/cancel"),
    ("POST", f"/jobs/{SOME_ID}/retry"),
    ("GET", "/models"),
    ("GET", "/runners"),
    ("GET", "/stats"),
    ("GET", "/overview/events"),
    ("GET", "/history"),
    ("GET", "/metrics"),
]
OPERATORS = ["/runners", "/stats", "/overview/events", "/history", "/metrics"]
OPEN = [
    "/",
    "/livez",
    "/readyz",
    "/openapi.json",
    "/docs",
    "/docs/start.js",
    "/dashboard/x/dashboard.js",
]


@pytest.fixture
def app(web_url: str) -> Iterator[Flask]:
    app = create_app(web_settings(web_url, JOBRUNNER_REQUIRE_KEYS="on"))
    yield app
    app.extensions["viewers"].close()
    app.extensions["database"].close()


def key_of(db: psycopg.Connection[Any], client: str, **more: Any) -> Header:
    """Make a key of a client, and the header that shows it."""
    return {"Authorization": f"Bearer {keys.create(db, client, **more)[1]}"}


@pytest.fixture
def shop(db: psycopg.Connection[Any]) -> Header:
    return key_of(db, "shop")


@pytest.fixture
def forum(db: psycopg.Connection[Any]) -> Header:
    return key_of(db, "forum")


@pytest.fixture
def operator(db: psycopg.Connection[Any]) -> Header:
    return key_of(db, "ops", operator=True)


def submit(client: FlaskClient, key: Header, text: str = "good", **headers: str) -> Any:
    return client.post("/predict", json={"text": text}, headers=key | headers)


@pytest.mark.parametrize(("method", "path"), CLOSED)
def test_without_a_key_everything_of_worth_is_closed(
    method: str, path: str, client: FlaskClient, jobs: Jobs
) -> None:
    response = client.open(path, method=method, json={"text": "good"} if method == "POST" else None)

    assert response.status_code == 401
    assert response.mimetype == "application/problem+json"
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="jobrunner"'
    assert jobs.count() == 0


def test_every_route_is_closed_that_was_not_opened_on_purpose(app: Flask) -> None:
    endpoints = {rule.endpoint for rule in app.url_map.iter_rules()}

    assert endpoints >= access.OPEN
    assert endpoints >= access.OPERATORS
    paths = {re.sub(SOME_ID, "<id>", path) for _, path in CLOSED}
    closed = [rule for rule in app.url_map.iter_rules() if rule.endpoint not in access.OPEN]
    assert {re.sub(r"<\w+>", "<id>", rule.rule) for rule in closed} == paths


@pytest.mark.parametrize("path", OPEN)
def test_what_says_nothing_of_jobs_is_open(path: str, client: FlaskClient) -> None:
    assert client.get(path).status_code in (200, 302)


def test_an_address_that_is_not_there_is_not_there(client: FlaskClient) -> None:
    assert client.get("/nothing").status_code == 404
    assert client.delete("/jobs").status_code == 405


@pytest.mark.parametrize(
    "given",
    [
        "Bearer",
        "Bearer ",
        "Bearer jr_",
        "Bearer jr_00000000_" + "a" * 43,
        "Bearer " + "x" * 4000,
        "Bearer jr_00000000_ä" + "a" * 42,
        "Basic c2hvcDpzaG9w",
        "Basic \u00e9",
        "Basic \u0085",
        "jr_00000000_" + "a" * 43,
        "Bearer a, Bearer b",
    ],
)
def test_what_is_no_key_opens_nothing(given: str, client: FlaskClient) -> None:
    response = client.get("/jobs", headers={"Authorization": given})

    assert response.status_code == 401
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")


def test_a_wrong_secret_opens_nothing_and_spoils_nothing(client: FlaskClient, shop: Header) -> None:
    wrong = {"Authorization": shop["Authorization"][:-1] + "!"}
    other = {"Authorization": shop["Authorization"][:-2] + "AA"}

    assert client.get("/jobs", headers=wrong).status_code == 401
    assert client.get("/jobs", headers=shop).status_code == 200
    refused = client.get("/jobs", headers=other)
    assert refused.status_code == 401
    assert 'realm="jobrunner", error="invalid_token"' in refused.headers["WWW-Authenticate"]


def test_a_client_sees_its_own_jobs_and_of_others_not_that_they_are_there(
    client: FlaskClient, shop: Header, forum: Header
) -> None:
    job_id = submit(client, shop).get_json()["job_id"]
    submit(client, forum)

    mine = client.get("/jobs", headers=shop).get_json()["jobs"]

    assert [job["job_id"] for job in mine] == [job_id]
    assert client.get(f"/jobs/{job_id}", headers=shop).status_code == 200
    for method, path in [
        ("GET", f"/jobs/{job_id}"),
        ("GET", f"/jobs/{job_id}?wait=5"),
        ("GET", f"/jobs/{job_id}/input"),
        ("GET", f"/jobs/{job_id}/events"),
        ("POST", f"/jobs/{job_id}/cancel"),
        ("POST", f"/jobs/{job_id}/retry"),
    ]:
        theirs = client.open(path, method=method, headers=forum)
        unknown = client.open(path.replace(job_id, SOME_ID), method=method, headers=forum)
        assert (theirs.status_code, theirs.data) == (404, unknown.data)
    assert client.get(f"/jobs/{job_id}", headers=shop).get_json()["status"] == "pending"


def test_a_cursor_of_one_client_shows_another_nothing_of_his(
    client: FlaskClient, shop: Header, forum: Header
) -> None:
    for key in (shop, forum, shop, forum):
        submit(client, key)

    following = client.get("/jobs?limit=1", headers=shop).get_json()["next"]
    theirs = client.get(following, headers=forum).get_json()["jobs"]

    own = client.get("/jobs", headers=forum).get_json()["jobs"]
    assert theirs
    assert {job["job_id"] for job in theirs} <= {job["job_id"] for job in own}


def test_a_batch_is_its_client_s_alone(client: FlaskClient, shop: Header, forum: Header) -> None:
    items = {"items": [{"text": "good"}, {"text": "bad"}]}
    path = client.post("/predict/batch", json=items, headers=shop).headers["Location"]

    assert client.get(path, headers=shop).get_json()["total"] == 2
    assert client.get(path, headers=forum).status_code == 404


def test_two_clients_may_use_the_same_idempotency_key(
    client: FlaskClient, shop: Header, forum: Header
) -> None:
    first, again, other = (
        submit(client, key, **{"Idempotency-Key": "monday"}).get_json()["job_id"]
        for key in (shop, shop, forum)
    )

    assert first == again
    assert first != other


def test_an_operator_sees_all_and_retries_a_job_in_its_client_s_name(
    client: FlaskClient, shop: Header, operator: Header, jobs: Jobs
) -> None:
    job_id = submit(client, shop).get_json()["job_id"]

    assert client.post(f"/jobs/{job_id}/cancel", headers=operator).status_code == 202
    retried = client.post(f"/jobs/{job_id}/retry", headers=operator).get_json()["job_id"]

    assert len(client.get("/jobs", headers=operator).get_json()["jobs"]) == 2
    assert jobs.get(retried)["client_id"] == "shop"
    assert client.get(f"/jobs/{retried}", headers=shop).status_code == 200


@pytest.mark.parametrize("path", OPERATORS)
def test_how_the_service_stands_is_for_operators(
    path: str, client: FlaskClient, shop: Header, operator: Header
) -> None:
    refused = client.get(path, headers=shop)

    assert refused.status_code == 403
    assert refused.mimetype == "application/problem+json"
    with client.get(path, headers=operator) as answer:
        assert answer.status_code == 200


def test_who_may_be_told_of_all_that_changes_is_told_where(
    client: FlaskClient, shop: Header, operator: Header
) -> None:
    assert client.get("/models", headers=operator).headers["Link"] == (
        '</overview/events>; rel="monitor"'
    )
    assert "Link" not in client.get("/models", headers=shop).headers


def test_a_revoked_key_is_refused_and_the_client_s_other_key_opens_what_there_was(
    client: FlaskClient, db: psycopg.Connection[Any]
) -> None:
    key_id, key = keys.create(db, "shop")
    old, new = {"Authorization": f"Bearer {key}"}, key_of(db, "shop")
    job_id = submit(client, old).get_json()["job_id"]

    assert keys.revoke(db, key_id)

    wait_for(lambda: client.get("/jobs", headers=old).status_code == 401, "it is refused")
    assert client.get(f"/jobs/{job_id}", headers=new).status_code == 200


def test_a_client_may_have_so_many_pending_and_no_more(
    client: FlaskClient, db: psycopg.Connection[Any], jobs: Jobs, forum: Header
) -> None:
    key = key_of(db, "shop", max_pending=3)

    answers = [submit(client, key) for _ in range(5)]

    assert [each.status_code for each in answers] == [202, 202, 202, 429, 429]
    assert answers[-1].headers["Retry-After"]
    assert submit(client, forum).status_code == 202
    assert jobs.count() == 4


def test_a_batch_that_is_too_large_for_what_a_client_may_have_pending_is_refused_whole(
    client: FlaskClient, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    key = key_of(db, "shop", max_pending=3)
    items = {"items": [{"text": "good"}] * 4}

    refused = client.post("/predict/batch", json=items, headers=key)

    # It would be too large however long its client waited.
    assert refused.status_code == 422
    assert [each["pointer"] for each in refused.get_json()["errors"]] == ["/items"]
    assert jobs.count() == 0
    del items["items"][0]
    assert client.post("/predict/batch", json=items, headers=key).status_code == 202
    assert client.post("/predict/batch", json=items, headers=key).status_code == 429


def test_several_processes_let_in_no_more_than_one_too_many_each(
    web_url: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    key, processes = key_of(db, "shop", max_pending=8), 4
    settings = web_settings(web_url, JOBRUNNER_REQUIRE_KEYS="on", WEB_CONCURRENCY=processes)
    apps = [create_app(settings) for _ in range(processes)]
    try:
        for _ in range(6):
            for app in apps:
                submit(app.test_client(), key)
    finally:
        for app in apps:
            app.extensions["database"].close()

    assert 8 <= jobs.count() <= 8 + processes - 1


def test_a_count_that_takes_long_keeps_no_other_client_waiting(
    app: Flask, db: psycopg.Connection[Any], web_url: str
) -> None:
    slow, other = Caller("slow", False, 5), Caller("other", False, 5)
    quotas = Quotas(app.extensions["database"], 1)
    with ThreadPoolExecutor(1) as threads, db.transaction():
        db.execute("lock table job in access exclusive mode")
        waiting = threads.submit(quotas.admits, slow, 1)
        wait_for(lambda: quotas._quotas and next(iter(quotas._quotas.values())).lock.locked(), "it")
        quotas._quotas["other", 5] = quota = Quota()
        quota.left, quota.fresh_until = 5, inf
        assert quotas.admits(other, 1)
        assert not waiting.done()
    assert waiting.result()


@pytest.mark.parametrize("size", [1, 3])
def test_many_at_once_let_in_no_more_than_may_wait(
    size: int, app: Flask, db: psycopg.Connection[Any], jobs: Jobs, patience: None
) -> None:
    key, items = key_of(db, "shop", max_pending=9), {"items": [{"text": "good"}] * size}

    def post(_: int) -> int:
        client = app.test_client()
        return client.post("/predict/batch", json=items, headers=key).status_code

    with ThreadPoolExecutor(24) as threads:
        statuses = list(threads.map(post, range(48)))

    assert set(statuses) == {202, 429}
    assert size <= jobs.count() <= 9
    # Who was refused for what was not inserted yet gets in later.
    wait_for(lambda: post(0) and jobs.count() == 9, "all are there that may be")
    wait_for(lambda: post(0) == 429, "and no more")
    assert jobs.count() == 9


def test_an_operator_s_key_for_a_retry_takes_none_of_the_client_s(
    client: FlaskClient, shop: Header, operator: Header
) -> None:
    job_id, named = submit(client, shop).get_json()["job_id"], {"Idempotency-Key": "monday"}
    client.post(f"/jobs/{job_id}/cancel", headers=shop)

    retried = [client.post(f"/jobs/{job_id}/retry", headers=operator | named) for _ in range(2)]

    assert [each.status_code for each in retried] == [202, 202]
    assert retried[0].headers["Location"] == retried[1].headers["Location"]
    assert submit(client, shop, **named).status_code == 202


def test_an_id_that_there_is_not_is_looked_for_once(
    client: FlaskClient, app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(access, "FRESH_SECONDS", 600)
    looked: list[str] = []
    keys_here = app.extensions["keys"]
    find = keys_here._find
    monkeypatch.setattr(keys_here, "_find", lambda key_id: looked.append(key_id) or find(key_id))

    for _ in range(20):
        bad = {"Authorization": "Bearer jr_00000000_" + "a" * 43}
        assert client.get("/jobs", headers=bad).status_code == 401

    assert looked == ["00000000"]


def test_who_has_as_many_pending_as_he_may_goes_on_when_one_is_done(
    client: FlaskClient, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    key = key_of(db, "shop", max_pending=1)
    job_id = submit(client, key).get_json()["job_id"]
    assert submit(client, key).status_code == 429

    jobs.start(job_id)

    wait_for(lambda: submit(client, key).status_code == 202, "the next one is let in")


def test_what_was_submitted_with_a_key_before_is_answered_though_no_more_may_wait(
    client: FlaskClient, db: psycopg.Connection[Any]
) -> None:
    key = key_of(db, "shop", max_pending=1) | {"Idempotency-Key": "monday"}

    assert submit(client, key).status_code == submit(client, key).status_code == 202


def test_caches_keep_the_answers_to_different_keys_apart(client: FlaskClient, shop: Header) -> None:
    assert "Authorization" in client.get("/jobs", headers=shop).headers["Vary"]


def test_the_database_keeps_a_hash_and_nothing_that_opens(
    db: psycopg.Connection[Any], web_url: str
) -> None:
    _, key = keys.create(db, "shop")

    [row] = db.execute("select api_key::text from api_key").fetchall()
    assert key.split("_", 2)[2] not in row[0]
    with psycopg.connect(web_url, autocommit=True) as web:
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            web.execute("insert into api_key (id, client_id, secret_hash) values ('a', 'b', 'c')")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            web.execute("update api_key set operator = true")


@pytest.mark.process
def test_no_key_is_written_to_the_log(owner_url: str, db: psycopg.Connection[Any]) -> None:
    key_id, key = keys.create(db, "shop")
    url = login_url(owner_url, "web_login")
    with WebServer(url, JOBRUNNER_REQUIRE_KEYS="on") as web:
        headers = {"Content-Type": "application/json", "Authorization": f"Bearer {key}"}
        body = json.dumps({"text": "good"}).encode()
        assert web.send("POST", "/predict", body, headers).status == 202
        assert web.send("GET", "/runners", headers=headers).status == 403
        assert web.send("GET", "/jobs").status == 401
        logged = web.stop()

    assert key_id not in logged
    assert key not in logged
    assert "open_to_all" not in logged


@pytest.mark.process
@pytest.mark.parametrize(
    ("host", "required", "warns"),
    [
        ("0.0.0.0", "off", True),
        ("0.0.0.0", "on", False),
        ("127.0.0.1", "off", False),
        ("localhost", "off", False),
    ],
)
def test_a_web_that_others_can_reach_without_keys_warns(
    host: str, required: str, warns: bool, web_url: str
) -> None:
    with WebServer(web_url, HOST=host, JOBRUNNER_REQUIRE_KEYS=required) as web:
        logged = web.stop()

    assert ("warning open_to_all" in logged) == warns
