"""Progress: what a model says of how far it is reaches who waits."""

import json
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
from click.testing import CliRunner

from helpers import Jobs, wait_for
from jobrunner import progress, queue
from jobrunner.cli import main
from jobrunner.outcome import Job, Outcome
from jobrunner.progress import Progress, Reporter
from processes import System, system

TESTS = str(Path(__file__).parent)
HALF = Progress(0.5, "half")
RESULT = '{"sentiment": "positive", "confidence": 0.95}'


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What time it is for the reporter."""
    now = [100.0]
    monkeypatch.setattr(progress, "monotonic", lambda: now[0])
    return now


def claimed(jobs: Jobs) -> Job:
    """A job in work."""
    job_id = jobs.add(status="processing")
    row = jobs.get(job_id)
    return Job(str(job_id), str(row["lease_token"]), row["model"], "{}", row["attempt"])


def told(jobs: Jobs) -> list[Any]:
    query = "select job_id::text, attempt, fraction, word from job_progress order by 1"
    return jobs.db.execute(query).fetchall()


def test_what_is_said_of_a_job_in_hand_is_written_down(jobs: Jobs) -> None:
    job, reporter = claimed(jobs), Reporter()

    reporter.note([(job, Progress(0.25, "a quarter")), (job, HALF)])
    reporter.tell(jobs.db, [job])

    assert told(jobs) == [(job.id, job.attempt, 0.5, "half")]


def test_it_is_told_once_a_second_at_most(jobs: Jobs, clock: list[float]) -> None:
    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])
    reporter.note([(job, Progress(0.6, "more"))])

    assert not reporter.due
    assert reporter.tell_at == [101.0]
    clock[0] = 101.0
    assert reporter.due


def test_it_is_forgotten_when_the_job_is_not_in_hand_any_more(
    jobs: Jobs, clock: list[float]
) -> None:
    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])

    clock[0] += 1
    assert reporter.due
    reporter.tell(jobs.db, [])

    assert told(jobs) == []
    clock[0] += 1
    assert not reporter.due


def test_it_is_told_though_somebody_holds_what_is_to_be_forgotten(
    owner_url: str, jobs: Jobs, clock: list[float]
) -> None:
    over, job, reporter = claimed(jobs), claimed(jobs), Reporter()
    reporter.note([(over, HALF)])
    reporter.tell(jobs.db, [over])
    reporter.note([(job, HALF)])
    with psycopg.connect(owner_url) as holder:
        holder.execute("select from job_progress for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            reporter.tell(jobs.db, [job])

    assert [job_id for job_id, *_ in told(jobs)] == sorted([over.id, job.id])
    reporter.tell(jobs.db, [job])
    assert [job_id for job_id, *_ in told(jobs)] == [job.id]


def test_what_was_told_and_its_answer_lost_is_forgotten_as_well(
    jobs: Jobs, clock: list[float]
) -> None:
    @contextmanager
    def lost(connection: queue.Connection) -> Iterator[None]:
        yield
        raise psycopg.OperationalError("no answer from the database in time")

    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(progress, "brief", lost)
        with pytest.raises(psycopg.OperationalError):
            reporter.tell(jobs.db, [job])
    assert [job_id for job_id, *_ in told(jobs)] == [job.id]

    clock[0] += 1
    assert reporter.due
    reporter.tell(jobs.db, [])

    assert told(jobs) == []


def test_what_was_left_behind_is_deleted_once_its_job_is_final_or_a_day_is_over(
    jobs: Jobs,
) -> None:
    final, old, fresh = claimed(jobs), claimed(jobs), claimed(jobs)
    for job in (final, old, fresh):
        reporter = Reporter()
        reporter.note([(job, HALF)])
        reporter.tell(jobs.db, [job])
    queue.complete(jobs.db, [Outcome(final, 0.1, result=RESULT)])
    age = "update job_progress set updated_at = now() - interval '25 hours' where job_id = %s"
    jobs.db.execute(age, [old.id])

    progress.delete_old(jobs.db)

    assert [job_id for job_id, *_ in told(jobs)] == [fresh.id]


def test_nothing_is_written_for_a_claim_that_does_not_hold(jobs: Jobs) -> None:
    job, reporter = claimed(jobs), Reporter()
    job.lease_token = str(uuid4())

    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])

    assert told(jobs) == []


def test_what_was_said_of_a_former_attempt_is_not_shown(client: Any, jobs: Jobs) -> None:
    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])
    address = f"/jobs/{job.id}"
    assert client.get(address).get_json()["progress"] == {"fraction": 0.5, "word": "half"}

    jobs.db.execute("update job_progress set attempt = attempt - 1")

    assert client.get(address).get_json()["progress"] is None


def test_what_was_said_before_the_job_was_started_again_is_not_shown(
    client: Any, jobs: Jobs
) -> None:
    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])

    jobs.db.execute("update job_progress set updated_at = updated_at - interval '1 hour'")

    assert client.get(f"/jobs/{job.id}").get_json()["progress"] is None


def test_what_a_killed_runner_left_behind_is_deleted_after_a_day(jobs: Jobs) -> None:
    job, reporter = claimed(jobs), Reporter()
    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])
    progress.delete_old(jobs.db)
    assert len(told(jobs)) == 1

    jobs.db.execute("update job_progress set updated_at = updated_at - interval '25 hours'")
    progress.delete_old(jobs.db)

    assert told(jobs) == []


def test_progress_changes_the_etag(client: Any, jobs: Jobs) -> None:
    job, reporter = claimed(jobs), Reporter()
    before = client.get(f"/jobs/{job.id}").headers["ETag"]

    reporter.note([(job, HALF)])
    reporter.tell(jobs.db, [job])

    assert client.get(f"/jobs/{job.id}").headers["ETag"] != before


@pytest.mark.process
def test_it_reaches_the_reader_the_stream_and_the_operator(
    services: System, web_url: str, owner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    model = "telling=batching_models:Telling"
    services.runner("--workers", "1", "--model", model, PYTHONPATH=TESTS)
    web = services.web(web_url)
    end = tmp_path / "end"
    [(job_id,)] = jobs.db.execute(
        "insert into job (model, input) values ('telling', %s) returning id",
        [json.dumps({"text": str(end)})],
    ).fetchall()
    events = seen_in_stream(f"{web.base}/jobs/{job_id}/events")

    first = next(event for event in events if event["progress"])
    later = next(event for event in events if event["progress"] != first["progress"])

    assert later["progress"]["fraction"] > first["progress"]["fraction"]
    assert web.get(f"/jobs/{job_id}")[1]["progress"]["word"].startswith("step ")
    status = CliRunner().invoke(main, ["status", "--json"], env={"DATABASE_URL": owner_url})
    [said] = json.loads(status.output)["progress"]
    assert (said["job"], said["model"]) == (str(job_id), "telling")
    shown = CliRunner().invoke(main, ["show", str(job_id)], env={"DATABASE_URL": owner_url})
    assert "step " in shown.output
    end.touch()
    last = list(events)[-1]
    assert (last["status"], last["progress"]) == ("completed", None)
    wait_for(lambda: told(jobs) == [], "nothing is left")


@pytest.mark.process
def test_work_goes_on_while_somebody_holds_the_table(
    services: System, owner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    model = "telling=batching_models:Telling"
    runner = services.runner("--workers", "1", "--model", model, PYTHONPATH=TESTS)
    end = tmp_path / "end"
    with psycopg.connect(owner_url) as holder:
        holder.execute("lock table job_progress in share mode")
        job_id = jobs.add(str(end), model="telling")
        wait_for(lambda: runner.lines("progress_not_told"), "it was refused")
        end.touch()
        jobs.wait(job_id, "completed")

    refusals = [line for line in runner.log.splitlines() if "progress_not_told" in line]
    # As against a statement that is ended after all of its time.
    assert all("canceling statement due to lock timeout" in line for line in refusals)
    assert runner.lines("database_lost") == []


def seen_in_stream(address: str) -> Iterator[Any]:
    with urllib.request.urlopen(address, timeout=30) as stream:
        for line in stream:
            if line.startswith(b"data: "):
                yield json.loads(line.removeprefix(b"data: "))
