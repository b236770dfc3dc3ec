"""deploy/systemd: units that systemd takes, in agreement with the programs."""

import re
import shlex
import subprocess
import sys
from collections import defaultdict
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from deploy_files import (
    DEPLOY,
    LAST_WORDS_SECONDS,
    READERS,
    ROOT,
    check_settings,
    created_logins,
    environment_file,
    need,
    procfile,
)

FOLDER = DEPLOY / "systemd"
UNITS = {
    "web": "jobrunner-web.service",
    "runner": "jobrunner-runner@.service",
    "migrate": "jobrunner-migrate.service",
}
COMMANDS = {"web": "web", "runner": "jobrunner", "migrate": "release"}
ENVIRONMENTS = {"web": "web", "runner": "runner", "migrate": "owner"}
BIN = "/opt/jobrunner/bin/"

# Points of systemd-analyze security, of 10: below is "OK", 9.6 has a unit that says nothing.
MOST_EXPOSURE = 20

Unit = dict[str, list[str]]


def read(service: str) -> Unit:
    """What a unit says: all values of each name, from all of its sections."""
    found: Unit = defaultdict(list)
    for line in (FOLDER / UNITS[service]).read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found[name].append(value)
    return found


def example(service: str) -> dict[str, str]:
    return environment_file(FOLDER / f"{ENVIRONMENTS[service]}.env.example")


@pytest.fixture
def installed(tmp_path: Path) -> list[str]:
    """The units as they would be installed, with the programs of this environment."""
    for name in UNITS.values():
        text = (FOLDER / name).read_text().replace(BIN, f"{Path(sys.executable).parent}/")
        (tmp_path / name.replace("@", "@1")).write_text(text)
    return [str(path) for path in sorted(tmp_path.iterdir())]


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    need("systemd-analyze")
    return subprocess.run(
        ["systemd-analyze", *arguments], capture_output=True, text=True, check=False
    )


def test_systemd_takes_them_without_a_word(installed: list[str]) -> None:
    verified = analyze("verify", "--man=no", *installed)

    assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")


def test_systemd_names_what_it_does_not_know(installed: list[str], tmp_path: Path) -> None:
    unit = Path(installed[0])
    unit.write_text(unit.read_text().replace("ProtectClock=", "ProtectClocks="))

    assert "ProtectClocks" in analyze("verify", "--man=no", str(unit)).stderr


def test_they_are_not_exposed(installed: list[str]) -> None:
    judged = analyze("security", "--offline=true", f"--threshold={MOST_EXPOSURE}", *installed)
    if "unrecognized option" in judged.stderr:
        pytest.skip("this systemd-analyze judges no files")

    assert judged.returncode == 0, judged.stdout


@pytest.mark.parametrize("service", UNITS)
def test_the_commands_are_those_of_the_procfile(service: str) -> None:
    (command,) = read(service)["ExecStart"]
    program, *arguments = procfile()[COMMANDS[service]]

    # Neither quotes nor the specifiers of systemd.
    assert command == " ".join([BIN + program, *arguments])
    assert not re.search(r"[%$\"']", command)


@pytest.mark.parametrize("service", UNITS)
def test_every_setting_of_the_examples_is_known_and_its_value_is_taken(service: str) -> None:
    check_settings("runner" if service == "migrate" else service, example(service))


@pytest.mark.parametrize("service", UNITS)
def test_each_service_logs_in_as_itself(service: str) -> None:
    login = {"web": "web_login", "runner": "runner_login", "migrate": "owner_login"}[service]

    assert urlsplit(example(service)["DATABASE_URL"]).username == login
    assert login in created_logins()
    name = ENVIRONMENTS[service]
    assert read(service)["EnvironmentFile"] == [f"/etc/jobrunner/{name}.env"]


def test_no_password_stands_in_a_unit() -> None:
    known = {field.alias for it in READERS.values() for field in it.Settings.model_fields.values()}
    for service in UNITS:
        assert "://" not in (FOLDER / UNITS[service]).read_text()
        for line in read(service)["Environment"]:
            assert not known & {pair.split("=")[0] for pair in shlex.split(line)}


def test_a_stop_is_told_to_the_main_process_alone_which_has_the_time_for_it() -> None:
    config = (ROOT / "web" / "gunicorn_config.py").read_text()
    (graceful,) = re.findall(r"^graceful_timeout = (\d+)$", config, re.MULTILINE)
    needed = {"web": float(graceful), "runner": float(example("runner")["JOBRUNNER_GRACE_SECONDS"])}

    for service, seconds in needed.items():
        unit = read(service)
        assert unit["KillMode"] == ["mixed"]
        assert unit["KillSignal"] == ["SIGTERM"]
        assert float(unit["TimeoutStopSec"][0]) >= seconds + LAST_WORDS_SECONDS


def test_what_should_run_on_is_started_again_however_long_that_takes() -> None:
    for service, restart in {"web": "always", "runner": "on-failure"}.items():
        unit = read(service)
        assert unit["Restart"] == [restart]
        assert unit["StartLimitIntervalSec"] == ["0"]
        assert unit["WantedBy"] == ["multi-user.target"]
    assert read("migrate")["Type"] == ["oneshot"]
    assert not read("migrate")["Restart"]


def test_a_worker_without_memory_does_not_stop_its_runner() -> None:
    assert read("runner")["OOMPolicy"] == ["continue"]


@pytest.mark.parametrize("service", UNITS)
def test_each_waits_for_network_and_database_and_has_the_same_walls(service: str) -> None:
    unit = read(service)
    walls = [
        (FOLDER / name).read_text().split("\nDynamicUser=yes\n")[1].split("\n[Install]")[0].strip()
        for name in (UNITS[service], UNITS["web"])
    ]

    assert {"network-online.target", "postgresql.service"} <= set(unit["After"][0].split())
    assert unit["Wants"] == ["network-online.target"]
    assert walls[0] == walls[1]
    assert {"ProtectSystem=strict", "NoNewPrivileges=yes"} <= set(walls[0].splitlines())
