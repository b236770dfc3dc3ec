"""The database comes and goes: runner and web come back by themselves, and nothing is lost."""

from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from helpers import Jobs, signs, wait_for
from jobrunner import embedded
from processes import TOLD, System

pytestmark = pytest.mark.process

TERMINATE = """
    select pg_terminate_backend(pid, 5000)
    from pg_stat_activity
    where application_name like %s and pid <> pg_backend_pid()
"""


@pytest.mark.parametrize("whose", ["jobrunner %", "jobrunner listener %"])
def test_connections_that_are_terminated_again_and_again_lose_and_repeat_nothing(
    services: System, admin: psycopg.Connection[Any], whose: str
) -> None:
    runner = services.runner("--workers", "4", MOCK_DELAY_SECONDS=0.02)
    jobs = Jobs(admin)
    Jobs(admin).add_many(300)

    for progress in range(20, 260, 20):
        wait_for(lambda n=progress: jobs.count("completed") >= n, f"{progress} are completed", 30)
        admin.execute(TERMINATE, [whose])

    wait_for(lambda: jobs.count("completed") == 300, "all are completed", 30)
    assert admin.execute("select max(attempt) from job").fetchone() == (1,)
    done = [line["job_id"] for line in runner.lines("completed")]
    assert len(done) == len(set(done))
    wait_for(lambda: has_lock(admin), "the listener is back, with its lock")
    Jobs(admin).add_many(1)
    wait_for(lambda: jobs.count("completed") == 301, "and goes on")


def has_lock(admin: psycopg.Connection[Any]) -> bool:
    query = "select from runner where has_lock and runner_holds_lock(id)"
    return admin.execute(query).rowcount == 1


def test_a_database_that_is_read_only_for_a_while_is_waited_for(
    services: System,
    admin: psycopg.Connection[Any],
    own_server: embedded.Server,
    tmp_path: Path,
) -> None:
    runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
    web = services.web(own_server.url)
    jobs, go = Jobs(admin), tmp_path / "go"
    status, accepted = web.submit(f"await {go}")
    assert status == 202
    wait_for(lambda: signs(tmp_path / "go.begun"), "a job is being processed")

    read_only(admin, "on")
    go.touch()
    wait_for(lambda: runner.lines("database_refused"), "the runner can not write")
    refused = wait_for(lambda: web.submit("good")[0] == 503, "the web says 503")
    read_only(admin, "off")

    assert refused
    # The outcome was kept, and is written.
    assert jobs.wait(accepted["job_id"], "completed")["attempt"] == 1
    wait_for(lambda: web.submit("good")[0] == 202, "the web takes jobs again")


def read_only(admin: psycopg.Connection[Any], state: str) -> None:
    """As on a standby: for sessions that begin, and those that are open."""
    admin.execute("set default_transaction_read_only = off")
    admin.execute(f"alter system set default_transaction_read_only = {state}")  # type: ignore[arg-type]
    admin.execute("select pg_reload_conf()")


def test_an_outage_longer_than_the_rule_of_death_makes_no_runner_dead(
    services: System, own_server: embedded.Server
) -> None:
    runners = [services.runner("--workers", "1", MOCK_DELAY_SECONDS=10) for _ in range(2)]
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        Jobs(admin).add_many(2)
        wait_for(lambda: Jobs(admin).count("processing") == 2, "both are at work")
    own_server.stop()
    gone = monotonic()
    wait_for(lambda: monotonic() > gone + 5, "five seconds are over")

    own_server.start()

    for runner in runners:
        wait_for(lambda runner=runner: runner.lines("database_back"), "the runner is back")
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        wait_for(lambda: Jobs(admin).count("completed") == 2, "both have finished", 20)
        assert admin.execute("select attempt from job").fetchall() == [(1,), (1,)]
    for runner in runners:
        assert runner.lines("runner_lost") == []
        assert runner.lines("found_dead") == []


def test_a_table_that_is_locked_for_a_while_is_waited_for(
    services: System, admin: psycopg.Connection[Any]
) -> None:
    services.runner(MOCK_DELAY_SECONDS=0)
    jobs = Jobs(admin)
    Jobs(admin).add_many(1)
    wait_for(lambda: jobs.count("completed") == 1, "it works")
    waits = """
        select from pg_stat_activity
        where wait_event_type = 'Lock' and application_name like 'jobrunner %'
    """

    with admin.transaction():
        admin.execute("lock table job in access exclusive mode")
        wait_for(lambda: admin.execute(waits).rowcount, "the runner waits for the table")

    Jobs(admin).add_many(2)
    wait_for(lambda: jobs.count("completed") == 3, "it goes on")
