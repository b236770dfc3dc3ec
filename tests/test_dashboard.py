"""The dashboard behind its page: what it is served with, and how all that look on are told."""

import gzip
import json
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import datetime, timedelta
from itertools import pairwise
from math import inf
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest
from flask import Flask
from flask.testing import FlaskClient

from helpers import Jobs, login_url, wait_for
from jobrunner.activity import Activity
from jobrunner.depth import Depth
from jobrunner.outcome import Job, Outcome
from processes import system
from streams import Stream
from web import create_app, state
from web.dashboard.joining import join
from web.errors import DatabaseUnavailable
from web.history import SETTLE_SECONDS, SOON_SECONDS, percentile
from web.viewers import Topic, Viewer, Viewers
from web_server import WebServer, web_settings

Db = psycopg.Connection[Any]
Events = dict[str, Any]

STATIC = Path(__file__).parent.parent / "web" / "dashboard" / "static"
ALL_BYTES = 100_000
SLACK_SECONDS = 4.0
COLOUR = re.compile(r"--([a-z-]+): light-dark\((#[0-9a-f]{6}), (#[0-9a-f]{6})\);")
TEXTS = ("ink", "muted", "accent", "pending", "processing", "completed", "failed")
SAMPLES = "select minute, pending, oldest_pending_seconds from activity where minute > '-infinity'"


@pytest.fixture(autouse=True)
def closed_streams() -> Iterator[None]:
    yield
    Stream.close_all()


@pytest.fixture
def page(client: FlaskClient) -> str:
    return client.get("/").get_data(as_text=True)


@pytest.fixture
def viewers(app: Flask) -> Viewers:
    found: Viewers = app.extensions["viewers"]
    return found


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """When all was read."""
    found: list[float] = []
    read = state.read

    def counted(*given: Any) -> state.State:
        found.append(monotonic())
        return read(*given)

    monkeypatch.setattr(state, "read", counted)
    return found


@pytest.fixture
def same_history(app: Flask, jobs: Jobs) -> None:
    """The last hour stays as it is read now: a minute that begins would be news."""
    history = app.extensions["history"]
    history.text()
    history._fresh_until = inf


def addresses(page: str) -> list[str]:
    """What the page loads of its own files."""
    return re.findall(r'(?:src|href)="(/dashboard/[^"]+)"', page)


def events(text: str) -> Events:
    """The data of some events, by name."""
    found = {}
    for block in filter(None, text.split("\n\n")):
        name, data = block.split("\n")
        found[name.removeprefix("event: ")] = json.loads(data.removeprefix("data: "))
    return found


def told(viewer: Viewer, *names: str) -> Events:
    """What a viewer is told next, and then until all of that was told.

    It is read in parts: what happens between two of them is told in two looks.
    """
    found: Events = {}

    def is_told() -> bool:
        found.update(events(viewer.next(monotonic() + 1)))
        return bool(found) and found.keys() >= {*names}

    wait_for(is_told, f"there is news: {names}")
    return found


# The page.


def test_the_page_may_load_and_ask_only_what_is_served_here(client: FlaskClient) -> None:
    response = client.get("/")

    assert (response.status_code, response.mimetype) == (200, "text/html")
    policy = response.headers["Content-Security-Policy"].split("; ")
    assert policy == [
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "connect-src 'self'",
        "img-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
        "require-trusted-types-for 'script'",
        "trusted-types 'none'",
    ]
    assert response.headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_has_no_script_and_no_style_in_itself(page: str) -> None:
    assert re.findall(r"<script(?![^>]*\ssrc=)|<style|\sstyle=|\son\w+=|javascript:", page) == []


def test_texts_and_fields_can_be_told_from_what_is_behind_them() -> None:
    """As WCAG 2.2 wants it: 4.5 for texts, 3 for the borders of fields."""
    colours = COLOUR.findall((STATIC / "style.css").read_text())
    assert colours
    light, dark = ({name: both[place] for name, *both in colours} for place in (0, 1))
    for theme in (light, dark):
        for behind in ("card", "paper", "soft", "bad-soft"):
            for text in TEXTS:
                assert contrast(theme[text], theme[behind]) >= 4.5, (text, behind)
        assert contrast(theme["accent-ink"], theme["accent"]) >= 4.5
        assert contrast(theme["field"], theme["card"]) >= 3


def contrast(one: str, other: str) -> float:
    """By WCAG 2.2: from 1 to 21."""
    dark, light = sorted(map(luminance, (one, other)))
    return (light + 0.05) / (dark + 0.05)


def luminance(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def test_no_script_makes_markup_of_data() -> None:
    for file in STATIC.glob("*.js"):
        markup = r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|\beval\b"
        assert not re.search(markup, file.read_text()), file.name


def test_no_file_names_another_host() -> None:
    for file in STATIC.iterdir():
        hosts = set(re.findall(r"https?://[^\"'\s)]*", file.read_text()))
        assert hosts <= {"http://www.w3.org/2000/svg"}, file.name


def test_all_that_the_page_loads_is_there(client: FlaskClient, page: str) -> None:
    responses = [client.get(name) for name in addresses(page)]

    assert {response.status_code for response in responses} == {200}
    types = {response.mimetype for response in responses}
    assert types == {"text/javascript", "text/css", "image/svg+xml"}


def test_the_scripts_are_one_each_after_those_that_it_needs(client: FlaskClient, page: str) -> None:
    [script] = [client.get(name).text for name in addresses(page) if name.endswith(".js")]

    begun = re.findall(r"^const (\w+)_js = ", script, re.MULTILINE)
    assert sorted(begun) == sorted(file.stem for file in STATIC.glob("*.js"))
    for file in STATIC.glob("*.js"):
        for needed in re.findall(r'from "\./(\w+)\.js"', file.read_text()):
            assert begun.index(needed) < begun.index(file.stem)


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ('import { x } from "./main.js";\n', "main.js imports itself, by way of main, b"),
        ("export default class {}\n", "b.js: export default class {}"),
        ("export let a = 1;\n", "b.js: export let a = 1;"),
        ('import a from "./c.js";\n', "b.js: import a from"),
    ],
)
def test_a_script_that_can_not_be_joined_is_named(source: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        join({"main": 'import { a } from "./b.js";\n', "b": source}, "main")


def test_comments_are_not_sent() -> None:
    source = 'const a = "/* text";  // beside it\n  // A line.\n/** Two\n * lines. */\nf(a);\n'

    joined = join({"main": source}, "main")

    assert 'const a = "/* text";  // beside it\nf(a);\n' in joined
    assert "lines" not in joined
    assert "A line" not in joined


def test_the_page_and_its_files_are_small(client: FlaskClient, page: str) -> None:
    sizes = [len(client.get(name).data) for name in set(addresses(page))]

    assert len(page) + sum(sizes) < ALL_BYTES


def test_a_file_is_packed_for_who_takes_it_so(client: FlaskClient, page: str) -> None:
    script = next(name for name in addresses(page) if name.endswith(".js"))
    plain, packed = (
        client.get(script, headers={"Accept-Encoding": taken}) for taken in ("identity", "gzip")
    )

    assert "Content-Encoding" not in plain.headers
    assert packed.headers["Content-Encoding"] == "gzip"
    assert gzip.decompress(packed.data) == plain.data
    assert packed.headers["ETag"] != plain.headers["ETag"]
    assert all("Accept-Encoding" in each.headers["Vary"] for each in (plain, packed))


def test_a_file_is_kept_for_ever_and_the_page_is_asked_for_again(
    client: FlaskClient, page: str
) -> None:
    script = next(name for name in addresses(page) if name.endswith(".js"))
    kept, asked = client.get(script), client.get("/")

    assert kept.headers["Cache-Control"] == "public, max-age=31536000, immutable"
    assert asked.headers["Cache-Control"] == "no-cache"
    for path, response in ((script, kept), ("/", asked)):
        again = client.get(path, headers={"If-None-Match": response.headers["ETag"]})
        assert (again.status_code, again.data) == (304, b"")


def test_a_file_of_another_version_is_not_kept(client: FlaskClient) -> None:
    response = client.get("/dashboard/0123456789abcdef/dashboard.js")

    assert (response.status_code, response.headers["Cache-Control"]) == (200, "no-cache")


@pytest.mark.parametrize(
    "name",
    [
        "nothing.js",
        "main.js",
        "index.html",
        "__init__.py",
        "../__init__.py",
        "..%2f__init__.py",
        "%00",
    ],
)
def test_nothing_but_the_files_of_the_page_is_served(name: str, client: FlaskClient) -> None:
    assert client.get(f"/dashboard/x/{name}").status_code == 404


@pytest.mark.parametrize(("required", "said"), [("on", "on"), ("off", "off")])
def test_the_page_is_open_and_says_whether_a_key_is_needed(
    required: str, said: str, web_url: str
) -> None:
    app = create_app(web_settings(web_url, JOBRUNNER_REQUIRE_KEYS=required))
    response = app.test_client().get("/")

    assert response.status_code == 200
    assert f'name="jobrunner-keys" content="{said}"' in response.get_data(as_text=True)


# A job's input.


def test_the_input_of_a_job_is_shown_and_never_changes(client: FlaskClient, jobs: Jobs) -> None:
    path = f"/jobs/{jobs.add('<b>Großartig!</b>')}/input"

    response = client.get(path)

    assert response.get_json() == {"input": {"text": "<b>Großartig!</b>"}}
    again = client.get(path, headers={"If-None-Match": response.headers["ETag"]})
    assert again.status_code == 304
    assert "immutable" in response.headers["Cache-Control"]


@pytest.mark.parametrize("job_id", ["0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70", "nothing"])
def test_of_a_job_that_is_not_there_there_is_no_input(job_id: str, client: FlaskClient) -> None:
    response = client.get(f"/jobs/{job_id}/input")

    assert (response.status_code, response.mimetype) == (404, "application/problem+json")


# The stream.


@pytest.mark.usefixtures("same_history")
def test_who_looks_is_told_the_whole_and_then_what_changes(viewers: Viewers, jobs: Jobs) -> None:
    jobs.add_runner("here-1-abcd")
    first, second = jobs.add(), jobs.add()
    with viewers.look() as viewer:
        whole = told(viewer)
        jobs.start(first)
        change = told(viewer, "overview", "jobs")

    assert list(whole) == ["overview", "jobs", "history"]
    [queue], [runner] = whole["overview"]["queues"], whole["overview"]["runners"]
    assert (queue["model"], queue["pending"], queue["processing"]) == ("sentiment", 2, 0)
    assert datetime.fromisoformat(queue["oldest_pending_at"]) == jobs.get(first)["created_at"]
    assert (runner["runner"], runner["state"], runner["workers"]) == ("here-1-abcd", "idle", 2)
    assert whole["jobs"]["whole"]
    assert [job["job_id"] for job in whole["jobs"]["jobs"]] == [second, first]
    assert change["overview"]["queues"][0]["processing"] == 1
    [job] = change["jobs"]["jobs"]
    assert (job["job_id"], job["status"]) == (first, "processing")
    assert not change["jobs"]["whole"]
    assert "history" not in change


def test_who_comes_late_is_told_what_time_it_is_now(
    viewers: Viewers, jobs: Jobs, looks: list[float]
) -> None:
    jobs.add()
    with viewers.look() as early, viewers.look() as late:
        first = told(early)["overview"]
        before = len(looks)
        wait_for(lambda: len(looks) > before + 2, "it was read again, and again")
        again = told(late)["overview"]

    assert again.pop("now") > first.pop("now")
    assert again == first


def test_who_looks_is_told_that_jobs_were_deleted(viewers: Viewers, jobs: Jobs) -> None:
    old, new = jobs.add(status="failed"), jobs.add()
    with viewers.look() as viewer:
        assert told(viewer)["jobs"]["whole"]
        jobs.db.execute("delete from job where id = %s", [old])
        change = told(viewer, "jobs")["jobs"]
        assert change["whole"]
        assert [job["job_id"] for job in change["jobs"]] == [new]

        # At once: who has missed a part of them would be told the whole.
        with jobs.db.transaction():
            jobs.add_many(state.NEWEST + 1)
        told(viewer, "jobs")
        jobs.add()
        assert not told(viewer, "jobs")["jobs"]["whole"]


def test_what_is_told_is_as_described(client: FlaskClient, viewers: Viewers, jobs: Jobs) -> None:
    from test_openapi import component, errors_of

    jobs.add_runner("here-1-abcd")
    for status in ("pending", "processing", "completed", "failed"):
        jobs.add(status=status)
    document = client.get("/openapi.json").get_json()
    with viewers.look() as viewer:
        whole = told(viewer)

    for name, schema in (("overview", "Overview"), ("jobs", "NewestJobs"), ("history", "History")):
        assert errors_of(whole[name], component(schema), document) == []


def test_a_list_does_not_carry_large_results(viewers: Viewers, jobs: Jobs) -> None:
    jobs.add(status="completed")
    jobs.db.execute(
        """
        insert into job (model, input, status, attempt, claimed_by, started_at, finished_at, result)
        values
            ('other', '{}', 'completed', 1, 'somebody', clock_timestamp(), clock_timestamp(),
                jsonb_build_object('words', repeat('word', 100)))
        """
    )
    with viewers.look() as viewer:
        large, small = told(viewer)["jobs"]["jobs"]

    assert (large["status"], large["result"]) == ("completed", None)
    assert small["result"]["sentiment"] == "positive"


def test_of_all_jobs_the_newest_are_told(viewers: Viewers, jobs: Jobs) -> None:
    ids = jobs.add_many(60)
    with viewers.look() as viewer:
        newest = [job["job_id"] for job in told(viewer)["jobs"]["jobs"]]

    assert newest == ids[:9:-1]


@pytest.mark.usefixtures("same_history")
def test_it_is_read_once_a_second_however_many_look(
    viewers: Viewers, jobs: Jobs, looks: list[float]
) -> None:
    with ExitStack() as stack:
        looking = [stack.enter_context(viewers.look()) for _ in range(30)]
        assert all("overview" in told(viewer) for viewer in looking)
        wait_for(lambda: len(looks) > 2, "it was read again")
        jobs.add()
        assert all("jobs" in told(viewer) for viewer in looking)

    assert all(later - earlier >= 1 for earlier, later in pairwise(looks))


@pytest.mark.usefixtures("same_history")
def test_nothing_is_told_where_nothing_has_changed(
    viewers: Viewers, jobs: Jobs, looks: list[float]
) -> None:
    jobs.add(created="90 s")
    jobs.add_runner("here-1-abcd", heartbeat_ago="3 s")
    with viewers.look() as viewer:
        told(viewer)
        before = len(looks)
        wait_for(lambda: len(looks) > before + 2, "it was read again, and again")

        assert viewer.next(monotonic()) == ""


def test_it_is_read_only_while_somebody_looks(
    viewers: Viewers, jobs: Jobs, looks: list[float]
) -> None:
    with viewers.look() as viewer:
        told(viewer)
    # Its thread has nothing to forget any more when it has gone to sleep.
    wait_for(lambda: not viewers._topics, "nobody looks")
    before = len(looks)
    job_id = jobs.add()

    since = monotonic()
    with viewers.look() as viewer:
        [job] = told(viewer)["jobs"]["jobs"]

    assert job["job_id"] == job_id
    assert all(look >= since for look in looks[before:])
    # Once, unless the test has stood still for a second or more.
    assert 1 <= len(looks) - before <= 1 + (monotonic() - since)


def test_who_has_missed_something_is_told_the_whole() -> None:
    topic = Topic()
    topic.tell("whole 1", "step 1")
    topic.tell("whole 2", "step 2")

    assert [topic.since(seen) for seen in (0, 1, 2)] == ["whole 2", "step 2", ""]
    topic.tell("whole 3", "step 3")
    assert topic.since(1) == "whole 3"


def test_waits_streams_and_viewers_share_one_cap(owner_url: str, jobs: Jobs) -> None:
    url, job_id = login_url(owner_url, "web_login"), jobs.add()
    with WebServer(url, WEB_CONCURRENCY="1", WEB_THREADS="4") as web:
        looking = [Stream(web, "/overview/events") for _ in range(2)]
        assert all(stream.told("overview") for stream in looking)
        following = Stream(web, f"/jobs/{job_id}/events")
        assert following.event()["status"] == "pending"

        for path in ("/overview/events", f"/jobs/{job_id}/events"):
            refused = web.send("GET", path)
            assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
            assert refused.headers["Content-Type"] == "application/problem+json"
        jobs.start(job_id)
        jobs.finish(job_id)
        while following.next():
            pass
        wait_for(lambda: Stream(web, "/overview/events").response.status == 200, "a place is free")


def test_to_stop_the_web_ends_those_who_look_at_once(owner_url: str, jobs: Jobs) -> None:
    with WebServer(login_url(owner_url, "web_login"), WEB_CONCURRENCY="1") as web:
        stream = Stream(web, "/overview/events")
        assert stream.told("history")
        began = monotonic()
        web.process.terminate()

        assert stream.event() is None
        assert monotonic() < began + 2


def test_who_looks_is_told_that_the_database_is_away_and_that_it_is_back(own_server: Any) -> None:
    with WebServer(login_url(own_server.url, "web_login"), WEB_CONCURRENCY="1") as web:
        stream = Stream(web, "/overview/events")
        assert stream.told("history")
        own_server.stop()
        away = stream.told("away")
        own_server.start()
        back = stream.told("overview")

    assert (away["status"], away["title"]) == (503, "Service Unavailable")
    assert "database" in away["detail"]
    assert back["queues"][0]["model"] == "sentiment"


def test_who_comes_while_the_database_is_away_is_told_so(own_server: Any) -> None:
    with WebServer(login_url(own_server.url, "web_login"), WEB_CONCURRENCY="1") as web:
        own_server.stop()
        stream = Stream(web, "/overview/events")
        assert stream.told("away")["status"] == 503
        own_server.start()
        assert stream.told("overview")["queues"]


def test_who_comes_in_a_second_outage_hears_of_it_last(
    viewers: Viewers, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any) -> state.State:
        raise DatabaseUnavailable

    with viewers.look() as viewer:
        with monkeypatch.context() as first:
            first.setattr(state, "read", away)
            told(viewer, "away")
        assert "overview" in told(viewer)
        monkeypatch.setattr(state, "read", away)
        told(viewer, "away")
        with viewers.look() as late:
            assert list(told(late))[-1] == "away"


# The last hour.


@pytest.fixture
def history(client: FlaskClient) -> Callable[[], Any]:
    return lambda: client.get("/history").get_json()


def record(db: Db, model: str, waits: list[float], inferences: list[float]) -> None:
    """Let a runner have done so much in this minute."""
    counted = Activity()
    counted.begin(db)
    counted.add_waits(model, waits)
    outcomes = [
        Outcome(Job(str(place), "", model, "{}", 1), seconds, "{}", None)
        for place, seconds in enumerate(inferences)
    ]
    counted.add_outcomes(outcomes, {outcome.job.id: "completed" for outcome in outcomes})
    counted.record(db)


def test_the_last_hour_is_what_runners_have_counted(history: Callable[[], Any], jobs: Jobs) -> None:
    record(jobs.db, "sentiment", [0.2, 0.4], [1, 2, 3])
    record(jobs.db, "other", [6.0], [10])
    # A minute may have begun between them.
    jobs.db.execute(
        """
        update activity
        set
            minute =
                (select max(minute) from activity)
                - case when model = 'other' then 5 else 0 end * interval '1 min'
        where minute > '-infinity'
        """
    )
    jobs.db.execute("update activity set failed = 2, pending = 7, oldest_pending_seconds = 1.5")

    found = history()

    together, other, sentiment = found["models"]
    assert [each["model"] for each in found["models"]] == [None, "other", "sentiment"]
    place = next(place for place, count in enumerate(sentiment["completed"]) if count)
    first, clock = datetime.fromisoformat(found["first_minute"]), "select now()"
    [(now,)] = jobs.db.execute(clock).fetchall()
    assert timedelta(0) <= now - (first + timedelta(minutes=place)) < timedelta(minutes=2)
    assert sentiment["completed"][place] == together["completed"][place] == 3
    assert sentiment["failed"][place] == 2
    assert sentiment["wait_seconds"][place] == pytest.approx(0.3)
    assert sentiment["inference_seconds"][place] == pytest.approx(2)
    assert sentiment["inference_p95_seconds"][place] == pytest.approx(4.5, abs=1)
    assert (sentiment["pending"][place], sentiment["oldest_pending_seconds"][place]) == (7, 1.5)
    assert other["completed"][place - 5] == together["completed"][place - 5] == 1
    assert other["wait_seconds"][place] is None


def test_of_an_hour_without_work_nothing_is_known(history: Callable[[], Any], jobs: Jobs) -> None:
    [together] = history()["models"]

    assert together["completed"] == [0] * 60
    assert together["pending"] == together["wait_p95_seconds"] == [None] * 60


def test_what_is_older_than_an_hour_is_left_out(history: Callable[[], Any], jobs: Jobs) -> None:
    record(jobs.db, "sentiment", [], [1])
    jobs.db.execute("update activity set minute = minute - interval '61 min'")

    assert len(history()["models"]) == 1


def test_the_hour_is_read_once_a_minute_at_most(
    app: Flask, history: Callable[[], Any], jobs: Jobs
) -> None:
    record(jobs.db, "sentiment", [], [1])
    jobs.db.execute("update activity set minute = minute - interval '2 min'")
    second = not_just_before_all_is_told(jobs)
    began, before = monotonic(), history()
    found = app.extensions["history"]
    # Whenever it is read in a minute: until all has been told of the one before.
    until_told = (SETTLE_SECONDS - second) % 60
    assert began + until_told - SLACK_SECONDS < found._fresh_until <= monotonic() + until_told
    # That may be at any moment.
    found._fresh_until += 60
    record(jobs.db, "sentiment", [], [1])

    assert history() == before
    found._fresh_until = 0
    assert history() != before


def not_just_before_all_is_told(jobs: Jobs) -> float:
    """Wait, if need be, until that is not in the next few seconds; the second of the minute."""

    def second() -> float:
        [(second,)] = jobs.db.execute("select extract(second from now())::float8").fetchall()
        return float(second)

    wait_for(lambda: not 0 <= SETTLE_SECONDS - second() < SLACK_SECONDS, "all is told")
    return second()


def test_an_hour_without_work_is_read_again_soon_until_its_first_minute_is_over(
    app: Flask, history: Callable[[], Any], jobs: Jobs
) -> None:
    found = app.extensions["history"]

    def is_soon(minutes_ago: int) -> bool:
        """Whether it is, with all that was counted in that minute."""
        jobs.db.execute(
            """
            update activity
            set minute = date_trunc('minute', now()) - %s * interval '1 min'
            where minute > '-infinity'
            """,
            [minutes_ago],
        )
        not_just_before_all_is_told(jobs)
        found._fresh_until = 0
        history()
        return bool(found._fresh_until <= monotonic() + SOON_SECONDS)

    assert is_soon(0)
    # A runner that has nothing to do says so each minute.
    depth().sample(jobs.db)
    assert is_soon(1)
    jobs.db.execute("delete from activity")
    record(jobs.db, "sentiment", [], [1])
    assert not is_soon(1)
    # A minute may be over before it is read.
    wait_for(lambda: is_soon(0), "the minute is not over when it is read")


@pytest.mark.parametrize(
    ("counts", "expected"),
    [([0, 0, 0], None), ([10, 0, 0], 0.95), ([0, 10, 0], 1.95), ([0, 0, 1], 2), ([95, 5, 0], 1)],
)
def test_a_percentile_is_read_off_a_histogram(counts: list[int], expected: float | None) -> None:
    assert percentile([1, 2], counts, 0.95) == pytest.approx(expected)


# How long the queue was.


def depth(*models: str) -> Depth:
    """Somebody who has just looked at the clock."""
    found = Depth(models or ("sentiment",))
    found.tell_time(0)
    return found


def test_a_runner_writes_how_long_the_queue_is(jobs: Jobs) -> None:
    jobs.add(created="90 s")
    jobs.add()
    jobs.add(status="processing")
    jobs.add(status="completed")
    jobs.add(model="other")

    depth("sentiment", "empty").sample(jobs.db)

    rows = jobs.db.execute(
        "select model, pending, oldest_pending_seconds, completed from activity order by model"
    ).fetchall()
    assert [(row[0], row[1], row[3]) for row in rows] == [("empty", 0, 0), ("sentiment", 2, 0)]
    assert rows[0][2] is None
    assert 90 <= rows[1][2] < 120


def test_of_several_runners_one_looks_in_a_minute(jobs: Jobs) -> None:
    jobs.add()
    depth().sample(jobs.db)
    before = jobs.db.execute(SAMPLES).fetchall()
    jobs.add()
    depth().sample(jobs.db)
    after = jobs.db.execute(SAMPLES).fetchall()

    # If a minute has begun meanwhile, it has a row of its own.
    assert before[0] in after
    assert len(after) == len({row[0] for row in after})


def test_a_runner_looks_once_a_minute(jobs: Jobs) -> None:
    found = Depth(["sentiment"])
    assert not found.due
    found.tell_time(119.9)
    assert found.due
    found.sample(jobs.db)
    assert not found.due
    found.tell_time(119.99)
    assert not found.due
    found.tell_time(120)
    assert found.due


def test_what_was_done_and_how_long_the_queue_was_stand_in_one_row(jobs: Jobs) -> None:
    jobs.add()
    record(jobs.db, "sentiment", [0.2], [1])
    jobs.db.execute("delete from activity where minute = '-infinity'")
    depth().sample(jobs.db)
    record(jobs.db, "sentiment", [0.2], [1])

    [(completed, pending)] = jobs.db.execute(
        "select sum(completed)::integer, max(pending) from activity where minute > '-infinity'"
    ).fetchall()
    assert (completed, pending) == (2, 1)


@pytest.mark.process
def test_a_runner_at_work_tells_how_long_its_queue_is(
    runner_url: str, jobs: Jobs, tmp_path: Path
) -> None:
    with system(runner_url, tmp_path) as services:
        services.runner(MOCK_DELAY_SECONDS=0)
        wait_for(lambda: jobs.db.execute(SAMPLES).fetchall(), "it has looked")

    assert jobs.db.execute(SAMPLES).fetchall()[0][1] == 0
