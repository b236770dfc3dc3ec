"""A fuzzer that reads the API's own description finds nothing wrong with the running service."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from helpers import Jobs, login_url
from jobrunner import keys
from processes import system
from web_server import WebServer

pytestmark = pytest.mark.process

EXAMPLES, FEW = 15, 4
TESTS = str(Path(__file__).parent)
CONFIG = str(Path(__file__).with_name("schemathesis.toml"))


@pytest.mark.timeout(400)
@pytest.mark.parametrize(("required", "examples"), [("off", EXAMPLES), ("on", FEW)])
def test_schemathesis_finds_nothing(
    required: str, examples: int, owner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    url = login_url(owner_url, "web_login")
    _, key = keys.create(jobs.db, "fuzzer", operator=True)
    settings = {"JOBRUNNER_MAX_PENDING": "1000000", "JOBRUNNER_REQUIRE_KEYS": required}
    shown = ["--header", f"Authorization: Bearer {key}"] if required == "on" else []
    with (
        WebServer(url, **settings) as web,
        system(login_url(owner_url, "runner_login"), tmp_path) as services,
    ):
        # So that what it submits is final soon: nobody waits or streams for long.
        services.runner("--workers", "2", MOCK_DELAY_SECONDS=0)
        done = subprocess.run(
            [
                sys.executable, "-m", "schemathesis.cli", "--config-file", CONFIG, "run",
                f"http://127.0.0.1:{web.port}/openapi.json",
                "--checks", "all",
                # It goes on for a minute whatever is asked.
                "--exclude-path", "/overview/events",
                "--max-examples", str(examples),
                *shown,
                "--request-timeout", "60",
                "--generation-deterministic",
                "--no-color",
            ],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env=os.environ | {"SCHEMATHESIS_HOOKS": "fuzz_hooks", "PYTHONPATH": TESTS},
        )  # fmt: skip

    said = re.sub(r"(.{300}).{200,}", r"\1…", done.stdout)
    assert done.returncode == 0, said[-8000:] + done.stderr[-2000:]
    assert jobs.count() > examples
