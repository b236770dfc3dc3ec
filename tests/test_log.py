"""The log of the runner: one line a move, in logfmt."""

import os
import re
import subprocess
import sys

import pytest

from jobrunner import log


@pytest.fixture(autouse=True)
def on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(log._lines, "on", True)


def test_a_line_has_a_time_a_level_a_move_and_its_fields(capfd: pytest.CaptureFixture[str]) -> None:
    log.info("completed", job_id="01a2", attempt=1, seconds=0.12345)

    line = capfd.readouterr().err
    time, rest = line.split(" ", 1)
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", time)
    assert rest == "info completed job_id=01a2 attempt=1 seconds=0.123\n"


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("plain-1.2", "plain-1.2"),
        ("two words", '"two words"'),
        ("", '""'),
        ('say "x"', r'"say \"x\""'),
        ("a=b", '"a=b"'),
        ("two\nlines", r"two\nlines"),
        ("\x1b[31mred", r"\x1b[31mred"),
        ("caf\u00e9", "caf\u00e9"),
        ("\ud800", r"\ud800"),
        (None, "None"),
    ],
)
def test_a_value_stays_on_its_line_and_is_quoted_where_it_must_be(
    value: object, written: str, capfd: pytest.CaptureFixture[str]
) -> None:
    log.warning("move", value=value)

    assert capfd.readouterr().err.endswith(f" warning move value={written}\n")


def test_lines_that_belong_together_are_written_at_the_end(
    capfd: pytest.CaptureFixture[str],
) -> None:
    with log.together():
        log.info("one")
        log.info("two")
        before = capfd.readouterr().err

    assert before == ""
    assert [line.split()[2] for line in capfd.readouterr().err.splitlines()] == ["one", "two"]


def test_a_log_that_can_not_be_written_stops_nothing() -> None:
    program = "from jobrunner import log; log.set_up(); log.info('x' * 9); print('alive')"
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stderr=full, capture_output=False,
            stdout=subprocess.PIPE, text=True, check=True,
        )  # fmt: skip

    assert done.stdout == "alive\n"


def test_a_log_that_nobody_reads_stops_nothing() -> None:
    program = """if True:
        from jobrunner import log
        log.set_up()
        log.PATIENCE_MILLISECONDS = 10
        for _ in range(100):
            log.info("x" * 2000)
        print("alive")
    """
    reader, writer = os.pipe()
    done = subprocess.run(
        [sys.executable, "-c", program], stderr=writer, stdout=subprocess.PIPE, text=True,
        check=True, timeout=60,
    )  # fmt: skip
    os.close(reader)
    os.close(writer)

    assert done.stdout == "alive\n"
