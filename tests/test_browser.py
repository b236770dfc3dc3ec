"""What a person sees in a browser: a real one, which makes no request to any other host."""

import shutil
from collections.abc import Iterator
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from helpers import Jobs
from jobrunner import keys
from web_server import WebServer

pytestmark = pytest.mark.process

NAMES = ("chromium", "chromium-browser", "google-chrome")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
PREDICT = "#operations-jobs-predict"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("Chromium is not on this machine")
    with sync_playwright() as playwright:
        # Root has no sandbox.
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    page = browser.new_page()
    yield page
    page.close()


def watched(page: Page) -> tuple[list[str], list[str]]:
    """The addresses that the page asks for, and what its console complains of."""
    asked: list[str] = []
    said: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: said.append(line.text))
    page.on("pageerror", lambda error: said.append(str(error)))
    return asked, said


def try_predict(page: Page) -> Any:
    """Submit the example of the documentation by its buttons; the status that came back."""
    operation = page.locator(PREDICT)
    operation.locator(".opblock-summary-control").click()
    operation.get_by_role("button", name="Try it out").click()
    operation.get_by_role("button", name="Execute").click()
    return operation.locator(".live-responses-table tbody .response-col_status").first


def test_the_documentation_submits_a_job_and_asks_nobody_else(
    page: Page, web_url: str, jobs: Jobs
) -> None:
    asked, said = watched(page)
    with WebServer(web_url) as web:
        page.goto(f"http://127.0.0.1:{web.port}/docs")
        expect(try_predict(page)).to_contain_text("202")

    assert jobs.count("pending") == 1
    assert all(address.startswith(f"http://127.0.0.1:{web.port}/") for address in asked)
    assert said == []


def test_the_documentation_takes_an_api_key(
    page: Page, web_url: str, jobs: Jobs, db: psycopg.Connection[Any]
) -> None:
    _, key = keys.create(db, "shop")
    with WebServer(web_url, JOBRUNNER_REQUIRE_KEYS="on") as web:
        page.goto(f"http://127.0.0.1:{web.port}/docs")
        page.get_by_role("button", name="Authorize").click()
        dialog = page.locator(".modal-ux")
        dialog.get_by_role("textbox").fill(key)
        dialog.get_by_role("button", name="Apply credentials").click()
        dialog.get_by_role("button", name="Close").click()
        expect(try_predict(page)).to_contain_text("202")

    assert [row[0] for row in jobs.db.execute("select client_id from job")] == ["shop"]
