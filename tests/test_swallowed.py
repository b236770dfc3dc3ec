"""Something between answers for the database: keepalives are content, and nothing arrives.

A proxy or a load balancer that has forgotten a connection may keep both its ends open and
swallow what is sent. Only an answer that does not come tells of it.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from chaos.proxy import Channel, Proxy
from helpers import Jobs, signs, wait_for
from jobrunner import embedded
from processes import TOLD, System

pytestmark = pytest.mark.process

# Nobody looks into the queue within a test: who starts a job has been told of it.
QUIET: dict[str, Any] = {"JOBRUNNER_POLL_SECONDS": 60}

# A statement is given up after 10 s.
NOTICED_SECONDS = 13


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    started = Proxy()
    yield started
    started.close()


def through(proxy: Proxy, server: embedded.Server) -> tuple[Channel, str]:
    """Another way to the server, and what can be done to it."""
    channel, [port] = proxy.open("way", [server.port])
    return channel, server.url.replace(f":{server.port}/", f":{port}/")


def swallow(channel: Channel) -> None:
    channel.swallow = "both"


def test_a_swallowed_connection_for_statements_is_replaced_and_the_job_in_hand_completes(
    services: System,
    admin: psycopg.Connection[Any],
    own_server: embedded.Server,
    proxy: Proxy,
    tmp_path: Path,
) -> None:
    channel, url = through(proxy, own_server)
    direct: dict[str, Any] = {"JOBRUNNER_LISTEN_URL": own_server.url}
    runner = services.runner(*TOLD, url=url, TOLD_TIMEOUT_SECONDS=60, **direct, **QUIET)
    jobs = Jobs(admin)
    job_id = jobs.add(f"await {tmp_path / 'go'}")
    wait_for(lambda: signs(tmp_path / "go.begun"), "the job is in hand")

    proxy.do(lambda: swallow(channel))
    (tmp_path / "go").touch()
    wait_for(lambda: runner.lines("database_lost"), "it has noticed", NOTICED_SECONDS)
    assert channel.swallowed
    proxy.do(channel.heal)

    wait_for(lambda: runner.lines("database_back"), "it is back", 15)
    assert jobs.wait(job_id, "completed", 15)["attempt"] == 1
    assert Jobs(admin).start_quickly()
    wait_for(lambda: jobs.count("completed") == 2, "that job is done as well")
    wait_for(lambda: len(runner.lines("completed")) == 2, "its turn is over, and all is said")
    assert len(runner.lines("claimed")) == 2


def test_a_swallowed_listener_is_replaced_and_hears_again(
    services: System, admin: psycopg.Connection[Any], own_server: embedded.Server, proxy: Proxy
) -> None:
    channel, url = through(proxy, own_server)
    services.runner(JOBRUNNER_LISTEN_URL=url, MOCK_DELAY_SECONDS=0, **QUIET)
    held = "select from runner where has_lock and runner_holds_lock(id)"
    wait_for(lambda: admin.execute(held).rowcount, "it listens")
    assert Jobs(admin).start_quickly()

    proxy.do(channel.stall)

    listeners = "select from pg_stat_activity where application_name like 'jobrunner listener %'"
    wait_for(lambda: admin.execute(listeners).rowcount == 2, "there is a new one", 16)
    assert Jobs(admin).start_quickly()
