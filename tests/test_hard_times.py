"""The database lives, and can not do what it is asked: full, read-only, crowded, locked."""

import os
import secrets
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from helpers import Jobs, login_url, signs, wait_for
from jobrunner import embedded
from processes import TOLD, Process, System
from web_server import Answer, WebServer

pytestmark = pytest.mark.process

LIMIT_SECONDS = 10
SLOTS = 35
# All but three that are kept for superusers, and the test's own.
CROWD = SLOTS - 3 - 1


@pytest.fixture
def postgres_options() -> dict[str, str]:
    return {"max_connections": str(SLOTS)}


@pytest.fixture
def web(own_server: embedded.Server) -> Iterator[WebServer]:
    with WebServer(login_url(own_server.url, "web_login"), WEB_CONCURRENCY="1") as server:
        yield server


def submit(web: WebServer, text: str = "good") -> str:
    answer = web.predict(text=text)
    assert answer.status == 202
    return str(answer.json["job_id"])


def is_told_to_come_back(answer: Answer) -> bool:
    """Whether it is a 503 as it should be, and not a 500 or a 202."""
    assert answer.status in (202, 503)
    assert answer.status == 202 or answer.headers["Content-Type"] == "application/problem+json"
    return answer.status == 503 and int(answer.headers["Retry-After"]) >= 1


def completed_at_first(jobs: Jobs, job_id: str) -> bool:
    row = jobs.wait(job_id, "completed")
    return (row["attempt"], row["errors"]) == (1, [])


# The disk is full.


@pytest.fixture
def tiny_disk(
    own_server: embedded.Server, admin: psycopg.Connection[Any], tmp_path: Path
) -> Iterator[Path]:
    """A disk of 1 MiB for the table ``job``, of which some pages are free."""
    place = tmp_path / "tiny"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(place)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode != 0:
        pytest.skip("only root may mount a tiny disk")
    try:
        data = own_server.data.stat()
        os.chown(place, data.st_uid, data.st_gid)
        admin.execute(f"create tablespace tiny location '{place}'")
        # No page has room of its own for an outcome.
        admin.execute("alter table job set (fillfactor = 100)")
        admin.execute("alter table job set tablespace tiny")
        yield place
        own_server.stop()
    finally:
        subprocess.run(["umount", "--lazy", place], check=True)


@pytest.fixture
def reader(own_server: embedded.Server, tiny_disk: Path) -> Iterator[None]:
    """A transaction that may yet want to see every old row: their space is not used again."""
    with psycopg.connect(own_server.url) as connection:
        connection.execute("set transaction isolation level repeatable read")
        connection.execute("select from job")
        yield


def fill(admin: psycopg.Connection[Any]) -> None:
    """Insert what nobody will claim, until not even a short row fits."""
    query = "insert into job (model, input) values ('filler', jsonb_build_object('text', %s::text))"
    for size in (8000, 1000, 100, 1):
        try:
            while True:
                admin.execute(query, [secrets.token_hex(size)])
        except psycopg.errors.DiskFull:
            continue


@pytest.mark.usefixtures("reader")
def test_a_full_disk_is_a_503_and_outcomes_wait_until_there_is_space(
    services: System,
    web: WebServer,
    admin: psycopg.Connection[Any],
    tiny_disk: Path,
    tmp_path: Path,
) -> None:
    runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=60)
    admin.execute("insert into model (name) values ('filler')")
    jobs, go = Jobs(admin), tmp_path / "go"
    held = [submit(web, f"await {go}") for _ in range(2)]
    wait_for(lambda: signs(tmp_path / "go.begun") == 2, "both are in hand")

    fill(admin)
    go.touch()

    assert is_told_to_come_back(web.predict(text=secrets.token_hex(4000)))
    lost = wait_for(lambda: runner.lines("database_lost"), "the outcomes can not be written")
    assert "extend" in runner.log
    assert {jobs.status(job_id) for job_id in held} == {"processing"}
    before = monotonic()
    wait_for(lambda: monotonic() > before + 2, "it has tried again and again")
    assert web.send("GET", f"/jobs/{held[0]}").status == 200

    subprocess.run(["mount", "-o", "remount,size=16m", tiny_disk], check=True)

    assert lost
    assert all(completed_at_first(jobs, job_id) for job_id in held)
    assert completed_at_first(jobs, submit(web, secrets.token_hex(4000)))
    wait_for(lambda: len(runner.lines("completed")) == 3, "its turn is over, and all is said")
    assert len(runner.lines("claimed")) == 3


# All connections are taken.


def test_a_web_that_is_crowded_out_says_503_and_is_back_when_there_is_room(
    web: WebServer, admin: psycopg.Connection[Any], own_server: embedded.Server
) -> None:
    submit(web)
    with ExitStack() as crowd:
        push_out(admin, own_server, crowd)
        with ThreadPoolExecutor(20) as clients:
            began = monotonic()
            refused = list(clients.map(lambda _: web.predict(), range(20)))
        assert monotonic() - began < LIMIT_SECONDS
        assert all(is_told_to_come_back(answer) for answer in refused)
        assert web.send("GET", "/readyz").status == 503

    wait_for(lambda: web.predict().status == 202, "it is back")
    assert Jobs(admin).count() == 2


def test_a_runner_that_is_crowded_out_keeps_its_outcome_and_comes_back(
    services: System,
    admin: psycopg.Connection[Any],
    own_server: embedded.Server,
    tmp_path: Path,
) -> None:
    runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=60)
    jobs, go = Jobs(admin), tmp_path / "go"
    job_id = str(jobs.add(f"await {go}"))
    wait_for(lambda: signs(tmp_path / "go.begun"), "the job is in hand")

    with ExitStack() as crowd:
        push_out(admin, own_server, crowd)
        go.touch()
        wait_for(lambda: signs(go), "the job is done")
        refused = monotonic()
        wait_for(lambda: monotonic() > refused + 1, "it can not be told")
        assert jobs.status(job_id) == "processing"
        wait_for(lambda: is_away(runner), "it has noticed")

    assert completed_at_first(jobs, job_id)
    assert len(runner.lines("claimed")) == 1
    wait_for(lambda: admin.execute("select from runner where has_lock").rowcount, "it listens")


def is_away(runner: Process) -> bool:
    """Whether it has lost the database, and not found it again."""
    return len(runner.lines("database_lost")) > len(runner.lines("database_back"))


def push_out(admin: psycopg.Connection[Any], server: embedded.Server, crowd: ExitStack) -> None:
    """Take every connection there is, those of the services too, until the block ends."""
    url = login_url(server.url, "janitor_login")
    terminate = """
        select pg_terminate_backend(pid, 1000)
        from pg_stat_activity
        where application_name like 'jobrunner %'
    """
    taken = 0

    def all_are_taken() -> bool:
        nonlocal taken
        try:
            while taken < CROWD:
                crowd.enter_context(psycopg.connect(url))
                taken += 1
        except psycopg.OperationalError:
            admin.execute(terminate)
        return taken == CROWD

    wait_for(all_are_taken, "nobody else gets in")


# Nothing may be written.


@pytest.mark.parametrize("whose", ["database jobrunner", "role web_login"])
def test_sessions_that_began_while_nothing_might_be_written_do_not_stay_so(
    web: WebServer, admin: psycopg.Connection[Any], whose: str
) -> None:
    submit(web)
    admin.execute("set default_transaction_read_only = off")
    admin.execute(f"alter {whose} set default_transaction_read_only = on")
    admin.execute(
        "select pg_terminate_backend(pid, 1000) from pg_stat_activity where pid <> pg_backend_pid()"
        " and backend_type = 'client backend'"
    )
    wait_for(lambda: is_told_to_come_back(web.predict()), "the web says 503")
    assert web.send("GET", "/jobs").status == 200

    admin.execute(f"alter {whose} reset default_transaction_read_only")

    # More than there are connections: each is replaced when it is met.
    wait_for(lambda: web.predict().status == 202, "the web takes jobs again")
    wait_for(lambda: statuses(web) == {202}, "no such session is left")


def statuses(web: WebServer) -> set[int]:
    """What forty requests at once are answered."""
    with ThreadPoolExecutor(20) as clients:
        return set(clients.map(lambda _: web.predict().status, range(40)))


# A table is locked for longer than anybody waits.


def test_a_lock_that_outlasts_every_statement_loses_no_job_no_runner_and_accepts_nothing(
    services: System,
    web: WebServer,
    admin: psycopg.Connection[Any],
    own_server: embedded.Server,
    tmp_path: Path,
) -> None:
    runners = [services.runner("--workers", "2", *TOLD, TOLD_TIMEOUT_SECONDS=60) for _ in "ab"]
    jobs, go = Jobs(admin), tmp_path / "go"
    accepted = [submit(web, f"await {go}") for _ in range(4)]
    wait_for(lambda: signs(tmp_path / "go.begun") == 4, "all are at work")

    with psycopg.connect(own_server.url) as locker, ThreadPoolExecutor(12) as clients:
        locker.execute("lock table job in access exclusive mode")
        go.touch()
        locked = monotonic()
        refused = list(clients.map(lambda _: timed_predict(web), range(24)))
        wait_for(lambda: all(runner.lines("database_lost") for runner in runners), "both gave up")
        assert monotonic() - locked > 8

    assert all(is_told_to_come_back(answer) for answer, _ in refused)
    assert max(seconds for _, seconds in refused) < LIMIT_SECONDS
    assert all(completed_at_first(jobs, job_id) for job_id in accepted)
    assert completed_at_first(jobs, submit(web))
    assert jobs.count() == 5
    wait_for(lambda: all(runner.lines("database_back") for runner in runners), "both are back")
    for runner in runners:
        assert runner.lines("runner_lost") == runner.lines("found_dead") == []


BEATS = "select count(*) from runner where lost_at is null and heartbeat_at > %s + 2 * lease"


@pytest.mark.parametrize(
    "lock", ["lock table runner_model in share mode", "select from runner_model for update"]
)
def test_runners_that_can_not_tell_of_their_models_go_on_and_find_nobody_dead(
    services: System, admin: psycopg.Connection[Any], own_server: embedded.Server, lock: str
) -> None:
    both = [services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_LEASE_SECONDS=3) for _ in "ab"]
    jobs = Jobs(admin)
    jobs.wait(jobs.add(), "completed")
    ready = "select from runner where has_lock and ready_workers = workers"
    wait_for(lambda: admin.execute(ready).rowcount == 2, "both are at work")

    with psycopg.connect(own_server.url) as locker:
        locker.execute(lock)  # type: ignore[arg-type]
        [began] = admin.execute("select clock_timestamp()").fetchall()
        job_id = jobs.add()
        wait_for(lambda: admin.execute(BEATS, began).fetchone() == (2,), "two leases are over")
        assert completed_at_first(jobs, job_id)

    wait_for(lambda: all(runner.lines("models_not_told") for runner in both), "both were refused")
    assert completed_at_first(jobs, jobs.add())
    for runner in both:
        assert runner.lines("runner_lost") == runner.lines("found_dead") == []


def timed_predict(web: WebServer) -> tuple[Answer, float]:
    began = monotonic()
    return web.predict(), monotonic() - began
