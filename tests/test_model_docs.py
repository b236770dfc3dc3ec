"""docs/models.md and examples/ are true: what they define is served, and answers as they say."""

import json
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers import Jobs, wait_for
from jobrunner import contract, worker, worker_handle
from jobrunner.cli import main
from jobrunner.contract import Served
from jobrunner.models import load
from jobrunner.outcome import MAX_BATCH_SIZE
from jobrunner.worker import set_up
from processes import Web, system

ROOT = Path(__file__).parent.parent
GUIDE = (ROOT / "docs" / "models.md").read_text()
EXAMPLE = ROOT / "examples" / "house_prices"
README = (EXAMPLE / "README.md").read_text()
BLOCKS = dict(re.findall(r"```python\n# (\w+)\.py\n(.*?)```", GUIDE, re.DOTALL))
URL = "/models/house-prices/predict"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the modules that the guide defines."""
    for name, code in BLOCKS.items():
        (tmp_path / f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    return tmp_path


@pytest.fixture
def web(runner_url: str, web_url: str, tmp_path: Path) -> Iterator[Web]:
    """A web before a runner that serves the example."""
    options = "--workers", "1", "--model", "house-prices=house_prices:HousePrices"
    with system(runner_url, tmp_path) as services:
        services.runner(*options, PYTHONPATH=EXAMPLE)
        web = services.web(web_url)
        wait_for(lambda: web.get("/models")[1]["models"][0]["version"], "it is registered")
        yield web


def ask(served: Served, text: bytes) -> Any:
    [result] = served.run([served.read(text)], tell=lambda *_: None)
    return served.plain(result)


def commands(document: str) -> list[list[str]]:
    lines = re.findall(r"^jobrunner (.*)$", document, re.MULTILINE)
    return [shlex.split(line) for line in lines]


@pytest.mark.parametrize(
    "said",
    [
        f"| `max_batch_size` | 1 | inputs with one call, at most: 1 to {MAX_BATCH_SIZE};",
        f"for others to go with it: 0 to {contract.MAX_WAIT_MS:,} |",
        f"1 to {contract.MAX_VERSION} printable characters",
        f"of at most {contract.MAX_SCHEMA_BYTES:,} bytes",
        f"| `timeout_seconds` | {contract.TIMEOUT_SECONDS:g} |",
        f"{worker_handle.SETUP_SECONDS:g} s for both",
        f"is asked every {worker.HEALTH_SECONDS:g} s",
        f"`JOBRUNNER_WORKER_MAX_JOBS`: {worker_handle.TEARDOWN_SECONDS:g} s.",
    ],
)
def test_the_limits_of_the_guide_are_those_of_the_code(said: str) -> None:
    assert said in GUIDE


@pytest.mark.parametrize(
    ("model", "given", "result"),
    [
        ("smallest:Shout", b'{"text": "hello"}', {"said": "HELLO"}),
        ("typed:Helpfulness", b'{"text": "good"}', {"helpful": False, "score": 0.004}),
        ("batched:Lengths", b'{"text": "good"}', {"length": 4}),
        ("slow:Slow", b'{"text": "good"}', {"steps": 10}),
    ],
)
def test_the_models_of_the_guide_answer(
    folder: Path, model: str, given: bytes, result: dict[str, Any]
) -> None:
    assert ask(set_up(model, {}), given) == result


def test_each_model_of_the_guide_is_tried(folder: Path) -> None:
    assert set(BLOCKS) == {"smallest", "typed", "batched", "slow"}


def test_the_commands_of_the_guide_and_of_the_example_can_be_typed() -> None:
    typed = [*commands(GUIDE), *commands(README)]

    assert len(typed) >= 6
    for name, *arguments in typed:
        main.commands[name].make_context(name, arguments)


def test_the_package_of_the_example_offers_what_is_there(monkeypatch: pytest.MonkeyPatch) -> None:
    project = tomllib.loads((EXAMPLE / "pyproject.toml").read_text())
    monkeypatch.syspath_prepend(str(EXAMPLE))

    for address in project["project"]["entry-points"]["jobrunner.models"].values():
        assert load(address, {}).version == project["project"]["version"]


@pytest.mark.process
def test_the_example_is_served_as_its_readme_says(web: Web, jobs: Jobs) -> None:
    bodies = re.findall(r"^curl localhost:8000(\S+) .*-d '(.*)'$", README, re.MULTILINE)
    [(good_path, good), (bad_path, bad)] = bodies
    assert web.post(bad_path, json.loads(bad))[0] == 422

    status, job = web.post(f"{good_path}?wait=20", json.loads(good))

    assert status == 200
    assert f'`{{"price": {job["result"]["price"]}}}`' in README
    assert f"`{job['model_version']}`" in README
    assert (job["status"], job["model"]) == ("completed", "house-prices")


@pytest.mark.process
def test_the_example_refuses_what_it_does_not_take(web: Web, jobs: Jobs) -> None:
    status, problem = web.post(URL, {"input": {"square_metres": -80, "garden": True}})

    assert status == 422
    assert {fault["pointer"] for fault in problem["errors"]} == {
        "/input/square_metres",
        "/input/rooms",
        "/input/garden",
    }
    assert jobs.count() == 0


@pytest.mark.process
def test_the_example_says_what_it_takes_and_what_it_refuses_to_judge(web: Web) -> None:
    [house_prices, _] = web.get("/models")[1]["models"]
    _, job = web.post(f"{URL}?wait=20", {"input": {"square_metres": 8, "rooms": 3}})

    assert set(house_prices["input_schema"]["properties"]) == {"square_metres", "rooms", "district"}
    assert house_prices["max_batch_size"] == 64
    assert URL in web.get("/openapi.json")[1]["paths"]
    assert (job["status"], job["attempt"]) == ("failed", 1)
    assert job["error"]["message"] == "TooSmall: 3 rooms need more than 8 m²"
