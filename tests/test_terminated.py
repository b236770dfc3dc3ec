"""Every connection of the web and of the runner is ended, all at once, again and again."""

from collections.abc import Callable
from typing import Any

import psycopg
import pytest

from helpers import Jobs, login_url, wait_for
from jobrunner import embedded
from processes import Load, System

pytestmark = pytest.mark.process

ROUNDS = 20
CONNECTED = "select from pg_stat_activity where application_name like 'jobrunner %'"
TERMINATE = """
    select pg_terminate_backend(pid) from pg_stat_activity where application_name like 'jobrunner %'
"""


def test_however_often_all_connections_end_no_accepted_job_is_lost_or_started_twice(
    services: System, admin: psycopg.Connection[Any], own_server: embedded.Server
) -> None:
    runner = services.runner("--workers", "4", MOCK_DELAY_SECONDS=0.1)
    web = services.web(login_url(own_server.url, "web_login"))
    jobs = Jobs(admin)

    with Load(web, clients=2, pause=0.1) as load:
        for _ in range(ROUNDS):
            seen, done = len(load.accepted), jobs.count("completed")
            wait_for(more_than(seen, lambda: len(load.accepted)), "jobs are accepted again")
            wait_for(more_than(done, lambda: jobs.count("completed")), "jobs are completed again")
            # The web's, the runner's, its listener's: one may just be on its way.
            wait_for(lambda: admin.execute(CONNECTED).rowcount >= 3, "all are connected again")
            admin.execute(TERMINATE)
        wait_for(lambda: len(load.accepted) > 40, "there were enough")

    wait_for(lambda: jobs.count("completed") == jobs.count(), "all are completed", 30)
    assert {post.status for post in load.posted} <= {202, 503}
    rows = admin.execute("select id::text, attempt, errors from job").fetchall()
    assert {row[0] for row in rows} >= set(load.accepted)
    assert {str(row[1:]) for row in rows} == {"(1, [])"}
    started = [line["job_id"] for line in runner.lines("claimed")]
    assert len(started) == len(set(started))
    assert len(runner.lines("database_back")) > ROUNDS / 2
    assert runner.lines("found_dead") == []


def more_than(count: int, counted: Callable[[], int]) -> Callable[[], bool]:
    return lambda: counted() > count
