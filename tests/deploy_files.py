"""What the tests of each way to deploy it ask of its files."""

import os
import re
import shlex
import shutil
from collections.abc import Mapping
from pathlib import Path

import pytest

from jobrunner import settings as jobrunner_settings
from web import settings as web_settings

ROOT = Path(__file__).parent.parent
DEPLOY = ROOT / "deploy"

URL = "postgresql://somebody@database/jobrunner"
LAST_WORDS_SECONDS = 10

# Which of the two reads the settings of a service.
READERS = {"web": web_settings, "runner": jobrunner_settings}


def need(program: str) -> None:
    """Skip a test where a program is missing; fail it where .ci/run was to install that."""
    if not shutil.which(program):
        wanted = os.environ.get("CI_PROGRAMS", "").split()
        (pytest.fail if program in wanted else pytest.skip)(f"no {program} on this machine")


def procfile() -> dict[str, list[str]]:
    """The command of each service."""
    lines = (ROOT / "Procfile").read_text().splitlines()
    return {name: shlex.split(command) for name, command in (line.split(": ", 1) for line in lines)}


def environment_file(path: Path) -> dict[str, str]:
    """The variables of a file of lines like NAME=value."""
    lines = path.read_text().splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def check_settings(service: str, told: Mapping[str, str]) -> None:
    """Make sure that a service knows each setting, and takes its value."""
    reader = READERS[service]
    known = {field.alias for field in reader.Settings.model_fields.values()}
    assert told.keys() <= known, told.keys() - known
    reader.load({"DATABASE_URL": URL, **told})


def created_logins() -> dict[str, str]:
    """Each login that deploy/postgres makes, and the role that it acts as; its own if none."""
    script = (DEPLOY / "postgres" / "create_logins.sql").read_text()
    logins = re.findall(r"create role (\w+) login", script)
    roles = dict(re.findall(r"alter role (\w+) set role to '(\w+)'", script))
    return {login: roles.get(login, login) for login in logins}


def anchors(document: str) -> set[str]:
    """What a link can lead to in a document, as GitHub makes it of the headings."""
    headings = re.findall(r"^#+ (.+)$", document, re.MULTILINE)
    plain = (re.sub(r"[^\w\- ]", "", heading.lower()) for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}
