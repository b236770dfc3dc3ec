"""What a worker may take of its machine: threads, memory, a GPU, a number of jobs."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from jobrunner import memory
from jobrunner.outcome import Outcome
from jobrunner.worker_handle import WorkerLimits
from jobrunner.workers import Workers
from pools import MAX_RESULT_BYTES, code, run, settle

Begin = Callable[..., Workers]


@pytest.fixture
def begin(start: Callable[..., Workers]) -> Begin:
    """Starts workers that see their environment, within limits."""

    def begin(count: int = 1, **limits: Any) -> Workers:
        within = WorkerLimits(MAX_RESULT_BYTES, **limits)
        return start(
            "Environment", module="batching_models", name="seen", count=count, limits=within
        )

    return begin


def ask(workers: Workers, *texts: str) -> list[Outcome]:
    return run(workers, *texts, model="seen")


def seen(outcomes: list[Outcome]) -> list[Any]:
    return [json.loads(outcome.result or "null") for outcome in outcomes]


def test_numeric_libraries_are_told_how_many_threads_to_take(begin: Begin) -> None:
    [found] = seen(ask(begin(threads=3), "look"))

    assert found["OMP_NUM_THREADS"] == "3"


def test_each_worker_sees_one_device_in_turn(begin: Begin) -> None:
    workers = begin(count=3, devices=("4", "7"))

    found = {each["pid"]: each["CUDA_VISIBLE_DEVICES"] for each in seen(ask(workers, *["x"] * 60))}

    # Whoever was quick enough to get some of them.
    devices = dict(zip(workers.pids, ("4", "7", "4"), strict=True))
    assert found == {pid: devices[pid] for pid in found}
    assert len(found) > 1


@pytest.mark.skipif(sys.platform != "linux", reason="bounded by Linux only")
def test_what_is_more_memory_than_a_worker_may_have_fails_the_job_alone(begin: Begin) -> None:
    workers = begin(memory_bytes=512 * 2**20)

    much, little = ask(workers, str(2**30), str(2**20))

    assert code(much) == "model_error"
    assert much.failure
    assert "MemoryError" in much.failure.message
    assert seen([little]) == [{"size": 2**20}]
    assert workers.lost == 0


@pytest.mark.skipif(sys.platform != "linux", reason="read from /proc")
def test_the_memory_of_workers_is_known(begin: Begin) -> None:
    workers = begin(count=2)

    found = memory.resident_bytes(workers.pids)

    assert found
    assert found > 2 * 10 * 2**20
    assert memory.resident_bytes([2**22 + 1]) is None


def test_a_worker_is_replaced_after_so_many_jobs_and_none_is_lost(begin: Begin) -> None:
    workers = begin(max_jobs=3)

    found = seen(ask(workers, *["look"] * 10))
    settle(workers, lambda: workers.ready == 1)

    pids = [each["pid"] for each in found]
    assert max(pids.count(pid) for pid in pids) <= 3
    assert len(set(pids)) >= 4
    # Who has nothing to clean up is gone at once, with its memory.
    assert len(workers.pids) == 1
    assert workers.lost == 0


def test_a_worker_that_is_replaced_passes_its_device_on(
    start: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cleaned, limits = (
        tmp_path / "cleaned",
        WorkerLimits(MAX_RESULT_BYTES, max_jobs=1, devices=("4", "7", "9")),
    )
    workers = start(
        "TidyEnvironment", module="batching_models", name="seen", count=1, limits=limits
    )

    # (Not at the end of the test: who is still there would be waited for.)
    with monkeypatch.context() as patience:
        patience.setattr("jobrunner.workers.TEARDOWN_SECONDS", 3600.0)
        [first] = seen(ask(workers, str(cleaned)))
        settle(workers, lambda: workers.ready == 1 and first["pid"] not in workers.pids[:1])
        # The first one is still there, and cleans up.
        assert first["pid"] in workers.pids
        [second] = seen(ask(workers, str(cleaned)))
    cleaned.touch()

    assert (first["CUDA_VISIBLE_DEVICES"], second["CUDA_VISIBLE_DEVICES"]) == ("4", "4")
