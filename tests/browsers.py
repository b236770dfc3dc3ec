"""What the tests in a browser have in common; its fixtures are in conftest.py."""

import os
import re
import signal
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Timer

from playwright.sync_api import Browser, Error, Page, expect, sync_playwright

# In milliseconds. Machines may be slow; what is as it should be is not waited for.
PATIENCE = 45_000
CLOSE_SECONDS = 20.0

# What the console says of an answer that is an error, and of one that did not come.
OF_ANSWER = re.compile(r"Failed to load resource: .* status of (\d{3})\b")
OF_NO_ANSWER = "Failed to load resource: net::"
NO_ANSWER = 0

# The shell becomes Chromium, and so has told its process id.
SCRIPT = """#!/bin/sh
echo $$ > "{pid}"
exec "{chromium}" "$@"
"""


class Chromium:
    """A Chromium whose end is waited for so long, and no longer: it is killed then."""

    def __init__(self, browser: Browser, pid: int) -> None:
        self.browser = browser
        self._pid = pid

    def close(self, what: Page | Browser) -> None:
        """Close a page, or all of it."""
        timer = Timer(CLOSE_SECONDS, self._kill)
        timer.start()
        try:
            with suppress(Error):
                what.close()
        finally:
            timer.cancel()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._pid, signal.SIGKILL)


@contextmanager
def chromium(executable: str, folder: Path) -> Iterator[Chromium]:
    """Start Chromium for a block."""
    pid, script = folder / "pid", folder / "chromium"
    script.write_text(SCRIPT.format(pid=pid, chromium=executable))
    script.chmod(0o700)
    expect.set_options(timeout=PATIENCE)
    with sync_playwright() as playwright:
        # Root has no sandbox; a container may have next to no shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        browser = playwright.chromium.launch(executable_path=script, args=arguments)
        started = Chromium(browser, int(pid.read_text()))
        try:
            yield started
        finally:
            started.close(browser)


def watched(page: Page) -> tuple[list[str], list[str]]:
    """The addresses that the page asks for, and what its console complains of."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said


def answers(said: list[str]) -> tuple[set[int], list[str]]:
    """The errors that were answered, by what the console says; and what else it says."""
    statuses: set[int] = set()
    others: list[str] = []
    for line in said:
        if found := OF_ANSWER.match(line):
            statuses.add(int(found[1]))
        elif line.startswith(OF_NO_ANSWER):
            statuses.add(NO_ANSWER)
        else:
            others.append(line)
    return statuses, others
