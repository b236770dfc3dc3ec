"""The web's settings come from the environment, checked, and are not told to anybody."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from flask.testing import FlaskClient

from web import create_app, settings
from web.errors import SettingsError

URL = "postgresql://me:my-secret-password@db.example/jobs"


def test_everything_but_the_database_has_a_default() -> None:
    found = settings.load({"DATABASE_URL": URL})

    assert (found.host, found.port) == ("127.0.0.1", 8000)
    assert (found.processes, found.threads) == (2, 128)
    assert (found.max_attempts, found.max_pending) == (3, 100_000)
    assert (found.listen_url, found.most_waiting) == (None, 96)


def test_each_setting_is_read_from_its_variable() -> None:
    found = settings.load(
        {
            "DATABASE_URL": URL,
            "HOST": "::",
            "PORT": "80",
            "WEB_CONCURRENCY": "4",
            "WEB_THREADS": "16",
            "JOBRUNNER_MAX_ATTEMPTS": "5",
            "JOBRUNNER_MAX_PENDING": "10",
            "JOBRUNNER_LISTEN_URL": f"{URL}2",
        }
    )

    assert (found.host, found.port, found.processes, found.threads) == ("::", 80, 4, 16)
    assert (found.max_attempts, found.max_pending) == (5, 10)
    assert (found.listen_url, found.most_waiting) == (f"{URL}2", 12)


def test_a_variable_that_is_empty_counts_as_unset() -> None:
    assert settings.load({"DATABASE_URL": URL, "PORT": ""}).port == 8000


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("DATABASE_URL", ""),
        ("DATABASE_URL", "my-secret-password"),
        ("DATABASE_URL", "postgresql://me:my-secret-password@[/jobs"),
        ("PORT", "my-secret-password"),
        ("PORT", "0"),
        ("PORT", "65536"),
        ("WEB_CONCURRENCY", "0"),
        ("WEB_THREADS", "many"),
        ("JOBRUNNER_MAX_ATTEMPTS", "101"),
        ("JOBRUNNER_MAX_PENDING", "-1"),
    ],
)
def test_a_wrong_setting_is_named_and_its_value_is_not(variable: str, value: str) -> None:
    with pytest.raises(SettingsError, match=variable) as refused:
        settings.load({"DATABASE_URL": URL, variable: value})

    assert "my-secret-password" not in str(refused.value)
    assert "\n" not in str(refused.value)


def test_the_password_is_not_part_of_what_the_settings_print() -> None:
    found = settings.load({"DATABASE_URL": URL})

    assert "my-secret-password" not in f"{found} {found!r}"


def test_the_app_takes_its_settings_from_the_environment(
    monkeypatch: pytest.MonkeyPatch, web_url: str
) -> None:
    monkeypatch.setenv("DATABASE_URL", web_url)
    app = create_app()

    assert FlaskClient(app).get("/readyz").status_code == 200
    app.extensions["database"].close()


def test_gunicorn_does_not_start_on_a_wrong_setting_and_says_so_in_one_line(
    tmp_path: Path,
) -> None:
    command = [sys.executable, "-m", "gunicorn", "-c", "python:web.gunicorn_config"]
    environ = os.environ | {"DATABASE_URL": URL, "PORT": "eighty"}

    done = subprocess.run(
        [*command, "web:create_app()"], env=environ, cwd=tmp_path, capture_output=True, text=True
    )

    assert done.returncode == 1
    assert done.stderr.splitlines() == ["jobrunner web: PORT: should be a valid integer,"
        " unable to parse string as an integer"]  # fmt: skip
