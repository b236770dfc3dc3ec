"""The README is true: commands, options, settings, links, and what its examples say."""

import json
import re
import shlex
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import click
import pytest
from pydantic.fields import FieldInfo

import jobrunner.settings
import web.settings
from jobrunner.cli import main
from jobrunner.models import load

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def commands_of(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    """The commands by what is typed after `jobrunner`, those of groups within it too."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands_of(command, f"{path}{name} ")
        else:
            yield f"{path}{name}", command


def row_of(first_cell: str) -> str:
    """The row of a README table whose first cell begins so."""
    rows = [line for line in README.splitlines() if line.startswith(f"| `{first_cell}`")]
    assert len(rows) == 1, f"{len(rows)} rows begin with {first_cell}"
    return rows[0]


COMMANDS = dict(sorted(commands_of(main)))


def settings() -> Iterator[tuple[str, FieldInfo]]:
    for model in (jobrunner.settings.Settings, web.settings.Settings):
        for field in model.model_fields.values():
            assert field.alias
            yield field.alias, field


def as_written(default: Any) -> str:
    match default:
        case None | ():
            return ""
        case bool():
            return "on" if default else "off"
        case timedelta():
            return f"{default.days}d"
        case float():
            return f"{default:g}"
        case _:
            return str(default)


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_is_in_the_readme_with_its_help_and_options(name: str) -> None:
    command = COMMANDS[name]
    row = row_of(f"jobrunner {name}")

    assert command.get_short_help_str(200) in row
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert f"`{parameter.opts[0]}`" in row
    for option in re.findall(r"`(--[a-z-]+)`", row):
        assert option in [opt for parameter in command.params for opt in parameter.opts]


@pytest.mark.parametrize("name", COMMANDS)
def test_each_command_has_help_with_an_example_that_begins_with_its_name(name: str) -> None:
    command = COMMANDS[name]

    assert command.help
    assert "Example:" in command.help
    assert f"jobrunner {name}" in command.help.split("Example:")[1]
    assert len(command.help.splitlines()[0]) <= 60
    for parameter in command.params:
        if isinstance(parameter, click.Option):
            assert parameter.help


@pytest.mark.parametrize(("name", "field"), list(settings()), ids=lambda value: str(value)[:30])
def test_each_setting_is_in_the_readme_with_its_default(name: str, field: FieldInfo) -> None:
    row = row_of(name)

    default = as_written(field.default)
    if default and default != "PydanticUndefined":
        assert f"| `{default}` |" in row


def test_the_readme_has_no_setting_that_is_not_there() -> None:
    section = README.split("## Settings")[1].split("\n## ")[0]

    named = set(re.findall(r"^\| `([A-Z_]+)`", section, re.MULTILINE))

    assert named == {name for name, _ in settings()}


def test_the_commands_of_make_are_there() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))

    blocks = re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    prose = re.sub(r"```.*?```", "", README, flags=re.DOTALL)
    code = "\n".join([*blocks, *re.findall(r"`([^`]+)`", prose)])
    named = set(re.findall(r"\bmake\s+([a-z]\S*)", code))

    assert {"up", "test", "lint"} <= named
    assert named <= targets


def test_the_commands_of_the_blocks_can_be_typed() -> None:
    typed = re.findall(r"^\.venv/bin/jobrunner (.*)$", README, re.MULTILINE)

    assert len(typed) >= 2
    for line in typed:
        name, *arguments = shlex.split(line)
        main.commands[name].make_context(name, arguments)


def test_the_example_model_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    [code] = re.findall(r"```python\n# mymodel.py\n(.*?)```", README, re.DOTALL)
    (tmp_path / "mymodel.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))

    model = load("mymodel:Sentiment", {})
    model.setup()

    assert model.predict({"text": "A great day"})["sentiment"] == "positive"


def test_the_json_of_the_readme_is_json() -> None:
    blocks = re.findall(r"```json\n(.*?)```", README, re.DOTALL)

    assert blocks
    for block in blocks:
        json.loads(block)


def test_links_inside_the_repository_lead_somewhere() -> None:
    for document in [ROOT / "README.md", *ROOT.glob("docs/*.md")]:
        for target in re.findall(r"\]\((?!https?:|#)([^)#]+)", document.read_text()):
            assert (document.parent / target).exists(), f"{document.name}: {target}"
