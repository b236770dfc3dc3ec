"""``make`` in a checkout, with a Python that only writes down what it is asked."""

import os
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.skipif(not shutil.which("make"), reason="no make on this machine")

# Makes a venv whose programs are itself; pip and jobrunner are written down.
PYTHON = """#!/bin/sh
case "$*" in
    *version_info*) exit ${TOO_OLD:-0} ;;
    *ensurepip*) exit ${NO_ENSUREPIP:-0} ;;
    "-m venv "*)
        mkdir -p "$3/bin"
        echo "command = python -m venv $(pwd -P)/$3" > "$3/pyvenv.cfg"
        for name in python pip jobrunner; do cp "$0" "$3/bin/$name"; done
        echo "venv" >> said ;;
    "-m pip install "*) echo "pip $(echo "$*" | sed 's/.* //')" >> said; exit ${PIP_FAILS:-0} ;;
    up) echo "up" >> said ;;
esac
"""


class Checkout:
    """A folder with the files that ``make up`` looks at."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in ("Makefile", "setup.cfg", "pyproject.toml"):
            shutil.copy(ROOT / name, folder)
        (folder / "fake-python").write_text(PYTHON)
        (folder / "fake-python").chmod(0o755)

    def make(self, target: str, **told: str) -> subprocess.CompletedProcess[str]:
        inherited: Mapping[str, str] = {
            name: value for name, value in os.environ.items() if not name.startswith("MAKE")
        }
        return subprocess.run(
            ["make", target, "PYTHON=./fake-python"],
            cwd=self.folder,
            env={**inherited, **told},
            capture_output=True,
            text=True,
            check=False,
        )

    def done(self) -> list[str]:
        """What was done since the last look."""
        said = self.folder / "said"
        lines = said.read_text().splitlines() if said.exists() else []
        said.unlink(missing_ok=True)
        return lines


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    folder = tmp_path / "a checkout"
    folder.mkdir()
    return Checkout(folder)


def test_plain_make_lists_every_target() -> None:
    listed = subprocess.run(["make", "-s"], cwd=ROOT, capture_output=True, text=True, check=True)

    names = [line.split()[1] for line in listed.stdout.splitlines()]
    phony = (ROOT / "Makefile").read_text().split(".PHONY: ")[1].splitlines()[0]
    assert names == phony.split()


def test_the_first_make_up_installs_and_the_second_does_not(checkout: Checkout) -> None:
    first = checkout.make("up")
    assert checkout.done() == ["venv", "pip .[embedded]", "up"]

    second = checkout.make("up")
    assert checkout.done() == ["up"]

    assert (first.stdout, first.stderr) == ("Installing embedded into .venv ...\n", "")
    assert (second.stdout, second.stderr) == ("", "")


def test_a_changed_setup_cfg_is_installed_again(checkout: Checkout) -> None:
    checkout.make("up")
    checkout.done()

    with (checkout.folder / "setup.cfg").open("a") as file:
        file.write("\n")
    checkout.make("up")

    assert checkout.done() == ["pip .[embedded]", "up"]


def test_an_install_that_failed_is_done_again_and_nothing_is_started(checkout: Checkout) -> None:
    failed = checkout.make("up", PIP_FAILS="1")
    assert failed.returncode != 0
    assert checkout.done() == ["venv", "pip .[embedded]"]

    checkout.make("up")

    assert checkout.done() == ["pip .[embedded]", "up"]


def test_a_venv_that_came_from_another_folder_is_made_anew(checkout: Checkout) -> None:
    checkout.make("up")
    checkout.done()
    moved = checkout.folder.rename(checkout.folder.with_name("moved"))

    checkout.folder = moved
    checkout.make("up")

    assert checkout.done() == ["venv", "pip .[embedded]", "up"]


def test_a_venv_whose_python_is_gone_is_made_anew(checkout: Checkout) -> None:
    checkout.make("up")
    checkout.done()

    (checkout.folder / ".venv" / "bin" / "python").unlink()
    checkout.make("up")

    assert checkout.done() == ["venv", "pip .[embedded]", "up"]


@pytest.mark.parametrize(
    ("told", "said"),
    [
        ({"TOO_OLD": "1"}, "Python 3.11 or newer is needed"),
        ({"NO_ENSUREPIP": "1"}, "apt install python3-venv"),
    ],
)
def test_a_python_that_will_not_do_is_refused_in_one_line(
    checkout: Checkout, told: dict[str, str], said: str
) -> None:
    refused = checkout.make("up", **told)

    line, make_says = refused.stderr.splitlines()
    assert said in line
    assert make_says.startswith("make: ***")
    assert not (checkout.folder / ".venv").exists()
