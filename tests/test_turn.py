"""What a runner hears while it talks to the database."""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Event
from typing import Any

import psycopg
import pytest

from helpers import Jobs
from jobrunner import heartbeat, queue
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.runner import Runner, Settings
from jobrunner.signals import StopSignals
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Waitable

MOCK = ModelSpec("sentiment", "jobrunner.models.mock:MockSentiment", {"delay_seconds": 0})


@pytest.fixture
def threads() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(1) as threads:
        yield threads


@pytest.fixture
def settings(runner_url: str) -> Settings:
    return Settings(
        url=runner_url,
        listen_url=runner_url,
        workers=1,
        # So that it beats, and records what was done, six times a second.
        lease_seconds=1,
        poll_seconds=60,
        grace_seconds=0,
        limits=WorkerLimits(max_result_bytes=10_000),
        retention=timedelta(days=30),
    )


def test_news_that_comes_with_the_last_answer_of_a_turn_is_not_slept_over(
    settings: Settings, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    pauses: list[float] = []
    wait, record = Crew.wait, Activity.record

    def record_and_hear(activity: Activity, connection: queue.Connection) -> None:
        record(activity, connection)
        if not pauses and jobs.db.execute("select from runner where sleeping").rowcount:
            jobs.add()
            connection.execute("select")  # whose answer brings the notification along
            pauses.append(60)

    def wait_and_note(
        crew: Crew, seconds: float, others: Sequence[Waitable], listen: bool = True
    ) -> Collection[int]:
        if pauses:
            pauses.append(seconds)
            signals.count = 2
        return wait(crew, seconds, others, listen)

    monkeypatch.setattr(Activity, "record", record_and_hear)
    monkeypatch.setattr(Crew, "wait", wait_and_note)
    with StopSignals() as signals:
        Runner(settings, [MOCK], signals).run()

    assert pauses[1] == 0


@pytest.mark.parametrize("lost", ["reclaim", "register"])
def test_a_runner_claims_again_though_an_answer_of_the_database_was_lost(
    settings: Settings,
    jobs: Jobs,
    threads: ThreadPoolExecutor,
    monkeypatch: pytest.MonkeyPatch,
    lost: str,
) -> None:
    """It was committed that we have answered the roll call, or come back under a new id."""
    owner = queue if lost == "reclaim" else heartbeat
    act, failed = getattr(owner, lost), Event()

    def act_and_lose(connection: queue.Connection, *how: Any, **more: Any) -> Any:
        done = act(connection, *how, **more)
        if begun.is_set() and not failed.is_set():
            failed.set()
            raise psycopg.OperationalError("no answer from the database in time")
        return done

    def use() -> None:
        try:
            jobs.wait(jobs.add(), "completed")
            begun.set()
            if lost == "reclaim":
                jobs.db.execute("truncate roll_call")
            else:
                jobs.db.execute("update runner set lost_at = now(), sleeping = false")
            assert failed.wait(45)
            jobs.wait(jobs.add(), "completed")
        finally:
            signals.count = 2

    begun = Event()
    monkeypatch.setattr(owner, lost, act_and_lose)
    with StopSignals() as signals:
        used = threads.submit(use)
        Runner(settings, [MOCK], signals).run()

    used.result()
