"""Batches through a real runner: how they form, and what the rows say of them afterwards."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import Jobs, wait_for
from processes import Process, System, environment, system

pytestmark = pytest.mark.process

TESTS = str(Path(__file__).parent)


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


def serve(services: System, model: str = "Counting", **settings: object) -> None:
    arguments = ["--workers", "1", "--model", f"counting=batching_models:{model}"]
    services.runner(*arguments, PYTHONPATH=TESTS, **settings)


def add(jobs: Jobs, *texts: str) -> list[Any]:
    """Add jobs for the counting model, at once."""
    rows = jobs.db.execute(
        """
        insert into job (model, input)
        select 'counting', jsonb_build_object('text', text)
        from unnest(%s::text[]) as text
        returning id
        """,
        [list(texts)],
    ).fetchall()
    return [row[0] for row in rows]


def finished(jobs: Jobs, ids: list[Any]) -> list[dict[str, Any]]:
    """Wait for jobs to be final, and read them."""
    query = "select from job where id = any(%s) and finished_at is not null"
    wait_for(lambda: jobs.db.execute(query, [ids]).rowcount == len(ids), "all are final", 30)
    return [jobs.get(job_id) for job_id in ids]


def test_a_full_queue_is_run_in_full_batches(services: System, jobs: Jobs) -> None:
    ids = add(jobs, *["one"] * 24)
    serve(services)

    found = finished(jobs, ids)

    assert {job["batch_size"] for job in found} == {8}
    assert [job["result"]["size"] for job in found] == [8] * 24
    assert {job["model_version"] for job in found} == {"unversioned"}
    assert all(0 <= job["inference_seconds"] < 1 for job in found)


def test_jobs_that_come_within_the_wait_go_together(services: System, jobs: Jobs) -> None:
    serve(services, "Patient")
    asleep = "select from runner where sleeping"
    wait_for(lambda: jobs.db.execute(asleep).rowcount, "the runner sleeps")

    found = finished(jobs, [*add(jobs, "one"), *add(jobs, "two"), *add(jobs, "three")])

    assert [job["batch_size"] for job in found] == [3, 3, 3]


def test_a_full_batch_is_not_kept_waiting(services: System, jobs: Jobs) -> None:
    serve(services, "Endless")

    found = finished(jobs, add(jobs, *["one"] * 16))

    assert {job["batch_size"] for job in found} == {8}


def test_a_job_that_is_held_for_others_is_done_before_a_stop(services: System, jobs: Jobs) -> None:
    serve(services, "Endless")
    [job_id] = add(jobs, "one")
    jobs.wait(job_id, "processing")

    [runner] = services.processes
    runner.process.terminate()

    assert runner.wait() == 0
    job = jobs.get(job_id)
    assert (job["status"], job["attempt"]) == ("completed", 1)


@pytest.mark.parametrize("deed", ["raise it", "exit 3"])
def test_one_bad_item_of_a_batch_costs_nobody_else_an_attempt(
    services: System, jobs: Jobs, deed: str
) -> None:
    jobs.db.execute("alter table job alter column max_attempts set default 1")
    try:
        ids = add(jobs, *["one"] * 5, deed, "two", "three")
    finally:
        jobs.db.execute("alter table job alter column max_attempts set default 3")
    serve(services)

    found = finished(jobs, ids)

    assert [job["status"] for job in found] == ["completed"] * 5 + ["failed"] + ["completed"] * 2
    assert {job["attempt"] for job in found} == {1}
    assert all(job["errors"] == [] for job in found if job["status"] == "completed")


@pytest.mark.parametrize(("code", "size"), [("worker_lost", 1), ("timeout", 1), ("model_error", 8)])
def test_who_was_the_end_of_a_worker_is_tried_again_by_itself(
    services: System, jobs: Jobs, code: str, size: int
) -> None:
    [(suspect,)] = jobs.db.execute(
        """
        insert into job (model, input, attempt, errors)
        values (
            'counting',
            '{"text": "one"}',
            1,
            jsonb_build_array(jsonb_build_object('code', %s::text))
        )
        returning id
        """,
        [code],
    ).fetchall()
    others = add(jobs, *["one"] * 7)
    serve(services)

    found = finished(jobs, [suspect, *others])

    assert (found[0]["batch_size"], found[0]["attempt"]) == (size, 2)
    assert {job["attempt"] for job in found[1:]} == {1}


def test_the_batches_are_counted(services: System, jobs: Jobs) -> None:
    finished_ids = add(jobs, *["one"] * 16)
    serve(services)
    finished(jobs, finished_ids)

    query = """
        select calls, (select sum(count) from unnest(inferences) as count), batch_sizes[4], batched
        from activity where model = 'counting' and minute = '-infinity'
    """
    wait_for(lambda: jobs.db.execute(query).fetchall() == [(2.0, 16, 2, 16)], "they are counted")
    known = "select from model_crew where model = 'counting' and batch_size = 8"
    wait_for(lambda: jobs.db.execute(known).rowcount, "the size of a batch is known")


def test_a_runner_serves_several_models(services: System, jobs: Jobs) -> None:
    log = services.runner(
        "--workers", "1",
        "--model", "counting=batching_models:Counting",
        "--model", "typed=batching_models:Typed",
        PYTHONPATH=TESTS,
    )  # fmt: skip
    wait_for(lambda: len(log.lines("worker_ready")) == 2, "both are ready")
    [typed] = jobs.db.execute(
        """insert into job (model, input) values ('typed', '{"text": "good"}') returning id"""
    ).fetchall()

    one, other = finished(jobs, [*add(jobs, "one"), typed[0]])

    assert one["result"] == {"text": "one", "size": 1}
    assert (other["result"], other["model_version"]) == (
        {"verdict": "good, 3", "score": 0.6},
        "7",
    )
    query = "select versions, workers from runner_overview"
    expected = [(["unversioned", "7"], 2)]
    wait_for(lambda: jobs.db.execute(query).fetchall() == expected, "the runner says so")


def test_a_version_that_takes_something_else_than_before_is_not_served(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    (tmp_path / "changed.py").write_text(
        """
from typing_extensions import TypedDict


class Typed:
    version = "7"

    def predict(self, item: "Other") -> dict:
        return {}


class Other(TypedDict):
    size: int
"""
    )
    services.runner("--workers", "1", "--model", "typed=batching_models:Typed", PYTHONPATH=TESTS)
    wait_for(lambda: jobs.db.execute("select from model_version").rowcount, "it is registered")

    changed = Process(
        ["-m", "jobrunner", "start", "--workers", "1", "--model", "typed=changed:Typed"],
        environment(services.url, PYTHONPATH=str(tmp_path)),
        tmp_path / "changed.log",
    )
    services.processes.append(changed)

    assert changed.wait() == 1
    said = (tmp_path / "changed.log").read_text()
    assert "the model typed takes or gives something else than its version 7" in said
    assert "Traceback" not in said
