"""What a person sees in a browser: a real one, which makes no request to any other host."""

from typing import Any

import psycopg
import pytest
from playwright.sync_api import Page, expect

from browsers import watched
from helpers import Jobs
from jobrunner import keys
from web_server import WebServer

pytestmark = pytest.mark.process

PREDICT = "#operations-jobs-predict"


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
