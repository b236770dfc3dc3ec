"""psql on the project's database: any psql, with the password kept from other users."""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from psycopg.conninfo import conninfo_to_dict

from jobrunner import binaries, psql
from jobrunner.errors import EmbeddedError, JobrunnerError

Psql = Callable[..., subprocess.CompletedProcess[str]]

DATABASE = "select current_database() || ' ' || session_user"


@pytest.fixture
def run(web_url: str) -> Psql:
    """Runs ``jobrunner psql`` with the login of the web."""

    def run(*arguments: str, **changes: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "jobrunner", "psql", *arguments]
        env = os.environ | {"DATABASE_URL": web_url} | changes
        return subprocess.run(command, capture_output=True, text=True, env=env, timeout=30)

    return run


def test_it_opens_the_database_with_the_login_of_the_url(run: Psql) -> None:
    done = run("-Atc", DATABASE)

    assert (done.returncode, done.stdout) == (0, "jobrunner web_login\n")


def test_a_machine_without_psql_has_that_of_the_embedded_postgresql(run: Psql) -> None:
    done = run("-Atc", DATABASE, PATH="/nowhere")

    assert (done.returncode, done.stdout) == (0, "jobrunner web_login\n")


def test_the_exit_code_is_that_of_psql(run: Psql) -> None:
    done = run("-c", "select * from nowhere")

    assert done.returncode == 1
    assert 'relation "nowhere" does not exist' in done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="/proc shows the arguments")
def test_the_password_is_not_among_the_arguments_that_everybody_can_read(run: Psql) -> None:
    done = run("-c", r"\! tr '\0' '\n' < /proc/$PPID/cmdline")

    arguments = done.stdout.splitlines()
    assert "user=web_login" in arguments[1]
    assert "password" not in done.stdout
    assert done.stdout.count("web_login") == 1


def test_a_secret_that_has_no_place_but_the_arguments_is_refused(run: Psql, web_url: str) -> None:
    done = run("-Atc", DATABASE, DATABASE_URL=f"{web_url}?sslpassword=hunter2")

    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"Error: psql takes sslpassword from .* a service file: .*\n", done.stderr)
    assert "hunter2" not in done.stderr


def test_the_service_file_that_it_advises_works(run: Psql, web_url: str, tmp_path: Path) -> None:
    parts = {**conninfo_to_dict(web_url), "sslpassword": "hunter2"}
    lines = [f"{name}={value}\n" for name, value in parts.items()]
    (tmp_path / "services").write_text("[mine]\n" + "".join(lines))
    settings = {"PGSERVICEFILE": str(tmp_path / "services"), "DATABASE_URL": "service=mine"}

    assert run("-Atc", DATABASE, **settings).stdout == "jobrunner web_login\n"
    arguments = run("-c", r"\! tr '\0' '\n' < /proc/$PPID/cmdline", **settings).stdout
    assert arguments.splitlines()[1] == "service=mine"


def test_without_a_database_it_says_how_to_get_one(run: Psql, tmp_path: Path) -> None:
    done = run(DATABASE_URL="", JOBRUNNER_HOME=str(tmp_path))

    assert done.returncode == 1
    assert done.stderr == (
        "Error: DATABASE_URL is not set and no embedded PostgreSQL runs in"
        f" {tmp_path}: set it, or start one with `jobrunner up`\n"
    )


def test_where_there_is_no_psql_at_all_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find_binaries() -> Path:
        raise EmbeddedError

    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr(binaries, "find_binaries", find_binaries)

    with pytest.raises(JobrunnerError, match="install PostgreSQL's client"):
        psql.find_psql()
