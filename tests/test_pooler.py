"""Through PgBouncer in transaction mode, where a session is nobody's own."""

import os
import pwd
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit, urlunsplit

import psycopg
import pytest
from click.testing import CliRunner

from crashes import crash, nothing_flushed
from deploy_files import need
from helpers import LOGINS, Jobs, login_url, signs, wait_for
from jobrunner import embedded, heartbeat
from jobrunner.cli import main
from jobrunner.database import connect
from jobrunner.errors import DatabaseError
from processes import TOLD, System, system

PGBOUNCER = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"

pytestmark = pytest.mark.process

CONFIG = """
[databases]
jobrunner = host=127.0.0.1 port={port}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {own_port}
auth_type = scram-sha-256
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = 5
unix_socket_dir =
"""


@contextmanager
def pooler(server_port: int, owner_url: str) -> Iterator[int]:
    """A pooler in front of a server; it does not run as root."""
    if not Path(PGBOUNCER).exists():
        need("pgbouncer")
    folder = Path(mkdtemp(prefix="pgbouncer"))
    own_port = embedded.free_port()
    superuser = urlsplit(owner_url).password
    users = {login: login for login in LOGINS} | {"postgres": superuser}
    (folder / "users").write_text("".join(f'"{u}" "{p}"\n' for u, p in users.items()))
    config = CONFIG.format(port=server_port, own_port=own_port, folder=folder)
    (folder / "pgbouncer.ini").write_text(config)
    nobody = pwd.getpwnam("nobody") if os.geteuid() == 0 else None
    if nobody:
        for path in (folder, *folder.iterdir()):
            os.chown(path, nobody.pw_uid, nobody.pw_gid)
    process = subprocess.Popen(
        [PGBOUNCER, "--quiet", str(folder / "pgbouncer.ini")],
        user=nobody.pw_uid if nobody else None,
        stderr=subprocess.DEVNULL,
    )
    try:
        url = pooled_url(login_url(owner_url, "web_login"), own_port)
        wait_for(lambda: answers(url), "the pooler answers")
        yield own_port
    finally:
        process.terminate()
        process.wait()
        shutil.rmtree(folder)


@pytest.fixture(scope="module")
def pooler_port(server: embedded.Server, owner_url: str) -> Iterator[int]:
    """A pooler in front of the server of the tests."""
    with pooler(server.port, owner_url) as port:
        yield port


def answers(url: str) -> bool:
    try:
        psycopg.connect(url, connect_timeout=2).close()
        return True
    except psycopg.OperationalError:
        return False


def pooled_url(url: str, port: int) -> str:
    """The same database and login, by way of the pooler."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=f"{parts.username}:{parts.password}@127.0.0.1:{port}"))


@pytest.fixture
def pooled_runner_url(runner_url: str, pooler_port: int) -> str:
    return pooled_url(runner_url, pooler_port)


@pytest.fixture
def services(pooled_runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(pooled_runner_url, tmp_path) as started:
        yield started


def test_a_connection_knows_whether_a_pooler_stands_between(
    runner_url: str, pooled_runner_url: str
) -> None:
    with connect(runner_url) as direct, connect(pooled_runner_url) as pooled:
        assert not direct.pooled
        assert pooled.pooled


def test_without_a_direct_way_the_runner_polls_and_says_so(services: System, jobs: Jobs) -> None:
    runner = services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_POLL_SECONDS=0.2)

    for _ in range(20):
        jobs.add()

    wait_for(lambda: jobs.count("completed") == 20, "all are completed", 30)
    assert "JOBRUNNER_LISTEN_URL" in runner.log
    assert runner.lines("database_lost") == []
    query = "select has_lock, sleeping, trouble from runner"
    [(has_lock, sleeping, trouble)] = jobs.db.execute(query).fetchall()
    assert not has_lock
    # It is not to be notified in place of another, which would hear it.
    assert not sleeping
    assert "JOBRUNNER_LISTEN_URL" in trouble


def test_with_a_direct_way_for_listening_the_runner_is_woken(
    services: System, runner_url: str, jobs: Jobs
) -> None:
    runner = services.runner(
        MOCK_DELAY_SECONDS=0, JOBRUNNER_POLL_SECONDS=60, JOBRUNNER_LISTEN_URL=runner_url
    )
    asleep = "select from runner where sleeping and has_lock"
    wait_for(lambda: jobs.db.execute(asleep).rowcount, "the runner sleeps")

    jobs.wait(jobs.add(), "completed")

    assert runner.lines("listener_lost") == []


def test_the_web_works_through_a_pooler(
    services: System, web_url: str, pooler_port: int, jobs: Jobs
) -> None:
    web = services.web(pooled_url(web_url, pooler_port))

    answers = [web.submit("good") for _ in range(30)]

    assert {status for status, _ in answers} == {202}
    assert jobs.count("pending") == 30
    assert web.get(f"/jobs/{answers[0][1]['job_id']}")[0] == 200


@pytest.mark.parametrize("direct", [False, True])
def test_who_waits_is_answered_though_nothing_is_heard_through_a_pooler(
    services: System, web_url: str, pooler_port: int, jobs: Jobs, direct: bool
) -> None:
    more = {"JOBRUNNER_LISTEN_URL": web_url} if direct else {}
    web = services.web(pooled_url(web_url, pooler_port), **more)
    job_id = web.submit("good")[1]["job_id"]

    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(web.get, f"/jobs/{job_id}?wait=10")
        jobs.start(job_id)
        jobs.finish(job_id)

        assert waiting.result()[1]["status"] == "completed"


def test_a_crash_of_the_server_behind_it_starts_no_job_twice(
    own_server: embedded.Server, tmp_path: Path
) -> None:
    """The runner's connection outlives it, so that the outcome may be the first to notice."""
    runner_login = login_url(own_server.url, "runner_login")
    with (
        pooler(own_server.port, own_server.url) as port,
        system(pooled_url(runner_login, port), tmp_path) as services,
    ):
        runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
        rounds = 0
        while not runner.lines("reclaimed"):
            rounds += 1
            assert rounds <= 20, "no claim was ever forgotten"
            go = tmp_path / f"go{rounds}"
            with nothing_flushed(own_server.url) as wal_writer:
                with psycopg.connect(own_server.url, autocommit=True) as admin:
                    job_id = Jobs(admin).add(f"await {go}")
                wait_for(lambda go=go: signs(Path(f"{go}.begun")), "it is at work")
                crash(own_server.url, wal_writer)
            go.touch()
            with psycopg.connect(own_server.url, autocommit=True) as admin:
                assert Jobs(admin).wait(job_id, "completed")["attempt"] == 1
            assert signs(Path(f"{go}.begun")) == 1
        assert runner.lines("claim_lost") == []


def test_no_setting_is_left_in_a_session_of_the_pooler(pooled_runner_url: str) -> None:
    query = """
        select name from pg_settings
        where source = 'session' and name in ('role', 'statement_timeout', 'lock_timeout')
    """

    with connect(pooled_runner_url, role="job_runner") as connection:
        assert connection.execute(query).fetchall() == []


def test_no_role_is_left_in_a_session_of_the_pooler(owner_url: str, pooler_port: int) -> None:
    url = pooled_url(owner_url, pooler_port)

    with pytest.raises(DatabaseError, match="alter role <login> set role job_runner"):
        connect(url, role="job_runner")

    with connect(url) as connection:
        assert connection.execute("select current_user").fetchone() == ("postgres",)
        assert heartbeat.overview(connection) is not None


def test_the_doctor_says_that_runners_hear_nothing_through_it(
    web_url: str, pooler_port: int, jobs: Jobs, tmp_path: Path
) -> None:
    jobs.add_runner("here-1-abcd")
    env = {"DATABASE_URL": pooled_url(web_url, pooler_port), "JOBRUNNER_HOME": str(tmp_path)}

    said = CliRunner().invoke(main, ["doctor"], env=env).stdout
    direct = CliRunner().invoke(main, ["doctor"], env=env | {"JOBRUNNER_LISTEN_URL": web_url})

    assert "warning  runners listen through a pooler, and hear nothing\n" in said
    assert "ok       DATABASE_URL goes through a pooler\n" in said
    assert "ok       notifications arrive at JOBRUNNER_LISTEN_URL\n" in direct.stdout
