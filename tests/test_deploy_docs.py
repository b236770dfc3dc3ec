"""docs/deploy.md is true, as far as that can be asked here; and the proxies that it tells of."""

import re
import shlex
import tomllib
from typing import Any

import pytest

from deploy_files import DEPLOY, READERS, ROOT, anchors, check_settings, need, procfile
from jobrunner.cli import main
from web import events, waiting

DOCUMENT = (ROOT / "docs" / "deploy.md").read_text()
NGINX = (DEPLOY / "proxy" / "nginx.conf").read_text()
CADDY = (DEPLOY / "proxy" / "Caddyfile").read_text()
INGRESS = (DEPLOY / "kubernetes" / "examples" / "ingress.yaml").read_text()

PERFORMANCE = (ROOT / "docs" / "performance.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", DOCUMENT, re.DOTALL)


def test_every_file_and_chapter_that_it_names_is_there() -> None:
    for path in re.findall(r"\bdeploy/[\w./*-]+\w", "\n".join(blocks("sh"))):
        assert list(ROOT.glob(path)), path
    for chapter in re.findall(r"\]\(#([^)]+)\)", DOCUMENT):
        assert chapter in anchors(DOCUMENT), chapter


def test_it_leads_to_every_part_of_deploy() -> None:
    for part in DEPLOY.iterdir():
        if part.is_dir() and part.name != "__pycache__":
            assert f"deploy/{part.name}" in DOCUMENT, part


def test_the_settings_that_it_names_are_there() -> None:
    known = {field.alias for it in READERS.values() for field in it.Settings.model_fields.values()}
    named = set(re.findall(r"`(JOBRUNNER_\w+|WEB_\w+)", DOCUMENT))

    assert named <= known
    for pair in re.findall(r"`(JOBRUNNER_\w+=\w+)`", DOCUMENT):
        name, value = pair.split("=")
        web = {field.alias for field in READERS["web"].Settings.model_fields.values()}
        check_settings("web" if name in web else "runner", {name: value})


def test_its_commands_of_jobrunner_can_be_typed() -> None:
    lines = "\n".join(blocks("sh")).splitlines()
    found = [re.search(r"(?:^| |bin/)jobrunner ((?:keys|submit) .*)", line) for line in lines]
    typed = [match[1] for match in found if match]

    assert len(typed) >= 3
    for line in typed:
        name, *arguments = shlex.split(line, comments=True)
        main.commands[name].make_context(name, arguments)


def test_what_a_platform_is_told_agrees_with_the_procfile() -> None:
    (text,) = blocks("toml")
    told: dict[str, Any] = tomllib.loads(text)
    commands = procfile()

    assert shlex.split(told["deploy"]["release_command"]) == commands.pop("release")
    assert {name: shlex.split(it) for name, it in told["processes"].items()} == commands
    check_settings("web", told["env"])
    assert told["http_service"]["processes"] == ["web"]
    assert str(told["http_service"]["internal_port"]) == told["env"]["PORT"]
    grace = READERS["runner"].Settings.model_fields["grace_seconds"].default
    assert int(told["kill_timeout"].removesuffix("s")) > grace + 10
    assert told["kill_signal"] == "SIGTERM"


@pytest.mark.parametrize(
    "figure",
    (
        "35,901 33,583 32,232 0.974 0.997 35,161 2,476 25,693 885 8.5 16.5 18,276 38,896 83.5"
    ).split(),
)
def test_its_figures_are_those_of_the_last_measurement(figure: str) -> None:
    assert figure in DOCUMENT
    assert f"| {figure} (" in PERFORMANCE


def test_a_program_that_is_missing_is_told_and_where_it_was_promised_is_a_failure(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CI_PROGRAMS", "make promised-program")

    with pytest.raises(pytest.skip.Exception, match="no other-program on this machine"):
        need("other-program")
    with pytest.raises(pytest.fail.Exception, match="no promised-program on this machine"):
        need("promised-program")


# The proxies


# To import it would read the environment, and end where that is no deployment's.
CONFIG = (ROOT / "web" / "gunicorn_config.py").read_text()


def seconds(pattern: str, text: str) -> int:
    (found,) = re.findall(pattern, text)
    return int(found)


def test_an_idle_connection_is_closed_by_the_proxy_before_the_web_does() -> None:
    (kept,) = re.findall(r"^keepalive = (\d+)$", CONFIG, re.MULTILINE)

    assert seconds(r"keepalive_timeout (\d+)s;", NGINX) < int(kept)
    assert seconds(r"keepalive (\d+)s", CADDY) < int(kept)


def test_a_wait_and_a_stream_outlast_no_patience_of_a_proxy() -> None:
    for patience in (
        seconds(r"proxy_read_timeout (\d+)s;", NGINX),
        seconds(r'proxy-read-timeout: "(\d+)"', INGRESS),
    ):
        assert patience > max(events.STREAM_SECONDS, waiting.MAX_SECONDS)
    # To the head of the answer; a stream sends that at once.
    assert seconds(r"response_header_timeout (\d+)s", CADDY) > waiting.MAX_SECONDS


def test_each_proxy_reads_a_request_to_its_end() -> None:
    # nginx does by itself.
    assert "proxy_request_buffering" not in NGINX
    assert 'proxy-request-buffering: "on"' in INGRESS
    assert re.search(r"^\t\trequest_buffers 2MB$", CADDY, re.MULTILINE)


def test_no_proxy_keeps_events_back_or_refuses_what_the_web_would_take() -> None:
    assert re.search(r"location ~ /events\$ \{[^}]*proxy_buffering off;", NGINX)
    assert "flush_interval -1" in CADDY
    assert "client_max_body_size 2m;" in NGINX
    assert re.search(r"max_size 2MB", CADDY)
