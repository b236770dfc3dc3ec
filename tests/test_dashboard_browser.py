"""The dashboard as a person sees it: in a real browser, which asks no other host.

One web serves all who need no other: each test finds the tables empty, and has a page of its own.
"""

import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import psycopg
import pytest
from playwright.sync_api import Page, Route, expect

from browsers import NO_ANSWER, answers, watched
from helpers import RUNNER, Jobs, login_url
from jobrunner import keys
from processes import TOLD, system
from test_dashboard import record
from web_server import WebServer, add_crew

pytestmark = pytest.mark.process

SCRIPT = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
NARROW = {"width": 360, "height": 740}
WIDTHS = "[document.documentElement.scrollWidth, window.innerWidth]"
BACKGROUND = "getComputedStyle(document.body).backgroundColor"
LONG_RUNNER = "a-host-with-quite-a-long-name-in-its-domain-1234-abcd"
SERVE = "insert into runner_model (runner, model, version, workers) values (%s, %s, %s, 2)"
NOWHERE = "0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"
HERE = "http://127.0.0.1:"
FOCUS = """() => {
    const { activeElement } = document;
    const { outlineStyle, outlineWidth } = getComputedStyle(activeElement);
    const name = activeElement.getAttribute("aria-label")
        ?? activeElement.labels?.[0]?.firstChild.textContent ?? activeElement.textContent;
    return [name.trim(), `${outlineStyle} ${outlineWidth}`];
}"""

OpenPage = Callable[..., Page]
Expects = Callable[..., None]


@pytest.fixture(scope="module")
def web(owner_url: str) -> Iterator[WebServer]:
    with WebServer(login_url(owner_url, "web_login"), WEB_CONCURRENCY="1") as server:
        yield server


@pytest.fixture
def address(web: WebServer, jobs: Jobs) -> str:
    return f"{HERE}{web.port}/"


@pytest.fixture
def expected() -> dict[int, bool]:
    """Which errors may be answered in this test, and whether they have to be."""
    return {}


@pytest.fixture
def expects(expected: dict[int, bool]) -> Expects:
    """Says which errors are to be answered: all of them, and no others."""

    def expects(*statuses: int, perhaps: int | None = None) -> None:
        expected.update(dict.fromkeys(statuses, True))
        if perhaps is not None:
            expected[perhaps] = False

    return expects


@pytest.fixture
def open_page(open_page: OpenPage, expected: dict[int, bool]) -> Iterator[OpenPage]:
    """Opens pages that ask no other host, and have nothing to complain of but what is expected."""
    heard: list[tuple[list[str], list[str]]] = []

    def opened(**options: Any) -> Page:
        page = open_page(**options)
        heard.append(watched(page))
        return page

    yield opened
    answered: set[int] = set()
    for asked, said in heard:
        statuses, others = answers(said)
        answered |= statuses
        assert [each for each in asked if not each.startswith(HERE)] == []
        assert others == []
    assert answered <= expected.keys()
    assert {status for status, must_be in expected.items() if must_be} <= answered


@pytest.fixture
def page(open_page: OpenPage) -> Page:
    return open_page()


def region(page: Page, name: str) -> Any:
    return page.get_by_role("region", name=name)


def is_live(page: Page) -> None:
    expect(link(page)).to_have_text("Live")


def link(page: Page) -> Any:
    """What the page says of its connection."""
    return page.get_by_role("status", name="Connection")


def notice(page: Page) -> Any:
    return page.get_by_role("status", name="Notices")


def standing(page: Page) -> Any:
    """How the job that is shown stands."""
    return page.get_by_role("status", name="How the job stands")


def alert(page: Page, said: str) -> Any:
    return page.get_by_role("alert").filter(has_text=said)


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
    page.goto(address)
    is_live(page)

    go = tmp_path / "go"
    job = submit(page, f"await {go}")
    expect(job).to_contain_text("pending")
    expect(job).to_contain_text("It is next")
    expect(rows(page)).to_have_count(1)
    with system(runner_url, tmp_path) as services:
        services.runner("--workers", "1", *TOLD, TOLD_TIMEOUT_SECONDS=600)
        expect(job).to_contain_text("processing")
        go.touch()
        expect(job).to_contain_text("positive")
        expect(job).to_contain_text("confidence 50%")
        expect(rows(page).first).to_contain_text("completed")
        expect(page.get_by_role("table", name="Runners")).to_contain_text("idle")

    assert jobs.count("completed") == 1


def test_a_job_tells_its_place_and_how_far_it_is(page: Page, address: str, jobs: Jobs) -> None:
    jobs.add_many(2)
    add_crew(jobs, workers=1, seconds=4)
    page.goto(address)
    job = submit(page, "I love it")
    expect(job).to_contain_text("2 jobs ahead; done in about")
    [(job_id,)] = jobs.db.execute("select id::text from job order by id desc limit 1").fetchall()

    jobs.start(job_id)
    expect(job).to_contain_text("The model is at work.")
    progress(jobs, job_id, 0.25, "reading")
    expect(job).to_contain_text("25%: reading")
    expect(job.get_by_role("img", name="Progress 25%")).to_be_visible()
    progress(jobs, job_id, 0.75, SCRIPT[:100])
    expect(job).to_contain_text(f"75%: {SCRIPT[:100]}")
    expect(rows(page).first).to_contain_text("75%")
    jobs.finish(job_id)

    expect(job).to_contain_text("positive")
    assert page.title() == "jobrunner"
    assert page.locator("main img").count() == 0


def progress(jobs: Jobs, job_id: str, fraction: float, word: str) -> None:
    """Say how far a job is, as its runner would."""
    jobs.db.execute(
        """
        insert into job_progress (job_id, attempt, fraction, word)
        values (%s, 1, %s, %s)
        on conflict (job_id) do update
        set
            fraction = excluded.fraction,
            word = excluded.word,
            updated_at = clock_timestamp()
        """,
        [job_id, fraction, word],
    )


def test_a_text_that_is_refused_is_told_why(
    page: Page, expects: Expects, address: str, jobs: Jobs
) -> None:
    expects(422)
    page.goto(address)
    is_live(page)

    submit(page, "a" * 10_001)
    expect(alert(page, "text: ")).to_contain_text("10000")
    submit(page, "   ")
    expect(alert(page, "text: ")).to_contain_text("white space")
    expect(submit(page, "I love it")).to_contain_text("pending")

    assert jobs.count() == 1


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
    jobs.db.execute("delete from job")
    expect(region(page, "Jobs")).to_contain_text("No job yet")


def test_all_who_look_are_told(open_page: OpenPage, address: str, jobs: Jobs) -> None:
    one, other = open_page(), open_page()
    for page in (one, other):
        page.goto(address)
        is_live(page)

    submit(one, "I love it")

    for page in (one, other):
        expect(rows(page)).to_have_count(1)
        expect(region(page, "The queue now")).to_contain_text("jobs wait until one is started")


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
    expect(page.get_by_role("button", name="Older")).to_be_disabled()
    page.get_by_role("button", name="Newer").click()
    expect(page.get_by_role("status", name="Which page")).to_contain_text("Page 2")
    expect(rows(page)).to_have_count(20)
    page.get_by_role("button", name="Newest").click()
    expect(page.get_by_role("status", name="Which page")).to_contain_text("The newest")
    expect(rows(page)).to_have_count(20)
    region(page, "Jobs").get_by_label("Status").select_option("failed")

    expect(rows(page)).to_have_count(1)
    expect(rows(page).first.get_by_role("link")).to_have_attribute("title", failed)
    expect(page).to_have_url(f"{address}#/?status=failed")
    page.reload()
    expect(rows(page)).to_have_count(1)


def test_every_filter_leaves_the_others_out(
    page: Page, expects: Expects, address: str, jobs: Jobs
) -> None:
    expects(422)
    jobs.db.execute("insert into model (name) values ('other')")
    pending, failed = jobs.add(), jobs.add(status="failed")
    done, busy = jobs.add(status="completed"), jobs.add(status="processing")
    other, batched = jobs.add(model="other"), jobs.add(status="completed")
    jobs.db.execute("update job set batch_id = %s where id = %s", [NOWHERE, other])
    page.goto(address)
    is_live(page)
    expect(rows(page)).to_have_count(6)
    form = page.get_by_role("form", name="Which jobs")

    for status, ids in (
        ("pending", [other, pending]),
        ("processing", [busy]),
        ("completed", [batched, done]),
        ("failed", [failed]),
    ):
        form.get_by_label("Status").select_option(status)
        shows(page, ids)
    form.get_by_label("Status").select_option("")
    form.get_by_label("Model").select_option("other")
    shows(page, [other])
    form.get_by_label("Model").select_option("")
    form.get_by_label("Batch").fill("nonsense")
    form.get_by_label("Batch").press("Tab")
    expect(alert(page, "whole id")).to_be_visible()
    form.get_by_label("Batch").fill(NOWHERE)
    form.get_by_label("Batch").press("Tab")
    shows(page, [other])
    form.get_by_label("Status").select_option("failed")
    expect(region(page, "Jobs")).to_contain_text("No job is like that.")
    page.get_by_role("button", name="Show all").click()
    expect(rows(page)).to_have_count(6)
    page.goto(f"{address}#/?status=nonsense")
    expect(region(page, "Jobs")).to_contain_text("can not be read")


def test_a_filter_holds_wherever_the_focus_goes(page: Page, address: str, jobs: Jobs) -> None:
    old = jobs.add()
    jobs.db.execute("update job set batch_id = %s where id = %s", [NOWHERE, old])
    jobs.add_many(20)
    page.goto(address)
    is_live(page)
    expect(rows(page)).to_have_count(20)
    expect(page.get_by_title(old)).to_have_count(0)

    batch = page.get_by_role("form", name="Which jobs").get_by_label("Batch")
    batch.fill(NOWHERE)
    # To the first row.
    batch.press("Tab")

    shows(page, [old])


def shows(page: Page, ids: list[str]) -> None:
    """Wait until the list has these jobs, in this order."""
    links = rows(page).get_by_role("link")
    expect(links).to_have_text([f"…{job_id[-8:]}" for job_id in ids])


def test_a_thousand_jobs_are_paged_through(page: Page, address: str, jobs: Jobs) -> None:
    jobs.db.execute(
        """
        insert into job (model, input)
        select 'sentiment', jsonb_build_object('text', number)
        from generate_series(1, 1000) as number
        """
    )
    ids = [row[0] for row in jobs.db.execute("select id::text from job order by id desc")]
    page.goto(address)
    is_live(page)
    expect(region(page, "The queue now")).to_contain_text("1,000")

    older = page.get_by_role("button", name="Older")
    # No job twice, and none missing: page by page they are what the table has.
    for place in range(49):
        shows(page, ids[place * 20 : place * 20 + 20])
        # Twice in haste is once: the second click comes before any answer.
        older.evaluate("button => { button.click(); button.click(); }")
        expect(page.get_by_role("status", name="Which page")).to_contain_text(f"Page {place + 2}")
    shows(page, ids[980:])
    expect(older).to_be_disabled()
    for place in (48, 47):
        page.get_by_role("button", name="Newer").click()
        shows(page, ids[place * 20 : place * 20 + 20])


def test_a_job_has_an_address_of_its_own(page: Page, address: str, jobs: Jobs) -> None:
    job_id = jobs.add(status="failed")
    page.goto(address)
    # (What is shown at first may be a second old, and of an earlier test.)
    shows(page, [job_id])
    rows(page).first.get_by_role("link").click()

    heading = page.get_by_role("heading", name=f"Job {job_id}")
    expect(heading).to_be_focused()
    expect(page).to_have_url(f"{address}#/jobs/{job_id}")
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

    page.get_by_role("button", name="Cancel the job").press("Enter")
    expect(alert(page, "Cancelled.")).to_be_visible()
    expect(standing(page)).to_have_text("It was cancelled.")
    expect(page.get_by_role("heading", name=f"Job {job_id}")).to_be_focused()
    page.get_by_role("button", name="Retry").press("Enter")

    expect(standing(page)).to_contain_text("It is next")
    expect(region(page, "Facts").get_by_role("link")).to_have_attribute("title", job_id)
    assert jobs.count("pending") == 1


def test_an_answer_that_comes_late_is_not_taken_for_the_job_that_is_shown_by_then(
    page: Page, address: str, jobs: Jobs
) -> None:
    first, second = jobs.add(), jobs.add()
    held: list[Route] = []
    page.route("**/cancel", lambda route: held.append(route))
    page.goto(f"{address}#/jobs/{first}")
    page.get_by_role("button", name="Cancel the job").click()
    expect(page.get_by_role("button", name="Cancel the job")).to_be_disabled()

    page.goto(f"{address}#/jobs/{second}")
    expect(standing(page)).to_contain_text("ahead")
    with page.expect_request_finished(lambda request: request.url.endswith("/cancel")):
        held[0].continue_()
    # What is asked after it is answered after it.
    page.evaluate("() => fetch('/livez').then((response) => response.text())")

    # At once: the next news of the second job would put it right.
    assert standing(page).text_content() != "It was cancelled."
    assert page.get_by_role("button", name="Retry").is_hidden()
    assert jobs.get(first)["status"] == "failed"


def test_the_first_jobs_of_an_hour_are_drawn_as_soon_as_they_are_counted(
    page: Page, web_url: str, jobs: Jobs
) -> None:
    # One of its own: it has not read another hour before.
    with WebServer(web_url, WEB_CONCURRENCY="1") as web:
        page.goto(f"{HERE}{web.port}/")
        hour = region(page, "The last hour")
        nothing = hour.get_by_text("Nothing is counted yet")
        expect(nothing).to_be_visible()
        expect(hour.get_by_role("figure")).to_have_count(0)

        record(jobs.db, "sentiment", [0.5], [1, 1, 1])

        expect(nothing).to_be_hidden()
        finished = hour.get_by_role("img", name="Finished a minute")
        expect(finished).to_have_attribute("aria-label", re.compile("at most 3; failed"))


def test_a_job_that_is_not_there_is_told(page: Page, expects: Expects, address: str) -> None:
    expects(404)
    page.goto(f"{address}#/jobs/{NOWHERE}")

    expect(standing(page)).to_contain_text("no such job")


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
    page.goto(address)
    expect(page.get_by_role("table", name="Runners")).to_contain_text("<script>")
    is_text(page)

    for each in (job_id, other):
        page.goto(f"{address}#/jobs/{each}")
        expect(region(page, "Input")).to_contain_text(SCRIPT)
    expect(region(page, "What came of it")).to_contain_text(SCRIPT)

    is_text(page)


def test_what_a_model_gives_is_text(page: Page, address: str, jobs: Jobs) -> None:
    whole = give(jobs, "I love it", {SCRIPT: [SCRIPT, {"sentiment": SCRIPT}]})
    # Of the shape that the page shows as a judgement.
    judged = give(jobs, "I hate it", {"sentiment": SCRIPT, "confidence": 0.5})
    page.goto(address)
    expect(rows(page)).to_have_count(2)
    is_text(page)

    page.goto(f"{address}#/jobs/{whole}")
    result = region(page, "What came of it").get_by_label("Result")
    expect(result).to_have_text(json.dumps({SCRIPT: [SCRIPT, {"sentiment": SCRIPT}]}, indent=2))
    is_text(page)
    page.goto(f"{address}#/jobs/{judged}")
    expect(region(page, "What came of it")).to_contain_text(SCRIPT)
    expect(region(page, "What came of it")).to_contain_text("confidence 50%")
    is_text(page)


def give(jobs: Jobs, text: str, result: dict[str, Any], version: str = "1") -> str:
    """Have that version of another model complete a job with that result; its id."""
    job_id = jobs.add(text, status="processing", model="other")
    jobs.db.execute(
        """
        update job
        set
            status = 'completed',
            lease_token = null,
            finished_at = clock_timestamp(),
            result = %s,
            model_version = %s
        where id = %s
        """,
        [json.dumps(result), version, job_id],
    )
    return job_id


def test_what_a_version_is_called_is_text(page: Page, address: str, jobs: Jobs) -> None:
    jobs.add_runner("here-1-abcd")
    jobs.db.execute("update runner set version = %s", [SCRIPT])
    jobs.db.execute(SERVE, ["here-1-abcd", "sentiment", SCRIPT])
    job_id = give(jobs, "I love it", {"stars": 5}, SCRIPT)
    page.goto(address)

    for table in ("Models", "Runners"):
        expect(page.get_by_role("table", name=table)).to_contain_text(SCRIPT)
    is_text(page)
    page.goto(f"{address}#/jobs/{job_id}")
    expect(region(page, "Facts")).to_contain_text(SCRIPT)
    is_text(page)


def is_text(page: Page) -> None:
    """Whether what came from elsewhere has become no part of the page, and was not run."""
    assert page.locator("img, main script").count() == 0
    # Whoever was run late is run before this is.
    page.evaluate("() => new Promise((done) => requestAnimationFrame(() => setTimeout(done)))")
    assert "taken" not in page.title()


def test_an_address_is_text_too(page: Page, expects: Expects, address: str) -> None:
    """Models are named plainly, the database holds; an address is anybody's."""
    expects(404)
    page.goto(f"{address}#/?model={quote(SCRIPT, safe='')}")
    expect(region(page, "Jobs")).to_contain_text("No job is like that.")
    page.goto(f"{address}#/jobs/{quote(SCRIPT, safe='')}")
    expect(standing(page)).to_contain_text("no such job")

    expect(page.get_by_role("heading")).to_contain_text("<script>")
    is_text(page)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_colours_are_as_the_system_has_them_and_as_the_button_says(
    scheme: str, open_page: OpenPage, address: str
) -> None:
    page = open_page(color_scheme=scheme)
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


def test_a_narrow_screen_is_wide_enough(open_page: OpenPage, address: str, jobs: Jobs) -> None:
    job_id = jobs.add("word" * 500, status="failed")
    jobs.add_runner(LONG_RUNNER)
    jobs.db.execute(SERVE, [LONG_RUNNER, "sentiment", "version " * 12])
    jobs.add_many(3)
    page = open_page(viewport=NARROW)
    page.goto(address)
    is_live(page)
    expect(rows(page)).to_have_count(4)
    wide, width = page.evaluate(WIDTHS)
    assert wide == width
    page.goto(f"{address}#/jobs/{job_id}")
    expect(region(page, "Input")).to_contain_text("wordword")
    wide, width = page.evaluate(WIDTHS)
    assert wide == width


def test_the_page_says_that_the_database_is_away_and_recovers(
    page: Page, expects: Expects, own_server: Any
) -> None:
    expects(503)
    with WebServer(login_url(own_server.url, "web_login")) as web:
        page.goto(f"http://127.0.0.1:{web.port}/")
        is_live(page)
        own_server.stop()

        expect(link(page)).to_have_text("Database away")
        expect(notice(page)).to_contain_text("goes on by itself")
        submit(page, "I love it")
        expect(alert(page, "database")).to_be_visible()
        own_server.start()
        is_live(page)
        expect(notice(page)).to_be_empty()
        expect(rows(page)).to_have_count(0)
        expect(submit(page, "I love it")).to_contain_text("pending")
        expect(rows(page)).to_have_count(1)


def test_the_page_outlives_the_web(page: Page, expects: Expects, web_url: str, jobs: Jobs) -> None:
    # That it is about to end, or that it is gone.
    expects(NO_ANSWER, perhaps=503)
    with WebServer(web_url, WEB_CONCURRENCY="1") as server:
        page.goto(f"{HERE}{server.port}/")
        job = submit(page, "I love it")
        expect(job).to_contain_text("It is next")
        server.stop()
        expect(link(page)).to_have_text("Service away")
        expect(notice(page)).to_contain_text("goes on by itself")
        [(job_id,)] = jobs.db.execute("select id::text from job").fetchall()
        jobs.start(job_id)
        jobs.finish(job_id)
        server.start()

        is_live(page)
        expect(job).to_contain_text("positive")
        expect(rows(page).first).to_contain_text("completed")


@pytest.fixture(scope="module")
def web_with_keys(owner_url: str) -> Iterator[WebServer]:
    url = login_url(owner_url, "web_login")
    with WebServer(url, WEB_CONCURRENCY="1", JOBRUNNER_REQUIRE_KEYS="on") as server:
        yield server


@pytest.fixture
def locked(web_with_keys: WebServer, jobs: Jobs) -> str:
    """The address of a web that wants keys."""
    return f"{HERE}{web_with_keys.port}/"


def key_box(page: Page) -> Any:
    return page.get_by_role("textbox", name="API key")


def unlock(page: Page, key: str) -> None:
    key_box(page).fill(key)
    page.get_by_role("button", name="Use it").click()


def test_a_client_gives_its_key_and_sees_its_own(
    page: Page, expects: Expects, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    # That a key is not valid is all that the browser has to tell.
    expects(401)
    _, key = keys.create(db, "shop")
    jobs.add("of somebody else")
    page.goto(locked)
    expect(key_box(page)).to_be_focused()
    for wrong in ("jr_00000000_" + "a" * 43, "schlüssel €"):
        unlock(page, wrong)
        expect(alert(page, "not valid")).to_be_visible()
        assert page.evaluate("sessionStorage.length") == 0

    unlock(page, key)
    expect(region(page, "The queue now")).to_contain_text("key of an operator")
    expect(submit(page, "I love it")).to_contain_text("pending")
    expect(rows(page)).to_have_count(1)

    assert key not in page.url
    assert page.evaluate("JSON.stringify(localStorage)").find(key) < 0
    page.reload()
    expect(rows(page)).to_have_count(1)
    expect(region(page, "The queue now")).to_contain_text("key of an operator")
    page.get_by_role("button", name="Forget key").click()
    expect(key_box(page)).to_be_focused()
    assert page.evaluate("sessionStorage.length") == 0
    assert page.locator("tbody tr").count() == 0
    assert page.get_by_label("Text", exact=True).input_value() == ""
    page.reload()
    expect(key_box(page)).to_be_focused()


def test_who_has_too_many_jobs_waiting_is_told(
    page: Page, expects: Expects, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    expects(429)
    _, key = keys.create(db, "shop", max_pending=1)
    page.goto(locked)
    unlock(page, key)
    expect(submit(page, "I love it")).to_contain_text("pending")

    submit(page, "I hate it")

    expect(alert(page, "waiting")).to_be_visible()
    assert jobs.count() == 1


def test_a_client_does_not_see_the_job_of_another(
    page: Page, expects: Expects, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    expects(404)
    _, key = keys.create(db, "shop")
    job_id = jobs.add("a secret")
    page.goto(f"{locked}#/jobs/{job_id}")
    unlock(page, key)

    expect(standing(page)).to_contain_text("no such job")
    assert "a secret" not in page.content()


def test_an_operator_gives_his_key_and_sees_all(
    page: Page, locked: str, db: psycopg.Connection[Any], jobs: Jobs
) -> None:
    _, key = keys.create(db, "ops", operator=True)
    jobs.add("of somebody else")
    asked, _ = watched(page)
    page.goto(locked)
    unlock(page, key)

    is_live(page)
    expect(rows(page)).to_have_count(1)
    expect(region(page, "The queue now")).to_contain_text("No runner is there")
    assert not [each for each in asked if key in each]


def test_a_key_that_is_revoked_is_asked_for_anew(
    page: Page, expects: Expects, locked: str, db: psycopg.Connection[Any]
) -> None:
    expects(401)
    key_id, key = keys.create(db, "shop")
    page.goto(locked)
    unlock(page, key)
    expect(region(page, "Jobs")).to_contain_text("No job yet")

    keys.revoke(db, key_id)

    expect(key_box(page)).to_be_visible()
    expect(alert(page, "not valid")).to_be_visible()


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


def test_the_focus_goes_through_the_page_in_its_order_and_is_seen(
    page: Page, address: str, jobs: Jobs
) -> None:
    job_id = jobs.add()
    jobs.add_many(20)
    page.goto(f"{address}#/?status=pending")
    expect(rows(page)).to_have_count(20)
    is_live(page)
    expect(page.get_by_role("table", name="Models")).to_be_visible()
    seen: list[str] = []
    page.keyboard.press("Tab")
    while (found := page.evaluate(FOCUS))[0] != "Older":
        assert found[1] == "solid 2px", found
        # The plots have theirs, where there is something to show.
        if not found[0].startswith("Table"):
            seen.append(found[0])
        page.keyboard.press("Tab")

    expected = ("Skip to", "jobrunner", "API", "Colours", "Text", "Submit")
    expected += ("Status", "Model", "Batch", *["…"] * 20)
    assert len(seen) == len(expected)
    assert all(name.startswith(start) for name, start in zip(seen, expected, strict=True))
    page.keyboard.press("Enter")
    shows(page, [job_id])
    expect(page.get_by_role("button", name="Newer")).to_be_focused()
    page.get_by_title(job_id).press("Enter")
    expect(page.get_by_role("heading", name=f"Job {job_id}")).to_be_focused()


def test_who_wants_no_motion_sees_none(open_page: OpenPage, address: str, jobs: Jobs) -> None:
    job_id = jobs.add(status="processing")
    page = open_page(reduced_motion="reduce")
    page.goto(f"{address}#/jobs/{job_id}")

    bar = page.get_by_role("img", name="At work")
    expect(bar).to_be_visible()
    assert bar.evaluate("bar => getComputedStyle(bar.firstChild).animationName") == "none"


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


def test_from_what_a_runner_holds_it_is_one_step_to_what_is_in_work(
    page: Page, address: str, jobs: Jobs
) -> None:
    jobs.add_runner(RUNNER, has_lock=True)
    held = jobs.add(status="processing", claimed_by=RUNNER)
    jobs.add_many(3)
    page.goto(address)
    expect(rows(page)).to_have_count(4)

    page.get_by_role("table", name="Runners").get_by_role("link", name="1", exact=True).click()

    expect(rows(page)).to_have_count(1)
    expect(rows(page).first.get_by_role("link")).to_have_attribute("title", held)
