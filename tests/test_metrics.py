"""GET /metrics: true, the same from every process, and in the words that Prometheus expects."""

import re
import signal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from flask.testing import FlaskClient
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as parse_openmetrics,
)
from prometheus_client.parser import text_string_to_metric_families as parse

from helpers import Jobs, wait_for
from jobrunner import activity
from jobrunner.activity import Activity
from jobrunner.database import BoundedConnection
from jobrunner.outcome import Failure, Job, Outcome
from processes import TOLD, system
from web_server import WebServer, add_crew

OPENMETRICS = "application/openmetrics-text"

# As long as there was no batch_sizes: with all the columns of then, and no others.
RECORD_OF_BEFORE = """
    insert into activity (
        model, minute, completed, failed, retried, released, rescued,
        waits, wait_seconds, inferences, inference_seconds, calls
    )
    select %(model)s, '-infinity', 2, 0, 0, 0, 0, none.counts, 0, none.counts, 0, 0
    from (
        select array_fill(0::bigint, array[cardinality(histogram_bounds()) + 1])
    ) as none (counts)
    on conflict (model, minute) do update
    set completed = activity.completed + excluded.completed
"""


def samples(text: str) -> dict[str, float]:
    """Each sample of the model sentiment by its name and its other labels."""
    found = {}
    for sample in (sample for family in parse(text) for sample in family.samples):
        labels = dict(sample.labels)
        if labels.pop("model") == "sentiment":
            found[" ".join([sample.name, *labels.values()])] = sample.value
    return found


def scraped(client: FlaskClient) -> dict[str, float]:
    response = client.get("/metrics")
    assert response.status_code == 200
    return samples(response.get_data(as_text=True))


def outcome(seconds: float | None, failure: Failure | None = None, job_id: str = "a") -> Outcome:
    return Outcome(Job(job_id, "", "sentiment", "{}", 1), seconds, "{}", failure)


def test_they_say_how_the_queue_stands(client: FlaskClient, jobs: Jobs) -> None:
    add_crew(jobs, workers=3, seconds=5)
    jobs.add(created="90 s")
    jobs.add(due_in="1 hour")
    jobs.add(status="processing")
    jobs.add(status="completed")

    found = scraped(client)

    assert found["jobrunner_jobs pending"] == 2
    assert found["jobrunner_jobs processing"] == 1
    assert found["jobrunner_jobs_waiting_to_retry"] == 1
    assert 90 <= found["jobrunner_oldest_pending_seconds"] < 100
    assert (found["jobrunner_runners"], found["jobrunner_workers"]) == (1, 3)


def test_an_idle_service_has_metrics_too(client: FlaskClient, jobs: Jobs) -> None:
    found = scraped(client)

    assert found["jobrunner_jobs pending"] == found["jobrunner_oldest_pending_seconds"] == 0
    assert found["jobrunner_runners"] == 0
    assert found["jobrunner_attempts_total completed"] == found["jobrunner_rescues_total"] == 0
    assert found["jobrunner_wait_seconds_count"] == found["jobrunner_wait_seconds_bucket +Inf"] == 0


def test_each_has_a_help_and_the_type_of_its_name(client: FlaskClient, jobs: Jobs) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_released("sentiment", "pending")
    counted.record(jobs.db)

    response = client.get("/metrics")

    assert response.headers["Content-Type"].startswith("text/plain; version=")
    families = list(parse(response.get_data(as_text=True)))
    assert {family.name: family.type for family in families} == {
        "jobrunner_jobs": "gauge",
        "jobrunner_oldest_pending_seconds": "gauge",
        "jobrunner_jobs_waiting_to_retry": "gauge",
        "jobrunner_runners": "gauge",
        "jobrunner_workers": "gauge",
        "jobrunner_attempts": "counter",
        "jobrunner_releases": "counter",
        "jobrunner_rescues": "counter",
        "jobrunner_model_calls": "counter",
        "jobrunner_wait_seconds": "histogram",
        "jobrunner_inference_seconds": "histogram",
        "jobrunner_batch_size": "histogram",
    }
    assert all(family.documentation for family in families)


@pytest.mark.parametrize("version", ["", "; version=1.0.0", '; version="1.0.0"', "; version=x"])
def test_who_wants_openmetrics_gets_it(version: str, client: FlaskClient, jobs: Jobs) -> None:
    response = client.get("/metrics", headers={"Accept": OPENMETRICS + version})

    assert response.mimetype == "application/openmetrics-text"
    assert list(parse_openmetrics(response.get_data(as_text=True)))


def test_what_runners_have_done_adds_up(client: FlaskClient, jobs: Jobs) -> None:
    one, other = Activity(), Activity()
    for counted in (one, other):
        counted.begin(jobs.db)
        counted.add_waits("sentiment", [0.001, 0.005, 0.0051, 7, 100_000])
        done = [outcome(0.3), outcome(4, Failure("model_error", ""), "b"), outcome(None, None, "c")]
        counted.add_outcomes(done, {"a": "completed", "b": "pending", "c": "failed"})
        for status in ("pending", "pending", "failed"):
            counted.add_released("sentiment", status)
        counted.add_rescued("sentiment", "pending")
        counted.record(jobs.db)
        counted.record(jobs.db)

    found = scraped(client)

    assert found["jobrunner_attempts_total completed"] == 2
    assert found["jobrunner_attempts_total retried"] == 4
    assert found["jobrunner_attempts_total failed"] == 4
    assert found["jobrunner_releases_total"] == 4
    assert found["jobrunner_rescues_total"] == 2
    assert found["jobrunner_model_calls_total"] == 4
    assert found["jobrunner_wait_seconds_bucket 0.005"] == 4
    assert found["jobrunner_wait_seconds_bucket 0.01"] == 6
    assert found["jobrunner_wait_seconds_bucket 10.0"] == 8
    assert found["jobrunner_wait_seconds_bucket 1800.0"] == 8
    assert found["jobrunner_wait_seconds_bucket +Inf"] == 10
    assert found["jobrunner_wait_seconds_count"] == 10
    assert found["jobrunner_wait_seconds_sum"] == pytest.approx(200_014.0222)
    assert found["jobrunner_inference_seconds_count"] == 4
    assert found["jobrunner_inference_seconds_bucket 0.5"] == 2
    assert found["jobrunner_inference_seconds_sum"] == pytest.approx(8.6)


def test_what_is_done_while_the_counts_are_recorded_is_counted_the_next_time(
    client: FlaskClient, jobs: Jobs, runner: BoundedConnection
) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_waits("sentiment", [0.001])
    released = iter(["pending"])

    def release_one(_: int) -> None:
        for status in released:
            counted.add_released("sentiment", status)

    runner.meanwhile = release_one
    counted.record(runner)
    assert scraped(client)["jobrunner_wait_seconds_count"] == 1
    assert scraped(client)["jobrunner_releases_total"] == 0

    counted.record(runner)

    assert scraped(client)["jobrunner_wait_seconds_count"] == 1
    assert scraped(client)["jobrunner_releases_total"] == 1


def test_counts_that_were_refused_are_kept_with_what_was_counted_meanwhile(
    client: FlaskClient, jobs: Jobs, runner: BoundedConnection
) -> None:
    counted, waited = Activity(), []
    counted.begin(jobs.db)
    counted.add_waits("sentiment", [0.001])
    counted.record(runner)

    def release_one(answer: int) -> None:
        waited.append(answer)
        counted.add_released("sentiment", "pending")

    counted.add_waits("sentiment", [0.001, 7])
    runner.meanwhile = release_one
    with jobs.db.transaction():
        jobs.db.execute("select from activity for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            counted.record(runner)
    runner.meanwhile = None
    counted.record(runner)

    found = scraped(client)
    assert found["jobrunner_wait_seconds_count"] == 3
    assert found["jobrunner_wait_seconds_bucket 0.005"] == 2
    assert found["jobrunner_releases_total"] == len(waited) > 0


def test_calls_are_counted_by_their_size_once_all_of_their_jobs_have_ended(
    client: FlaskClient, jobs: Jobs
) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    sizes = [1, 1, 3, 3, 3, 1000, 3, 3]
    for size in sizes:
        done = outcome(0.3)
        done.batch_size = size
        counted.add_outcomes([done], {"a": "completed"})
    counted.record(jobs.db)

    found = scraped(client)
    assert found["jobrunner_batch_size_bucket 1.0"] == 2
    assert found["jobrunner_batch_size_bucket 2.0"] == 2
    assert found["jobrunner_batch_size_bucket 4.0"] == found["jobrunner_batch_size_count"] == 3
    assert found["jobrunner_batch_size_sum"] == 5

    last = outcome(0.3)
    last.batch_size = 3
    counted.add_outcomes([last], {"a": "completed"})
    counted.record(jobs.db)

    assert scraped(client)["jobrunner_batch_size_bucket 4.0"] == 4


def test_a_runner_of_before_counts_on_beside_a_new_one(client: FlaskClient, jobs: Jobs) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_outcomes([outcome(0.3)], {"a": "completed"})
    counted.record(jobs.db)

    for model in ("sentiment", "another"):
        jobs.db.execute(RECORD_OF_BEFORE, {"model": model})

    found = scraped(client)
    assert found["jobrunner_attempts_total completed"] == 3
    assert found["jobrunner_batch_size_count"] == found["jobrunner_batch_size_sum"] == 1


def test_what_could_not_be_recorded_is_recorded_later(jobs: Jobs, web_url: str) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_rescued("sentiment", "pending")

    with (
        psycopg.connect(web_url, autocommit=True) as web,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        counted.record(web)
    counted.record(jobs.db)

    query = "select rescued from activity order by minute"
    assert jobs.db.execute(query).fetchall() == [(1,), (1,)]


@pytest.mark.process
def test_work_goes_on_while_somebody_holds_the_counts(
    web_url: str, runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_rescued("sentiment", "pending")
    counted.record(jobs.db)
    with system(runner_url, tmp_path) as services, jobs.db.transaction():
        jobs.db.execute("select from activity for update")
        runner = services.runner(MOCK_DELAY_SECONDS=0)
        with psycopg.connect(web_url, autocommit=True) as web:
            refused = "activity_not_recorded"
            wait_for(lambda: submitted(web) and len(runner.lines(refused)) > 1, "it is refused")
            done = len(runner.lines("completed"))
            wait_for(lambda: submitted(web) and len(runner.lines("completed")) > done + 5, "more")

    assert done > 5
    assert runner.lines("database_lost") == []


@pytest.mark.process
def test_a_runner_that_may_not_touch_the_counts_works_on(
    runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    jobs.db.execute("revoke all on activity from job_runner")
    try:
        with system(runner_url, tmp_path) as services:
            runner = services.runner(MOCK_DELAY_SECONDS=0)
            wait_for(lambda: runner.lines("activity_not_deleted"), "it has tried to clean")
            jobs.wait(jobs.add(), "completed")
    finally:
        jobs.db.execute("grant select, insert, update, delete on activity to job_runner")

    assert runner.lines("database_refused") == []


@pytest.mark.process
def test_a_runner_that_stops_tells_what_it_has_done(
    runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    with system(runner_url, tmp_path) as services:
        runner = services.runner(MOCK_DELAY_SECONDS=0)
        for job_id in jobs.add_many(5):
            jobs.wait(job_id, "completed")
        runner.send(signal.SIGTERM)
        assert runner.wait() == 0

    query = "select completed from activity where minute = '-infinity'"
    assert jobs.db.execute(query).fetchall() == [(5,)]


def submitted(web: psycopg.Connection[Any]) -> bool:
    web.execute('insert into job (input) values (\'{"text": "good"}\')')
    return True


def test_minutes_are_kept_for_two_days_and_the_sum_for_ever(jobs: Jobs) -> None:
    counted = Activity()
    counted.begin(jobs.db)
    counted.add_rescued("sentiment", "pending")
    counted.record(jobs.db)
    jobs.db.execute("update activity set minute = minute - interval '49 hours'")
    counted.add_rescued("sentiment", "pending")
    counted.record(jobs.db)

    activity.delete_old(jobs.db)

    query = "select minute = '-infinity', rescued from activity order by minute"
    assert jobs.db.execute(query).fetchall() == [(True, 2), (False, 1)]


@pytest.mark.process
def test_of_several_web_processes_each_says_what_the_runners_did(
    web_url: str, runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    def totals() -> list[dict[str, float]]:
        return [samples(web.send("GET", "/metrics").body.decode()) for _ in range(6)]

    with (
        WebServer(web_url, WEB_CONCURRENCY="3") as web,
        system(runner_url, tmp_path) as services,
    ):
        runner = services.runner(*TOLD)
        ids = [web.predict(text=text).json["job_id"] for text in ("good", "good", "raise")]
        for job_id in ids[:2]:
            jobs.wait(job_id, "completed")
        wait_for(lambda: jobs.get(ids[2])["errors"], "the third has failed once")
        wait_for(
            lambda: totals()[0].get("jobrunner_attempts_total retried", 0) >= 1,
            "the runner has told of it",
        )
        runner.send(signal.SIGTERM)
        runner.process.wait(15)
        found = totals()

    # Not the gauges: the third is still due to be tried again at some time.
    counts = re.compile(r"_(total|count|sum|bucket)( |$)")
    counted = [{name: each[name] for name in each if counts.search(name)} for each in found]
    assert all(each == counted[0] for each in counted)
    assert found[0]["jobrunner_attempts_total completed"] == 2
    assert found[0]["jobrunner_wait_seconds_count"] >= 3
    assert 0 < found[0]["jobrunner_wait_seconds_sum"] < 60
    assert found[0]["jobrunner_runners"] == 0


def activity_of(db: psycopg.Connection[Any]) -> list[tuple[Any, ...]]:
    return db.execute("select * from activity").fetchall()


def test_a_histogram_that_is_not_complete_is_refused(jobs: Jobs) -> None:
    with pytest.raises(psycopg.errors.CheckViolation, match="histograms_are_complete"):
        jobs.db.execute(
            """
            insert into activity
            values ('sentiment', now(), 0, 0, 0, 0, 0, '{1}', 0, '{1}', 0)
            """
        )

    assert activity_of(jobs.db) == []
