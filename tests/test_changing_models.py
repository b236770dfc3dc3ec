"""A model is changed while it is used: one version follows the other, and nobody notices."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic

import pytest
from click.testing import CliRunner

from helpers import Jobs, wait_for
from jobrunner.cli import main
from processes import Load, Process, System, environment, system

pytestmark = pytest.mark.process

FIRST = "--model", "sentiment=changing_models:First"
SECOND = "--model", "sentiment=changing_models:Second"
# How sure each version is: the result itself says who gave it.
CONFIDENCE = {"1": 0.25, "2": 0.5}


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


def answered_by(jobs: Jobs, version: str) -> int:
    query = "select from job where status = 'completed' and model_version = %s"
    return jobs.db.execute(query, [version]).rowcount


def stop(services: System, jobs: Jobs, runner: Process) -> None:
    """Stop a runner as a person does, by its id."""
    rows = jobs.db.execute("select id from runner where pid = %s", [runner.pid]).fetchall()
    [runner_id] = rows[0]
    done = CliRunner().invoke(main, ["stop", runner_id], env={"DATABASE_URL": services.url})
    assert done.exit_code == 0, done.output
    assert runner.wait() == 0


def test_one_version_follows_the_other_and_back_and_no_job_is_lost_refused_or_failed(
    services: System, web_url: str, jobs: Jobs
) -> None:
    running, web = services.runner(*FIRST), services.web(web_url)
    alone: dict[str, str] = {}
    with Load(web, clients=2) as load:
        for version, options in (("2", SECOND), ("1", FIRST)):
            before = answered_by(jobs, version)
            former, running = running, services.runner(*options)
            wait_for(lambda v=version, n=before: answered_by(jobs, v) > n + 5, "both answer")
            stop(services, jobs, former)
            stopped = monotonic()
            wait_for(lambda t=stopped: len(load.since(t)) > 10, "some are posted after that")
            alone |= {post.job_id: version for post in load.since(stopped) if post.job_id}

    wait_for(lambda: jobs.count("completed") == jobs.count(), "all are completed", 30)
    rows = jobs.db.execute("""
        select id::text, status, attempt, model_version, (result ->> 'confidence')::float8
        from job
    """).fetchall()
    assert load.statuses == {202}
    assert {row[0] for row in rows} == set(load.accepted)
    assert {row[1:3] for row in rows} == {("completed", 1)}
    versions = {row[0]: row[3] for row in rows}
    assert {versions[row[0]]: row[4] for row in rows} == CONFIDENCE
    assert all(CONFIDENCE[version] == confidence for *_, version, confidence in rows)
    # (The load goes on while the next version starts: those jobs have two that may answer.)
    assert all(versions[job_id] == version for job_id, version in alone.items())
    job_id = load.accepted[0]
    assert web.get(f"/jobs/{job_id}")[1]["model_version"] == versions[job_id]


def test_both_versions_are_shown_while_they_run_beside_each_other(
    services: System, web_url: str, jobs: Jobs
) -> None:
    web = services.web(web_url)
    old = services.runner(*FIRST)
    services.runner(*SECOND)

    def shown() -> tuple[str, list[str]]:
        [model] = web.get("/models")[1]["models"]
        return model["version"], model["versions"]

    wait_for(lambda: shown() == ("2", ["1", "2"]), "both are shown, and the newest checks")
    stop(services, jobs, old)

    assert shown() == ("2", ["2"])


def test_a_version_that_has_become_something_else_ends_its_runner_with_one_line(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    services.runner(*SECOND)
    registered = "select from model_version where version = '2'"
    wait_for(lambda: jobs.db.execute(registered).rowcount, "the second is registered")
    options = ["-m", "jobrunner", "start", "--model", "sentiment=changing_models:NoSecond"]

    other = Process(options, environment(services.url), tmp_path / "other.log")

    assert other.wait() == 1
    assert other.log.splitlines()[-1] == (
        "Error: the model sentiment takes or gives something else than its version 2"
        " that is registered: give it a new version"
    )
    assert jobs.db.execute("select from runner").rowcount == 1
