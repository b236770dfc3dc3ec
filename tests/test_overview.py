"""GET /models, /runners, /stats: how the service stands."""

from typing import Any

from flask.testing import FlaskClient

from helpers import Jobs


def get(client: FlaskClient, path: str) -> Any:
    response = client.get(path)
    assert response.status_code == 200
    return response.get_json()


def test_each_model_shows_its_queue_and_who_serves_it(client: FlaskClient, jobs: Jobs) -> None:
    jobs.db.execute("insert into model (name) values ('other')")
    jobs.add_runner("here-1-abcd")
    jobs.add(created="90 s")
    jobs.add(due_in="60 s")
    jobs.add(status="processing", claimed_by="here-1-abcd")
    jobs.add(status="completed")

    other, sentiment = get(client, "/models")["models"]

    assert (other["model"], other["pending"], other["runners"]) == ("other", 0, 0)
    assert other["oldest_pending_seconds"] is None
    assert sentiment["model"] == "sentiment"
    assert (sentiment["pending"], sentiment["waiting_to_retry"]) == (2, 1)
    assert (sentiment["processing"], sentiment["runners"], sentiment["workers"]) == (1, 1, 2)
    assert 89 < sentiment["oldest_pending_seconds"] < 120


def test_each_runner_shows_what_it_does(client: FlaskClient, jobs: Jobs) -> None:
    jobs.add_runner("here-1-abcd")
    jobs.add(status="processing", claimed_by="here-1-abcd")
    jobs.add_runner("there-1-abcd", heartbeat_ago="60 s")

    shown = {each["runner"]: each for each in get(client, "/runners")["runners"]}

    assert (shown["here-1-abcd"]["state"], shown["here-1-abcd"]["busy"]) == ("working", 1)
    assert shown["there-1-abcd"]["state"] == "silent"
    assert shown["there-1-abcd"]["models"] == ["sentiment"]
    assert "pid" not in shown["here-1-abcd"]


def test_the_whole_is_summed_up(client: FlaskClient, jobs: Jobs) -> None:
    assert get(client, "/stats") == {
        "pending": 0,
        "waiting_to_retry": 0,
        "processing": 0,
        "oldest_pending_seconds": None,
        "jobs_per_second": 0.0,
        "runners": 0,
        "workers": 0,
    }
    jobs.add_runner("here-1-abcd")
    jobs.add_many(3)

    stats = get(client, "/stats")

    assert (stats["pending"], stats["runners"], stats["workers"]) == (3, 1, 2)
