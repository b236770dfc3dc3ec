"""One runner serves several models: each has workers of its own, and trouble of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from helpers import Jobs, wait_for
from jobrunner.models import load
from processes import HERE, Process, System, system

pytestmark = pytest.mark.process

BOTH = "--model", "left=changing_models:WhoAmI", "--model", "right=changing_models:WhoElse"
FRAGILE = "--model", "fragile=strange_models:SetsUpOnce"
STEADY = "--model", "steady=strange_models:Echo"
OFFER = {
    "offering.py": "class Offered:\n    def predict(self, item):\n        return 'offered'\n",
    "offering-1.dist-info/METADATA": "Metadata-Version: 2.1\nName: offering\nVersion: 1\n",
    "offering-1.dist-info/entry_points.txt": "[jobrunner.models]\nmine = offering:Offered\n",
}


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


@pytest.fixture
def offer(tmp_path: Path) -> Path:
    """A folder in which a package is installed that offers a model."""
    for name, text in OFFER.items():
        file = tmp_path / "site" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    return tmp_path / "site"


def wait_for_workers(runner: Process, count: int) -> dict[str, set[int]]:
    """Wait until so many are ready; their processes by model."""
    wait_for(lambda: len(runner.lines("worker_ready")) >= count, "the workers are ready")
    found: dict[str, set[int]] = {}
    for line in runner.lines("worker_ready"):
        found.setdefault(line["model"], set()).add(int(line["pid"]))
    return found


def test_jobs_of_both_models_are_done_by_workers_of_their_own(services: System, jobs: Jobs) -> None:
    workers = wait_for_workers(services.runner("--workers", "2", *BOTH), 4)
    added = {model: [jobs.add(model=model) for _ in range(20)] for model in ("left", "right")}

    wait_for(lambda: jobs.count("completed") == 40, "all are completed")

    assert {model: len(pids) for model, pids in workers.items()} == {"left": 2, "right": 2}
    for model, version in (("left", "7"), ("right", "8")):
        done = [jobs.get(job_id) for job_id in added[model]]
        assert {job["result"]["pid"] for job in done} <= workers[model]
        assert {job["model_version"] for job in done} == {version}


def test_both_models_and_their_versions_are_shown(services: System, jobs: Jobs) -> None:
    wait_for_workers(services.runner("--workers", "2", *BOTH), 4)
    runner = "select models, versions, workers, ready from runner_overview"
    shown = (["left", "right"], ["7", "8"], 4, 4)
    queues = "select model, runners, workers, versions from queue_health where runners > 0"

    wait_for(lambda: jobs.db.execute(runner).fetchall() == [shown], "the runner shows both")

    assert jobs.db.execute(queues).fetchall() == [("left", 1, 2, ["7"]), ("right", 1, 2, ["8"])]


def test_a_model_whose_worker_starts_no_more_does_not_stop_the_other(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    runner = services.runner("--workers", "1", *FRAGILE, *STEADY, MARKER=tmp_path / "marker")
    wait_for_workers(runner, 2)
    fatal = jobs.add(model="fragile")
    wait_for(lambda: len(runner.lines("setup_failed")) >= 2, "its worker fails again and again")

    steady = [jobs.add(model="steady") for _ in range(20)]

    wait_for(lambda: all(jobs.status(job_id) == "completed" for job_id in steady), "they are done")
    assert jobs.status(fatal) == "pending"
    trouble = "select trouble from runner_overview"
    wait_for(
        lambda: jobs.db.execute(trouble).fetchone() == ("fragile: OSError: the weights are gone",),
        "the runner says which model it is",
    )
    ready = "select model, ready_workers from runner_model order by model"
    assert jobs.db.execute(ready).fetchall() == [("fragile", 0), ("steady", 1)]


def test_a_model_that_can_not_be_loaded_ends_the_runner_which_hands_back_the_jobs_of_the_other(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    late = "--model", "late=changing_models:Late", "--model", "told=strange_models:Told"
    runner = services.runner("--workers", "1", *late, MARKER=marker, TOLD_TIMEOUT_SECONDS=60)
    job_id = jobs.add("sleep 60", model="told")
    jobs.wait(job_id, "processing")

    marker.touch()

    assert runner.wait() == 1
    said = "Error: the model late could not be loaded: OSError: the weights are missing"
    assert runner.log.splitlines()[-1] == said
    row = jobs.get(job_id)
    assert (row["status"], row["attempt"], row["errors"]) == ("pending", 0, [])
    assert jobs.db.execute("select from runner").rowcount == 0


def test_a_model_that_an_installed_package_offers_is_found(
    offer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(offer))

    assert type(load("mine", {})).__name__ == "Offered"


def test_a_model_that_an_installed_package_offers_is_served(
    services: System, jobs: Jobs, offer: Path
) -> None:
    path = f"{HERE}:{offer}"
    services.runner("--workers", "1", "--model", "here=mine", PYTHONPATH=path)

    assert jobs.wait(jobs.add(model="here"), "completed")["result"] == "offered"
