"""POST /predict/batch and GET /batches/<id>: many texts, all or none, in their order."""

from typing import Any

import pytest
from flask.testing import FlaskClient

from helpers import Jobs
from web_server import add_crew

UNKNOWN = "3f2b8c1e-5a4d-4e7f-9b6a-1c2d3e4f5a6b"


def submit(client: FlaskClient, items: list[dict[str, Any]]) -> Any:
    return client.post("/predict/batch", json={"items": items}).get_json()


def test_the_jobs_of_a_batch_come_in_the_order_given(client: FlaskClient, jobs: Jobs) -> None:
    items = [{"text": f"text {place % 7}", "priority": place % 3} for place in range(1000)]

    response = client.post("/predict/batch", json={"items": items})

    accepted = response.get_json()
    assert response.status_code == 202
    assert set(accepted) == {"batch_id", "job_ids"}
    assert response.headers["Location"] == f"/batches/{accepted['batch_id']}"
    assert 1 <= int(response.headers["Retry-After"]) <= 30
    rows = {
        str(row[0]): row[1:]
        for row in jobs.db.execute("select id, input, priority, batch_id::text, status from job")
    }
    assert len(rows) == 1000
    for item, job_id in zip(items, accepted["job_ids"], strict=True):
        text, priority, batch_id, status = rows[job_id]
        assert text == {"text": item["text"]}
        assert (priority, batch_id, status) == (item["priority"], accepted["batch_id"], "pending")


def test_a_batch_says_how_many_are_in_which_status(client: FlaskClient, jobs: Jobs) -> None:
    accepted = submit(client, [{"text": "good"}] * 4)
    first, second, third, _ = accepted["job_ids"]
    for job_id in (first, second):
        jobs.start(job_id)
    jobs.finish(first)
    client.post(f"/jobs/{third}/cancel")

    batch = client.get(f"/batches/{accepted['batch_id']}")

    assert batch.get_json() == {
        "batch_id": accepted["batch_id"],
        "total": 4,
        "pending": 1,
        "processing": 1,
        "completed": 1,
        "failed": 1,
    }
    assert client.get(f"/jobs/{first}").get_json()["batch_id"] == accepted["batch_id"]


def test_a_batch_that_is_known_is_not_sent_again(client: FlaskClient, jobs: Jobs) -> None:
    accepted = submit(client, [{"text": "good"}] * 2)
    path = f"/batches/{accepted['batch_id']}"
    known = {"If-None-Match": client.get(path).headers["ETag"]}

    again = client.get(path, headers=known)
    assert (again.status_code, again.data) == (304, b"")

    jobs.start(accepted["job_ids"][0])
    changed = client.get(path, headers=known)
    assert (changed.status_code, changed.get_json()["processing"]) == (200, 1)


@pytest.mark.parametrize("batch_id", [UNKNOWN, "x", UNKNOWN.replace("-", "")])
def test_a_batch_that_is_not_there_is_not_found(client: FlaskClient, batch_id: str) -> None:
    response = client.get(f"/batches/{batch_id}")

    assert response.status_code == 404
    assert response.get_json()["detail"] == "There is no such batch."


def test_each_bad_item_is_named_and_none_is_accepted(client: FlaskClient, jobs: Jobs) -> None:
    items = [
        {"text": "good"},
        {"text": " "},
        {"text": "good", "priority": 101},
        {"text": "good", "more": 1},
        {},
        "good",
    ]

    response = client.post("/predict/batch", json={"items": items})

    assert response.status_code == 422
    assert {error["pointer"] for error in response.get_json()["errors"]} == {
        "/items/1/text",
        "/items/2/priority",
        "/items/3/more",
        "/items/4/text",
        "/items/5",
    }
    assert jobs.count() == 0


def test_a_model_that_was_never_there_is_named(client: FlaskClient, jobs: Jobs) -> None:
    items = [{"text": "good"}, {"text": "good", "model": "oracle"}]

    response = client.post("/predict/batch", json={"items": items})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["/items/1/model"]
    assert jobs.count() == 0


@pytest.mark.parametrize("items", [[], [{"text": "good"}] * 1001, "good", None, {"0": "good"}])
def test_what_is_no_list_of_1_to_1000_is_refused(
    client: FlaskClient, jobs: Jobs, items: Any
) -> None:
    response = client.post("/predict/batch", json={"items": items})

    assert response.status_code == 422
    assert [error["pointer"] for error in response.get_json()["errors"]] == ["/items"]
    assert jobs.count() == 0


def test_a_batch_says_when_its_last_job_should_be_done(client: FlaskClient, jobs: Jobs) -> None:
    add_crew(jobs, workers=2, seconds=3.0)

    response = client.post("/predict/batch", json={"items": [{"text": "good"}] * 11})

    assert response.headers["Retry-After"] == "18"


def test_a_hostile_batch_is_not_answered_at_great_length(client: FlaskClient, jobs: Jobs) -> None:
    def faults(items: int, unknown: int) -> int:
        hostile = {"text": "good"} | {str(number): 1 for number in range(unknown)}
        response = client.post("/predict/batch", json={"items": [hostile] * items})
        assert response.status_code == 422
        return len(response.get_json()["errors"])

    assert faults(1, 50_000) == 20
    assert faults(3, 30) == 60
    assert faults(1000, 30) == 1000
