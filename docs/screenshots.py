"""``make screenshots``: draws the pictures of the dashboard that the README shows.

It runs a system of its own, gives it an hour's past and a few jobs, and takes what Chromium
shows of it.
"""

import json
import math
import os
import shutil
import subprocess
import sys
from bisect import bisect_left
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any

import psycopg
from playwright.sync_api import Browser, Page, expect, sync_playwright

from jobrunner import database, embedded, migrations

FOLDER = Path(__file__).parent
CHROMIUMS = ("chromium", "chromium-browser", "google-chrome")
DESKTOP, PHONE = (1120, 1240), (390, 844)
MINUTES = 59
DELAY_SECONDS = 2
TEXTS = ("I love it", "It broke on the first day", "This product is amazing!", "Never again")

PAST = """
    insert into activity (
        model, minute, completed, failed, retried, released, rescued,
        waits, wait_seconds, inferences, inference_seconds, pending, oldest_pending_seconds
    )
    values (
        'sentiment', date_trunc('minute', now()) - make_interval(mins => %(ago)s),
        %(completed)s, %(failed)s, %(failed)s, 0, 0,
        %(waits)s, %(wait_seconds)s, %(inferences)s, %(inference_seconds)s, %(pending)s, %(oldest)s
    )
"""
FAILED = """
    insert into job (
        model, input, status, attempt, claimed_by, created_at, started_at, finished_at,
        error, errors
    )
    select
        'sentiment',
        '{"text": "Tja. Geht so."}',
        'failed',
        2,
        'host-1-abcd',
        clock_timestamp() - interval '24 s',
        clock_timestamp() - interval '18 s',
        clock_timestamp() - interval '16 s',
        %(last)s::jsonb,
        jsonb_build_array(
            %(first)s::jsonb || jsonb_build_object(
                'attempt', 1, 'runner', 'host-1-abcd', 'started_at', now() - interval '23.8 s',
                'failed_at', now() - interval '22 s'
            ),
            %(last)s::jsonb || jsonb_build_object(
                'attempt', 2, 'runner', 'host-1-abcd', 'started_at', now() - interval '18 s',
                'failed_at', now() - interval '16 s'
            )
        )
    returning id::text
"""
TIMEOUT = {"code": "timeout", "message": "The model took longer than 2 s.", "retryable": True}
ERROR = {"code": "model_error", "message": "ValueError: not in English", "retryable": True}


def main() -> None:
    """Draw them all."""
    if not (chromium := next(filter(None, map(shutil.which, CHROMIUMS)), None)):
        raise SystemExit("Chromium is needed, and is not on this machine")
    with running() as (address, connection), sync_playwright() as playwright:
        remember(connection)
        [(failed,)] = connection.execute(
            FAILED, {"first": json.dumps(TIMEOUT), "last": json.dumps(ERROR)}
        ).fetchall()
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        warm_up(browser, address)
        for name, scheme, size in (
            ("dashboard", "light", DESKTOP),
            ("dashboard-dark", "dark", DESKTOP),
            ("dashboard-phone", "light", PHONE),
        ):
            page = opened(browser, address, scheme, size)
            for text in TEXTS:
                submit(page, text)
            expect(page.get_by_role("region", name="Your job")).to_contain_text("done in about")
            expect(page.get_by_role("region", name="The queue now")).to_contain_text("busy")
            page.screenshot(path=FOLDER / f"{name}.png")
            page.close()
        page = opened(browser, f"{address}#/jobs/{failed}", "light", DESKTOP)
        expect(page.get_by_role("region", name="Input")).to_contain_text("Geht so")
        page.screenshot(path=FOLDER / "dashboard-job.png", full_page=True)
        browser.close()


def warm_up(browser: Browser, address: str) -> None:
    """Let a job be done, so that it is known how long one takes."""
    page = opened(browser, address, "light", DESKTOP)
    submit(page, TEXTS[0])
    expect(page.get_by_role("region", name="Your job")).to_contain_text("positive", timeout=30_000)
    expect(page.get_by_role("table", name="Models")).to_contain_text("2.0 s", timeout=30_000)
    page.close()


def opened(browser: Browser, address: str, scheme: Any, size: tuple[int, int]) -> Page:
    """Open the dashboard, and wait until it is live."""
    width, height = size
    page = browser.new_page(color_scheme=scheme, viewport={"width": width, "height": height})
    page.goto(address)
    expect(page.get_by_role("status", name="Connection")).to_have_text("Live")
    return page


def submit(page: Page, text: str) -> None:
    """Try a text."""
    page.get_by_label("Text", exact=True).fill(text)
    with page.expect_response("**/predict"):
        page.get_by_role("button", name="Submit").click()
    expect(page.get_by_role("button", name="Submit")).to_be_enabled()


@contextmanager
def running() -> Iterator[tuple[str, psycopg.Connection[Any]]]:
    """Run a system of our own; its address, and a connection of the owner of its tables."""
    with TemporaryDirectory() as folder:
        server, port = embedded.Server(Path(folder)), embedded.free_port()
        settings = {"DATABASE_URL": server.start(), "PORT": str(port), "WEB_CONCURRENCY": "1"}
        settings |= {"MOCK_DELAY_SECONDS": str(DELAY_SECONDS)}
        web = "-m", "gunicorn", "-c", "python:web.gunicorn_config", "web:create_app()"
        runner = "-m", "jobrunner", "start", "--workers", "1"
        services: list[subprocess.Popen[bytes]] = []
        try:
            with database.connect(server.url) as connection:
                migrations.migrate(connection)
                for command in (web, runner):
                    services.append(started(command, settings))
                yield f"http://127.0.0.1:{port}/", connection
        finally:
            for service in services:
                service.terminate()
                service.wait()
            server.stop()


def started(command: tuple[str, ...], settings: dict[str, str]) -> subprocess.Popen[bytes]:
    """Start a service, and wait until it is well."""
    service = subprocess.Popen(
        [sys.executable, *command], env=os.environ | settings, stderr=subprocess.PIPE
    )
    assert service.stderr
    for line in service.stderr:
        if b"worker_ready" in line or b"Booting worker" in line:
            return service
    raise SystemExit("a service did not start")


def remember(connection: psycopg.Connection[Any]) -> None:
    """Give it an hour that was busy, with a lull when no runner was there."""
    random = Random(3)
    [(bounds,)] = connection.execute("select histogram_bounds()").fetchall()
    for ago in range(MINUTES, 0, -1):
        lull = 20 < ago < 24
        done = 0 if lull else int(22 + 7 * math.sin(ago / 7) + 4 * random.random())
        waits = [random.expovariate(1 / (0.4 + 0.3 * math.sin(ago / 9) ** 2)) for _ in range(done)]
        inferences = [random.gauss(DELAY_SECONDS, 0.3) for _ in range(done)]
        connection.execute(
            PAST,
            {
                "ago": ago,
                "completed": done,
                "failed": random.choice((0, 0, 0, 1, 2)) if done else 0,
                "waits": histogram(bounds, waits),
                "wait_seconds": sum(waits),
                "inferences": histogram(bounds, inferences),
                "inference_seconds": sum(inferences),
                "pending": 12 * (24 - ago) if lull else int(6 + 5 * math.sin(ago / 6)),
                "oldest": 50.0 * (24 - ago) if lull else 3 + 2 * math.sin(ago / 6),
            },
        )


def histogram(bounds: list[float], values: list[float]) -> list[int]:
    """Count values as a runner does."""
    counts = [0] * (len(bounds) + 1)
    for value in values:
        counts[bisect_left(bounds, value)] += 1
    return counts


if __name__ == "__main__":
    main()
