"""The dashboard as a person sees it: in a real browser, which asks no other host."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from playwright.sync_api import Browser, Page, expect

from browsers import watched
from helpers import Jobs, login_url
from jobrunner import keys
from processes import system
from web_server import WebServer

pytestmark = pytest.mark.process

SECONDS = 20_000
SCRIPT = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
NARROW = {"width": 360, "height": 740}
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"


@pytest.fixture
def web(web_url: str) -> Iterator[WebServer]:
    with WebServer(web_url) as server:
        yield server


@pytest.fixture
def address(web: WebServer) -> str:
    return f"http://127.0.0.1:{web.port}/"


def region(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name)


def is_live(page: Page) -> None:
    expect(page.get_by_role("status", name="Connection")).to_have_text("Live", timeout=SECONDS)


def submit(page: Page, text: str) -> Any:
    """Submit a text; where its job is shown."""
    page.get_by_label("Text", exact=True).fill(text)
    page.get_by_role("button", name="Submit").click()
    return region(page, "Your job")


def rows(page: Page) -> Any:
    return page.get_by_role("table", name="Jobs", exact=True).locator("tbody tr")


def test_a_text_is_submitted_and_watched_to_its_result(
    page: Page, address: str, runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    asked, said = watched(page)
    page.goto(address)
    is_live(page)

    job = submit(page, "I love it")
    expect(job).to_contain_text("pending")
    expect(job).to_contain_text("It is next")
    expect(rows(page)).to_have_count(1)
    with system(runner_url, tmp_path) as services:
        services.runner("--workers", "1", MOCK_DELAY_SECONDS=1)
        expect(job).to_contain_text("processing", timeout=SECONDS)
        expect(job).to_contain_text("positive", timeout=SECONDS)
        expect(job).to_contain_text("confidence 95%")
        expect(rows(page).first).to_contain_text("completed")
        expect(page.get_by_role("table", name="Runners")).to_contain_text("idle", timeout=SECONDS)

    assert jobs.count("completed") == 1
    assert all(each.startswith(address) for each in asked)
    assert said == []


def test_the_list_follows_what_others_submit(page: Page, address: str, jobs: Jobs) -> None:
    page.goto(address)
    is_live(page)
    expect(region(page, "Jobs")).to_contain_text("No job yet")
    expect(region(page, "Jobs")).to_contain_text(f"curl -X POST {address}predict")

    job_id = jobs.add()

    expect(rows(page)).to_have_count(1)
    expect(rows(page).first.get_by_role("link")).to_have_attribute("title", job_id)
    jobs.start(job_id)
    jobs.finish(job_id)
    expect(rows(page).first).to_contain_text("completed")


def test_jobs_are_filtered_and_paged(page: Page, address: str, jobs: Jobs) -> None:
    failed = jobs.add(status="failed")
    jobs.add_many(45)
    page.goto(address)
    is_live(page)
    expect(rows(page)).to_have_count(20)

    page.get_by_role("button", name="Older").click()
    expect(page.get_by_role("status", name="Which page")).to_contain_text("Page 2")
    page.get_by_role("button", name="Older").click()
    expect(rows(page)).to_have_count(6)
    page.get_by_role("button", name="Newest").click()
    expect(rows(page)).to_have_count(20)
    region(page, "Jobs").get_by_label("Status").select_option("failed")

    expect(rows(page)).to_have_count(1)
    expect(rows(page).first.get_by_role("link")).to_have_attribute("title", failed)
    assert page.url.endswith("#/?status=failed")
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_a_job_has_an_address_of_its_own(page: Page, address: str, jobs: Jobs) -> None:
    job_id = jobs.add(status="failed")
    page.goto(address)
    rows(page).first.get_by_role("link").click()

    heading = page.get_by_role("heading", name=f"Job {job_id}")
    expect(heading).to_be_focused()
    assert page.url == f"{address}#/jobs/{job_id}"
    expect(region(page, "What came of it")).to_contain_text("model_error")
    expect(region(page, "Input")).to_contain_text("I love it")
    page.reload()
    expect(heading).to_be_visible()
    page.go_back()
    expect(rows(page)).to_have_count(1)
    page.go_forward()
    expect(heading).to_be_visible()


def test_a_job_is_cancelled_and_retried_by_its_buttons(
    page: Page, address: str, jobs: Jobs
) -> None:
    job_id = jobs.add()
    page.goto(f"{address}#/jobs/{job_id}")

    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("alert").filter(has_text="Cancelled.")).to_be_visible()
    expect(page.get_by_role("status", name="How the job stands")).to_have_text("It was cancelled.")
    page.get_by_role("button", name="Retry").click()

    expect(page.get_by_role("status", name="How the job stands")).to_contain_text("It is next")
    expect(region(page, "Facts").get_by_role("link")).to_have_attribute("title", job_id)
    assert jobs.count("pending") == 1


def test_a_job_that_is_not_there_is_told(page: Page, address: str) -> None:
    page.goto(f"{address}#/jobs/0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70")

    expect(page.get_by_role("status", name="How the job stands")).to_contain_text("no such job")


def test_what_users_and_models_say_is_text(page: Page, address: str, jobs: Jobs) -> None:
    job_id = jobs.add(SCRIPT, status="failed")
    other = jobs.add(SCRIPT, status="processing", model="other")
    jobs.db.execute("insert into model (name) values (%s)", ["other"])
    jobs.db.execute(
        """
        update job
        set
            status = 'failed',
            lease_token = null,
            finished_at = clock_timestamp(),
            error = jsonb_build_object('code', 'model_error', 'message', %(said)s::text,
                'retryable', true)
        where id = %(id)s
        """,
        {"said": SCRIPT, "id": other},
    )
    jobs.add_runner("here-1-abcd")
    jobs.db.execute("update runner set trouble = %s, host = %s", [SCRIPT, SCRIPT])
    asked, said = watched(page)
    page.goto(address)
    expect(page.get_by_role("table", name="Runners")).to_contain_text("<script>")

    for each in (job_id, other):
        page.goto(f"{address}#/jobs/{each}")
        expect(region(page, "Input")).to_contain_text(SCRIPT)
    expect(region(page, "What came of it")).to_contain_text(SCRIPT)

    assert page.locator("main img, main script").count() == 0
    assert page.title() != "taken"
    assert all(each.startswith(address) for each in asked)
    assert said == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_as_the_system_has_them_and_as_the_button_says(
    scheme: Any, browser: Browser, address: str
) -> None:
    page = browser.new_page(color_scheme=scheme)
    try:
        page.goto(address)
        as_system = page.evaluate(BACKGROUND)
        page.get_by_role("button", name="Colours: Auto").click()
        light = page.evaluate(BACKGROUND)
        page.get_by_role("button", name="Colours: Light").click()
        dark = page.evaluate(BACKGROUND)
        page.reload()

        assert light != dark
        assert as_system == {"light": light, "dark": dark}[scheme]
        assert page.evaluate(BACKGROUND) == dark
    finally:
        page.close()


def test_a_narrow_screen_is_wide_enough(browser: Browser, address: str, jobs: Jobs) -> None:
    job_id = jobs.add("word" * 500, status="failed")
    jobs.add_runner("a-host-with-quite-a-long-name-in-its-domain-1234-abcd")
    jobs.add_many(3)
    page = browser.new_page(viewport=NARROW)  # type: ignore[arg-type]
    try:
        page.goto(address)
        is_live(page)
        expect(rows(page)).to_have_count(4)
        wide, width = page.evaluate(WIDTHS)
        assert wide == width
        page.goto(f"{address}#/jobs/{job_id}")
        expect(region(page, "Input")).to_contain_text("wordword")
        wide, width = page.evaluate(WIDTHS)
        assert wide == width
    finally:
        page.close()


def test_the_page_says_that_the_database_is_away_and_recovers(page: Page, own_server: Any) -> None:
    with WebServer(login_url(own_server.url, "web_login")) as web:
        page.goto(f"http://127.0.0.1:{web.port}/")
        is_live(page)
        own_server.stop()

        link = page.get_by_role("status", name="Connection")
        expect(link).to_have_text("Database away", timeout=SECONDS)
        expect(page.get_by_role("status", name="Notices")).to_contain_text("goes on by itself")
        own_server.start()
        is_live(page)
        expect(page.get_by_role("status", name="Notices")).to_be_empty()
        job = submit(page, "I love it")
        expect(job).to_contain_text("pending")


@pytest.fixture
def locked(web_url: str) -> Iterator[str]:
    """The address of a web that wants keys."""
    with WebServer(web_url, JOBRUNNER_REQUIRE_KEYS="on") as server:
        yield f"http://127.0.0.1:{server.port}/"


def key_box(page: Page) -> Any:
    return page.get_by_role("textbox", name="API key")


def unlock(page: Page, key: str) -> None:
    key_box(page).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_client_gives_its_key_and_sees_its_own(
    page: Page, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    _, key = keys.create(db, "shop")
    jobs.add("of somebody else")
    page.goto(locked)
    expect(key_box(page)).to_be_focused()
    unlock(page, "jr_00000000_" + "a" * 43)
    expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()

    unlock(page, key)
    expect(region(page, "The queue now")).to_contain_text("key of an operator")
    expect(submit(page, "I love it")).to_contain_text("pending")
    expect(rows(page)).to_have_count(1)

    assert key not in page.url
    assert page.evaluate("JSON.stringify(localStorage)").find(key) < 0
    page.reload()
    expect(rows(page)).to_have_count(1)
    page.get_by_role("button", name="Forget key").click()
    expect(key_box(page)).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    assert rows(page).count() == 0


def test_an_operator_gives_his_key_and_sees_all(
    page: Page, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    _, key = keys.create(db, "ops", operator=True)
    jobs.add("of somebody else")
    asked, said = watched(page)
    page.goto(locked)
    unlock(page, key)

    is_live(page)
    expect(rows(page)).to_have_count(1)
    expect(region(page, "The queue now")).to_contain_text("No runner is there")
    assert not [each for each in asked if key in each]
    assert said == []


def test_a_key_that_is_revoked_is_asked_for_anew(
    page: Page, locked: str, db: psycopg.Connection[Any]
) -> None:
    key_id, key = keys.create(db, "shop")
    page.goto(locked)
    unlock(page, key)
    expect(region(page, "Jobs")).to_contain_text("No job yet")

    keys.revoke(db, key_id)

    expect(key_box(page)).to_be_visible(timeout=SECONDS)
    expect(page.get_by_role("alert").filter(has_text="not valid")).to_be_visible()


def test_all_that_can_be_done_can_be_done_by_keyboard(page: Page, address: str, jobs: Jobs) -> None:
    page.goto(address)
    is_live(page)
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()

    page.keyboard.type("I love it")
    page.keyboard.press("Control+Enter")

    expect(region(page, "Your job")).to_contain_text("pending")
    expect(page.get_by_label("Text", exact=True)).to_be_focused()


def test_news_do_not_take_the_focus_from_a_row(page: Page, address: str, jobs: Jobs) -> None:
    first = jobs.add()
    page.goto(address)
    link = page.get_by_title(first)
    link.focus()

    jobs.start(first)
    jobs.add_many(3)

    more = page.get_by_role("button", name="Show 3 newer jobs")
    expect(more).to_be_visible()
    expect(rows(page)).to_have_count(1)
    expect(rows(page).first).to_contain_text("processing")
    expect(link).to_be_focused()
    more.click()
    expect(rows(page)).to_have_count(4)
