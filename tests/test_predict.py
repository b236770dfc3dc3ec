"""POST /predict: what is accepted, what becomes of it, and what is refused."""

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import psycopg
import pytest
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

from helpers import Jobs, wait_for
from web import create_app, logs
from web_server import add_crew, web_settings

Predict = Callable[..., TestResponse]

ONE_DATABASE = [HealthCheck.function_scoped_fixture]
properties = settings(max_examples=80, deadline=None, suppress_health_check=ONE_DATABASE)

# Everything that a JSON string can hold, but what PostgreSQL can't.
characters = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
texts = st.text(characters, min_size=1, max_size=300).filter(lambda text: not text.isspace())


def pointers(response: TestResponse) -> list[str]:
    return [error["pointer"] for error in response.get_json()["errors"]]


def assert_refused(response: TestResponse, status: int) -> None:
    assert response.status_code == status
    assert response.content_type == "application/problem+json"
    problem = response.get_json()
    assert problem["status"] == status
    assert {"type", "title", "detail"} <= set(problem)


def test_the_example_of_the_contract_is_answered_as_it_says(client: FlaskClient) -> None:
    response = client.post(
        "/predict",
        data='{"text": "This product is amazing!"}',
        headers={"Content-Type": "application/json"},
    )

    job_id = str(UUID(response.get_json()["job_id"]))
    assert response.status_code == 202
    assert response.get_data(as_text=True) == f'{{"job_id": "{job_id}", "status": "processing"}}'


def test_the_answer_says_where_to_read_when_to_come_and_what_else_can_be_done(
    predict: Predict,
) -> None:
    response = predict()

    job = f"/jobs/{response.get_json()['job_id']}"
    assert response.content_type == "application/json"
    assert response.headers["Location"] == job
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    assert response.headers["Link"] == f'<{job}/events>; rel="events", <{job}/cancel>; rel="cancel"'


def test_an_accepted_text_is_one_committed_pending_row(predict: Predict, jobs: Jobs) -> None:
    response = predict("I love it", priority=7)

    row = jobs.get(response.get_json()["job_id"])
    assert jobs.count() == 1
    assert row["input"] == {"text": "I love it"}
    assert (row["status"], row["model"], row["priority"]) == ("pending", "sentiment", 7)
    assert (row["attempt"], row["max_attempts"]) == (0, 3)


def test_the_setting_of_attempts_is_written_into_the_row(web_url: str, jobs: Jobs) -> None:
    app = create_app(web_settings(web_url, JOBRUNNER_MAX_ATTEMPTS=5))

    response = app.test_client().post("/predict", json={"text": "I love it"})

    assert jobs.get(response.get_json()["job_id"])["max_attempts"] == 5
    app.extensions["database"].close()


@properties
@given(text=texts)
def test_every_valid_text_is_accepted_and_stored_exactly(
    text: str, predict: Predict, jobs: Jobs
) -> None:
    response = predict(text)

    assert response.status_code == 202
    assert jobs.get(response.get_json()["job_id"])["input"] == {"text": text}


@properties
@given(
    text=st.one_of(
        st.text(st.sampled_from(" \t\r\n\f\v\u00a0\u2003\u3000\u2028"), max_size=20),
        st.tuples(texts, texts).map("\0".join),
        st.tuples(texts, st.characters(categories=["Cs"]), texts)
        .map("".join)
        .filter(lambda text: not can_be_encoded(text)),
        st.integers(10_001, 12_000).map(lambda size: "x" * size),
        st.none() | st.booleans() | st.integers() | st.lists(texts) | st.dictionaries(texts, texts),
    )
)
def test_every_other_text_is_refused_and_named(text: Any, predict: Predict, jobs: Jobs) -> None:
    response = predict(text)

    assert_refused(response, 422)
    assert pointers(response) == ["/text"]
    assert jobs.count() == 0


def can_be_encoded(text: str) -> bool:
    # As JSON, a high and a low surrogate side by side are one good character.
    try:
        json.loads(json.dumps(text)).encode()
    except UnicodeEncodeError:
        return False
    return True


@pytest.mark.parametrize("text", ["x", "x" * 10_000, "😀" * 10_000, " a ", "\ufeffa", "\U0010ffff"])
def test_a_text_of_1_to_10000_characters_is_accepted(
    text: str, predict: Predict, jobs: Jobs
) -> None:
    response = predict(text)

    assert jobs.get(response.get_json()["job_id"])["input"] == {"text": text}


def test_an_escaped_pair_of_surrogates_is_one_character(client: FlaskClient, jobs: Jobs) -> None:
    body = b'{"text": "\\ud83d\\ude00"}'

    response = client.post("/predict", data=body, content_type="application/json")

    assert jobs.get(response.get_json()["job_id"])["input"] == {"text": "😀"}


@pytest.mark.parametrize(
    ("given", "stored"), [("8", 8), ("8.0", 8), ("-1e2", -100), ("100", 100), ("-0.0", 0)]
)
def test_a_priority_is_any_number_that_is_an_integer(
    given: str, stored: int, client: FlaskClient, jobs: Jobs
) -> None:
    body = f'{{"text": "x", "priority": {given}}}'

    response = client.post("/predict", data=body, content_type="application/json")

    assert jobs.get(response.get_json()["job_id"])["priority"] == stored


@pytest.mark.parametrize(
    "given", ["101", "-101", "8.5", '"8"', "true", "null", "[]", "1e999", "-1e400", "9" * 30]
)
def test_any_other_priority_is_refused(given: str, client: FlaskClient, jobs: Jobs) -> None:
    body = f'{{"text": "x", "priority": {given}}}'

    response = client.post("/predict", data=body, content_type="application/json")

    assert_refused(response, 422)
    assert pointers(response) == ["/priority"]
    assert jobs.count() == 0


@pytest.mark.parametrize(
    "name", ["nobody", "", "Sentiment", "sentiment ", "\ud800", "\0", "x" * 9999]
)
def test_a_model_that_was_never_registered_is_refused(name: str, predict: Predict) -> None:
    response = predict(model=name)

    assert_refused(response, 422)
    assert pointers(response) == ["/model"]


def test_a_model_is_known_within_moments_of_its_registration(
    predict: Predict, db: psycopg.Connection[Any]
) -> None:
    predict()
    db.execute("insert into model (name) values ('spam')")

    wait_for(lambda: predict(model="spam").status_code == 202, "spam is known", seconds=10)


@pytest.mark.parametrize(
    ("body", "found"),
    [
        ({}, ["/text"]),
        ({"txt": "x"}, ["/text", "/txt"]),
        ({"text": 1, "model": 2, "priority": "3"}, ["/text", "/model", "/priority"]),
        ({"text": "x", "a/b~c": 1}, ["/a~1b~0c"]),
        ({"text": "x", "\ud800": 1}, ["/?"]),
        ({"text": "x", "": 1}, ["/"]),
        ({"text": "x", "status": "completed"}, ["/status"]),
        ({"text": "x", "max_attempts": 99}, ["/max_attempts"]),
        ([], [""]),
        ("text", [""]),
        (None, [""]),
        (5, [""]),
    ],
)
def test_each_field_at_fault_is_pointed_at(
    body: object, found: list[str], client: FlaskClient, jobs: Jobs
) -> None:
    response = client.post("/predict", data=json.dumps(body), content_type="application/json")

    assert_refused(response, 422)
    assert pointers(response) == found
    assert jobs.count() == 0


def test_a_body_of_hostile_fields_is_answered_in_brief(client: FlaskClient) -> None:
    fields = {f"{number}\0\ud800" + "x" * 200: number for number in range(4000)}

    response = client.post("/predict", json={"text": "x"} | fields)

    assert_refused(response, 422)
    assert len(response.get_json()["errors"]) == 20
    assert len(response.data) < 6000


def test_a_refusal_never_repeats_what_was_sent(client: FlaskClient) -> None:
    secret = "my-secret-diary"
    body = {"text": [secret], "model": secret, "priority": secret}

    response = client.post("/predict", json=body)

    assert_refused(response, 422)
    assert secret not in response.get_data(as_text=True)


def test_a_full_queue_takes_no_more_and_says_when_to_come_back(web_url: str, jobs: Jobs) -> None:
    app = create_app(web_settings(web_url, JOBRUNNER_MAX_PENDING=3))
    for status in ("pending", "pending", "pending", "processing", "completed"):
        jobs.add(status=status)

    response = app.test_client().post("/predict", json={"text": "I love it"})

    assert_refused(response, 429)
    assert int(response.headers["Retry-After"]) >= 1
    assert jobs.count() == 5
    app.extensions["database"].close()


def test_a_queue_that_is_not_full_takes_more(web_url: str, jobs: Jobs) -> None:
    app = create_app(web_settings(web_url, JOBRUNNER_MAX_PENDING=3))
    for status in ("pending", "pending", "processing", "completed"):
        jobs.add(status=status)

    response = app.test_client().post("/predict", json={"text": "I love it"})

    assert response.status_code == 202
    app.extensions["database"].close()


@pytest.mark.parametrize(
    ("seconds", "workers", "waiting", "retry_after"),
    [(5, 2, 0, 5), (5, 2, 4, 15), (0.01, 2, 0, 1), (60, 1, 9, 30)],
)
def test_retry_after_follows_the_queue_and_the_runners(
    seconds: float,
    workers: int,
    waiting: int,
    retry_after: int,
    predict: Predict,
    jobs: Jobs,
) -> None:
    add_crew(jobs, workers=workers, seconds=seconds)
    for _ in range(waiting):
        jobs.add()

    response = predict()

    assert int(response.headers["Retry-After"]) == retry_after


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
def test_a_full_disk_for_logs_fails_no_request(
    predict: Predict, jobs: Jobs, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO, "web")
    with Path("/dev/full").open("wb") as full:
        monkeypatch.setattr(logs, "STDERR", full.fileno())

        assert predict().status_code == 202

    assert jobs.count("pending") == 1
