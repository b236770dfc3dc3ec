"""POST /jobs/<id>/retry: a failed job once more, as a new one."""

import pytest
from flask.testing import FlaskClient

from helpers import Jobs

UNKNOWN = "0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"


def test_a_failed_job_is_submitted_anew(client: FlaskClient, jobs: Jobs) -> None:
    old = jobs.add("once more", status="failed", priority=7, max_attempts=5)

    response = client.post(f"/jobs/{old}/retry")

    job = response.get_json()
    assert response.status_code == 202
    assert response.headers["Location"] == f"/jobs/{job['job_id']}"
    assert (job["status"], job["retry_of"], job["attempt"]) == ("pending", old, 0)
    row = jobs.get(job["job_id"])
    assert (row["input"], row["model"], row["priority"]) == (
        {"text": "once more"}, "sentiment", 7,
    )  # fmt: skip
    assert row["max_attempts"] == 3
    assert jobs.status(old) == "failed"


@pytest.mark.parametrize("status", ["pending", "processing", "completed"])
def test_a_job_that_has_not_failed_can_not_be_retried(
    client: FlaskClient, jobs: Jobs, status: str
) -> None:
    response = client.post(f"/jobs/{jobs.add(status=status)}/retry")

    assert response.status_code == 409
    assert response.content_type == "application/problem+json"
    assert status in response.get_json()["detail"]
    assert jobs.count() == 1


@pytest.mark.parametrize("job_id", [UNKNOWN, "x"])
def test_a_job_that_is_not_there_can_not_be_retried(client: FlaskClient, job_id: str) -> None:
    assert client.post(f"/jobs/{job_id}/retry").status_code == 404


def test_a_retry_that_is_repeated_with_its_key_gives_the_same_job(
    client: FlaskClient, jobs: Jobs
) -> None:
    first, other = jobs.add(status="failed"), jobs.add(status="failed")
    key = {"Idempotency-Key": "again"}

    answers = [client.post(f"/jobs/{first}/retry", headers=key) for _ in range(3)]

    assert [each.status_code for each in answers] == [202] * 3
    assert len({each.headers["Location"] for each in answers}) == 1
    assert client.post(f"/jobs/{first.upper()}/retry", headers=key).status_code == 202
    assert client.post(f"/jobs/{other}/retry", headers=key).status_code == 422
    assert jobs.count("pending") == 1


def test_a_key_is_that_of_the_job_s_client_whoever_retries_it(
    client: FlaskClient, jobs: Jobs
) -> None:
    old, key = jobs.add(status="failed"), {"Idempotency-Key": "again"}
    jobs.db.execute("alter table job disable trigger user")
    jobs.db.execute("update job set client_id = 'shop'")
    jobs.db.execute("alter table job enable trigger user")

    answers = [client.post(f"/jobs/{old}/retry", headers=key) for _ in range(2)]

    assert [each.status_code for each in answers] == [202] * 2
    assert jobs.count("pending") == 1
    assert jobs.get(answers[0].get_json()["job_id"])["client_id"] == "shop"
