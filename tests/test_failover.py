"""The primary is lost under load and the standby promoted: no accepted job is lost."""

from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from chaos.postgres import Postgres, url
from helpers import RUNNER, Jobs, wait_for
from jobrunner.links import Link
from jobrunner.listener import Listener
from processes import Load, Process, System, system

pytestmark = pytest.mark.process

BACK_SECONDS = 10
UNFINISHED = "select count(*) from job where finished_at is null"


@pytest.fixture
def postgres(tmp_path: Path) -> Iterator[Postgres]:
    """A primary, and a standby that confirms each commit."""
    servers = Postgres(tmp_path, with_standby=True)
    servers.start()
    yield servers
    servers.end()


@pytest.fixture
def services(postgres: Postgres, tmp_path: Path) -> Iterator[System]:
    """The services know both servers, and go to the one that can be written to."""
    with system(url("chaos_runner", postgres.ports), tmp_path) as started:
        yield started


def start(services: System, postgres: Postgres) -> tuple[list[Process], Load]:
    """Two runners with eight workers, and clients who give them about as much as they can do."""
    runners = [services.runner("--workers", "4", MOCK_DELAY_SECONDS=0.5) for _ in range(2)]
    web = services.web(url("chaos_web", postgres.ports), WEB_CONCURRENCY=2)
    return runners, Load(web, clients=6, pause=0.3)


def test_the_loss_of_the_primary_loses_no_accepted_job_and_no_attempt(
    services: System, postgres: Postgres
) -> None:
    runners, load = start(services, postgres)
    with load:
        with postgres.connect() as primary:
            wait_for(lambda: len(load.accepted) >= 30, "jobs are accepted")
            wait_for(lambda: Jobs(primary).count("processing") >= 8, "all workers are busy")

        postgres.crash_primary()
        gone = monotonic()
        wait_for(
            lambda: all(runner.lines("database_lost") for runner in runners), "both have noticed"
        )
        refused = wait_for(
            lambda: [post for post in load.since(gone) if post.status == 503], "a POST is refused"
        )
        # Whoever was at work is done by now, and can tell nobody.
        wait_for(lambda: monotonic() > gone + 2, "two seconds are over")

        postgres.promote()
        promoted = monotonic()
        served = wait_for(
            lambda: [post for post in load.since(promoted) if post.status == 202],
            "a POST is accepted again",
            BACK_SECONDS,
        )
        wait_for(lambda: len(load.since(promoted)) >= 30, "the service goes on")

    assert all(post.ended - post.began < 10 for post in refused + served)
    assert {post.status for post in load.posted} == {202, 503}
    with postgres.connect() as owner:
        wait_for(lambda: owner.execute(UNFINISHED).fetchone() == (0,), "all jobs are done", 20)
        rows = owner.execute("select id::text, status, attempt, errors from job").fetchall()
    outcome = {row[0]: row[1:] for row in rows}
    assert {job_id for job_id in load.accepted if job_id not in outcome} == set()
    assert {str(what) for what in outcome.values()} == {"('completed', 1, [])"}
    started = [line["job_id"] for runner in runners for line in runner.lines("claimed")]
    assert len(started) == len(set(started))
    for runner in runners:
        assert runner.lines("database_back")
        assert runner.lines("runner_lost") == runner.lines("found_dead") == []


def test_a_runner_hears_the_new_primary(services: System, postgres: Postgres) -> None:
    """It polls so seldom that only a notification explains a start within ten."""
    services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_POLL_SECONDS=60)
    postgres.crash_primary()
    postgres.promote()

    with postgres.connect() as owner:
        wait_for(lambda: is_writable(owner), "the standby is the primary")
        wait_for(lambda: hears(owner), "the runner listens there, and sleeps")
        began = monotonic()
        owner.execute("""insert into job (input) values ('{"text": "good"}')""")
        wait_for(lambda: Jobs(owner).count("completed") == 1, "the job is done")

    assert monotonic() - began < 10


def test_a_standby_can_not_be_beaten_to(postgres: Postgres) -> None:
    with postgres.connect() as owner:
        Jobs(owner).add_runner(RUNNER)
    [_, standby] = postgres.ports
    address = url("chaos_runner", [standby]).replace("read-write", "any")
    link = Link(url("chaos_runner", postgres.ports), RUNNER)
    listener = Listener(address, RUNNER, link)

    assert not listener.tend(link.open())

    link.lose()
    assert "a standby" in str(listener.trouble)


def test_a_new_primary_calls_the_roll_anew(postgres: Postgres) -> None:
    with postgres.connect() as owner:
        Jobs(owner).add_runner(RUNNER)
        assert owner.execute("select from missing_runner").rowcount == 0
    postgres.crash_primary()
    postgres.promote()

    with postgres.connect() as owner:
        wait_for(lambda: is_writable(owner), "the standby is the primary")
        assert owner.execute("select runner from missing_runner").fetchall() == [(RUNNER,)]
        assert owner.execute("select from roll_call").rowcount == 0


def is_writable(owner: psycopg.Connection[Any]) -> bool:
    return owner.execute("select pg_is_in_recovery()").fetchone() == (False,)


def hears(owner: psycopg.Connection[Any]) -> bool:
    query = "select from runner where has_lock and runner_holds_lock(id) and sleeping"
    return owner.execute(query).rowcount == 1
