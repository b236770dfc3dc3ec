"""Waiting for a job instead of asking again and again: ?wait= and Prefer, and the stream."""

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from threading import enumerate as enumerate_threads
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
import pytest
from psycopg.rows import dict_row

from helpers import POSITIVE, Jobs, login_url, wait_for
from streams import Stream
from web.changes import Changes, Watch, known_to
from web.listener import Listener
from web.rows import READ_JOBS, Row, unread
from web.seats import Seats
from web_server import Answer, WebServer

Submit = Callable[..., Future[Answer]]
Db = psycopg.Connection[Any]

WATCHED = """
    select pid
    from pg_locks
    join pg_database on pg_database.oid = pg_locks.database
    where
        locktype = 'advisory'
        and mode = 'ShareLock'
        and granted
        and datname = current_database()
"""
LISTENERS = "select pid from pg_stat_activity where application_name = 'jobrunner web listener'"
UNKNOWN = "0197f3a2-7c54-7d1e-9f3a-5b8c2d4e6f70"


@pytest.fixture
def get(gunicorn: WebServer, threads: ThreadPoolExecutor) -> Submit:
    """Send a GET without waiting for its answer."""

    def get(path: str, **headers: str) -> Future[Answer]:
        return threads.submit(gunicorn.send, "GET", path, None, headers)

    return get


def watchers(db: Db) -> set[Any]:
    return set(db.execute(WATCHED))


def watched(db: Db) -> bool:
    return bool(watchers(db))


@pytest.fixture(autouse=True)
def closed_streams() -> Iterator[None]:
    yield
    Stream.close_all()


def test_who_waits_is_answered_when_the_job_is_final(get: Submit, jobs: Jobs, db: Db) -> None:
    job_id = jobs.add()
    began = monotonic()
    answer = get(f"/jobs/{job_id}?wait=20")
    wait_for(lambda: watched(db), "it waits")

    jobs.start(job_id)
    jobs.finish(job_id)

    job = answer.result().json
    assert (job["status"], job["result"]) == ("completed", POSITIVE)
    assert monotonic() < began + 10


def test_who_has_waited_long_enough_gets_the_job_as_it_is(get: Submit, jobs: Jobs) -> None:
    job_id = jobs.add()
    began = monotonic()

    answer = get(f"/jobs/{job_id}?wait=0.3").result()

    assert (answer.status, answer.json["status"]) == (200, "pending")
    assert answer.json["queue"]["position"] == 0
    assert monotonic() >= began + 0.3


def test_a_final_job_is_not_waited_for(get: Submit, jobs: Jobs) -> None:
    job_id = jobs.add(status="failed")
    began = monotonic()

    assert get(f"/jobs/{job_id}?wait=30").result().json["status"] == "failed"
    assert get(f"/jobs/{UNKNOWN}?wait=30").result().status == 404
    assert monotonic() < began + 10


@pytest.mark.parametrize("wait", ["-1", "31", "x", "", "1e2", "NaN", "30.1", "1&wait=2"])
def test_a_wait_that_is_none_is_refused(wait: str, get: Submit, jobs: Jobs) -> None:
    answer = get(f"/jobs/{jobs.add()}?wait={wait}").result()

    assert answer.status == 422
    assert [error["parameter"] for error in answer.json["errors"]] == ["wait"]


@pytest.mark.parametrize("prefer", ["wait=1", "respond-async, wait=1", 'foo="a,b"; bar, WAIT="1"'])
def test_the_wait_may_be_preferred_by_a_header(prefer: str, get: Submit, jobs: Jobs) -> None:
    began = monotonic()

    answer = get(f"/jobs/{jobs.add()}", Prefer=prefer).result()

    assert answer.headers["Preference-Applied"] == "wait=1"
    assert answer.json["status"] == "pending"
    assert monotonic() >= began + 1


@pytest.mark.parametrize("prefer", ["wait=x", "await=20", "respond-async", "wait", "wait=-5"])
def test_a_preference_that_is_not_understood_is_passed_over(
    prefer: str, get: Submit, jobs: Jobs
) -> None:
    answer = get(f"/jobs/{jobs.add()}", Prefer=prefer).result()

    assert answer.status == 200
    assert "Preference-Applied" not in answer.headers


def test_a_post_that_waits_is_answered_with_the_whole_job(
    gunicorn: WebServer, threads: ThreadPoolExecutor, jobs: Jobs, db: Db
) -> None:
    headers = {"Content-Type": "application/json", "Prefer": "wait=20"}
    answer = threads.submit(gunicorn.send, "POST", "/predict", b'{"text": "fine"}', headers)
    wait_for(lambda: jobs.count() and watched(db), "it waits")
    [job_id] = [str(row[0]) for row in db.execute("select id from job")]

    jobs.start(job_id)
    jobs.finish(job_id)

    done = answer.result()
    assert (done.status, done.json["job_id"], done.json["status"]) == (200, job_id, "completed")
    assert done.headers["Preference-Applied"] == "wait=20"
    assert done.headers["Location"] == f"/jobs/{job_id}"


def test_a_post_that_waits_is_logged_before_it_is_answered(
    gunicorn: WebServer, threads: ThreadPoolExecutor, jobs: Jobs, db: Db
) -> None:
    answer = threads.submit(gunicorn.send, "POST", "/predict?wait=20", b'{"text": "fine"}')
    wait_for(lambda: jobs.count() and watched(db), "it waits")
    [job_id] = [str(row[0]) for row in db.execute("select id from job")]
    line = f" submitted job_id={job_id} "

    wait_for(lambda: line in gunicorn.logged(), "it is logged")
    assert not answer.done()

    jobs.start(job_id)
    jobs.finish(job_id)
    assert answer.result().status == 200
    wait_for(lambda: "path=/predict status=200" in gunicorn.logged(), "its answer is logged")
    assert gunicorn.logged().count(line) == 1


def test_a_post_that_has_waited_in_vain_is_answered_as_ever(
    gunicorn: WebServer, jobs: Jobs
) -> None:
    answer = gunicorn.send("POST", "/predict?wait=0.2", b'{"text": "fine"}')

    assert answer.status == 202
    assert set(answer.json) == {"job_id", "status"}
    assert answer.json["status"] == "processing"


def test_a_stream_has_an_event_a_change_and_ends_with_the_last(
    gunicorn: WebServer, jobs: Jobs, db: Db
) -> None:
    job_id = jobs.add()
    stream = Stream(gunicorn, f"/jobs/{job_id}/events")
    assert stream.response.headers["Content-Type"] == "text/event-stream; charset=utf-8"
    assert stream.next() == {"retry": "1000"}

    first = stream.event()
    wait_for(lambda: watched(db), "it waits")
    jobs.start(job_id)
    second = stream.event()
    jobs.finish(job_id)
    third = stream.event()

    assert [job["status"] for job in (first, second, third)] == [
        "pending", "processing", "completed",
    ]  # fmt: skip
    assert first["queue"]["position"] == 0
    assert third == gunicorn.send("GET", f"/jobs/{job_id}").json
    assert stream.event() is None


def test_who_connects_again_is_told_only_what_he_has_not_seen(
    gunicorn: WebServer, jobs: Jobs
) -> None:
    job_id = jobs.add()
    path = f"/jobs/{job_id}/events"
    stream = Stream(gunicorn, path)
    stream.next()
    seen = stream.next()["id"]
    stream.close()

    again = Stream(gunicorn, path, **{"Last-Event-ID": seen})
    assert again.next() == {"retry": "1000"}
    jobs.start(job_id)
    assert again.event()["status"] == "processing"
    jobs.finish(job_id)
    last = again.next()

    over = Stream(gunicorn, path, **{"Last-Event-ID": last["id"]})
    assert over.response.status == 204
    assert Stream(gunicorn, f"/jobs/{UNKNOWN}/events").response.status == 404


def test_who_connects_again_is_told_that_only_the_word_is_another(
    gunicorn: WebServer, jobs: Jobs, db: Db
) -> None:
    job_id = jobs.add()
    jobs.start(job_id)
    path = f"/jobs/{job_id}/events"
    db.execute(
        """insert into job_progress (job_id, attempt, fraction, word)
        select id, attempt, 0.5, 'ha\nlf' from job"""
    )
    stream = Stream(gunicorn, path)
    stream.next()
    seen = stream.next()["id"]
    stream.close()

    db.execute("update job_progress set word = 'still half'")

    again = Stream(gunicorn, path, **{"Last-Event-ID": seen})
    again.next()
    assert again.event()["progress"] == {"fraction": 0.5, "word": "still half"}


def test_a_stream_of_a_final_job_is_that_one_event(gunicorn: WebServer, jobs: Jobs) -> None:
    stream = Stream(gunicorn, f"/jobs/{jobs.add(status='failed')}/events")

    assert stream.event()["status"] == "failed"
    assert stream.event() is None


def test_all_who_wait_share_one_connection_and_are_told_nothing_once_they_are_gone(
    owner_url: str, jobs: Jobs, db: Db, threads: ThreadPoolExecutor
) -> None:
    url = login_url(owner_url, "web_login")
    # Others that are there, of another web, may go meanwhile.
    many, before = jobs.add_many(40), set(db.execute(LISTENERS))
    with WebServer(url, WEB_CONCURRENCY="1") as web:
        answers = [threads.submit(web.send, "GET", f"/jobs/{each}?wait=20") for each in many]
        wait_for(lambda: watchers(db) - before, "they wait, not those of before")
        for each in many:
            jobs.start(each)
            jobs.finish(each)
        assert {answer.result().json["status"] for answer in answers} == {"completed"}
        assert len(set(db.execute(LISTENERS)) - before) == 1
        wait_for(lambda: not watched(db), "nobody watches any more")

        db.execute("listen job_changed")
        jobs.start(jobs.add())
        assert list(db.notifies(timeout=0.2)) == []


def test_over_the_cap_a_wait_is_answered_at_once_and_a_stream_refused(
    owner_url: str, jobs: Jobs, db: Db, threads: ThreadPoolExecutor
) -> None:
    url, job_id = login_url(owner_url, "web_login"), jobs.add()
    with WebServer(url, WEB_CONCURRENCY="1", WEB_THREADS="4") as web:
        streams = [Stream(web, f"/jobs/{job_id}/events") for _ in range(3)]
        assert [stream.event()["status"] for stream in streams] == ["pending"] * 3

        began = monotonic()
        assert web.send("GET", f"/jobs/{job_id}?wait=30").json["status"] == "pending"
        assert web.send("POST", "/predict?wait=30", b'{"text": "fine"}').status == 202
        preferred = web.send("GET", f"/jobs/{job_id}", None, {"Prefer": "wait=30"})
        assert preferred.json["status"] == "pending"
        assert "Preference-Applied" not in preferred.headers
        refused = web.send("GET", f"/jobs/{job_id}/events")

        assert monotonic() < began + 10
        assert (refused.status, refused.headers["Retry-After"]) == (503, "5")
        assert refused.headers["Content-Type"] == "application/problem+json"


def test_to_stop_the_web_ends_all_waits_and_streams_at_once(
    owner_url: str, jobs: Jobs, db: Db, threads: ThreadPoolExecutor
) -> None:
    job_id, before = jobs.add(), watchers(db)
    with WebServer(login_url(owner_url, "web_login"), WEB_CONCURRENCY="1") as web:
        waiting = threads.submit(web.send, "GET", f"/jobs/{job_id}?wait=30")
        wait_for(lambda: watchers(db) - before, "it waits, not one of before")
        stream = Stream(web, f"/jobs/{job_id}/events")
        assert stream.event()
        began = monotonic()
        web.process.terminate()

        assert waiting.result().json["status"] == "pending"
        assert stream.event() is None
        assert monotonic() < began + 6  # gunicorn gives up on requests after 8


def test_what_nobody_tells_is_found_by_polling(get: Submit, jobs: Jobs, db: Db) -> None:
    job_id = jobs.add()
    db.execute("alter table job disable trigger job_moves_are_told")
    try:
        answer = get(f"/jobs/{job_id}?wait=20")
        wait_for(lambda: watched(db), "it waits")
        jobs.start(job_id)
        jobs.finish(job_id)

        assert answer.result().json["status"] == "completed"
    finally:
        db.execute("alter table job enable trigger job_moves_are_told")


def test_waits_outlive_a_restart_of_the_database(
    own_server: Any, threads: ThreadPoolExecutor
) -> None:
    url = login_url(own_server.url, "web_login")
    with WebServer(url, WEB_CONCURRENCY="1") as web:
        job_id = web.predict().json["job_id"]
        answer = threads.submit(web.send, "GET", f"/jobs/{job_id}?wait=20")
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            wait_for(lambda: watched(connection), "it waits, no more on its way")
        stream = Stream(web, f"/jobs/{job_id}/events")
        assert stream.event()["status"] == "pending"
        own_server.stop()
        own_server.start()
        with psycopg.connect(own_server.url, autocommit=True) as connection:
            jobs = Jobs(connection)
            jobs.start(job_id)
            jobs.finish(job_id)

            assert answer.result().json["status"] == "completed"
            while (job := stream.event())["status"] != "completed":
                assert job["status"] == "processing"


def test_who_waits_in_vain_is_told_how_the_job_stands_though_nothing_is_heard(
    owner_url: str, jobs: Jobs, threads: ThreadPoolExecutor
) -> None:
    nowhere = "postgresql://127.0.0.1:1/nowhere"
    job_id = jobs.add()
    with WebServer(login_url(owner_url, "web_login"), JOBRUNNER_LISTEN_URL=nowhere) as web:
        stream = Stream(web, f"/jobs/{job_id}/events")
        assert stream.event()
        waiting = threads.submit(web.send, "GET", f"/jobs/{job_id}?wait=4")
        jobs.start(job_id)
        jobs.finish(job_id)

        assert waiting.result().json["status"] == "completed"


def test_what_is_known_is_not_read_again(web_url: str, jobs: Jobs) -> None:
    listener = Listener(web_url)
    one, other = UUID(jobs.add()), UUID(jobs.add())
    listener.watch()
    try:
        known = {row["job_id"]: row["version"] for row in listener.read({one: "", other: ""})}
        jobs.start(str(other))

        changed = listener.read(known)
    finally:
        listener.lose()

    assert set(known) == {one, other}
    assert [(row["job_id"], row["status"]) for row in changed] == [(other, "processing")]


def test_what_is_known_is_read_again_though_its_transaction_has_the_same_number(
    jobs: Jobs,
) -> None:
    """As after a crash that has forgotten one: the number of a claim is given to its outcome."""
    job_id = jobs.add()

    def read(version: str) -> list[Any]:
        values = {"ids": [job_id], "versions": [version], "client": None}
        with jobs.db.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(READ_JOBS, values).fetchall()

    with jobs.db.transaction():
        jobs.start(job_id)
        [claimed] = read("")
        assert read(claimed["version"]) == []
        jobs.finish(job_id)
        [done] = read(claimed["version"])

    assert done["status"] == "completed"


def test_of_who_has_just_come_the_job_is_read_and_no_other(
    web_url: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[set[UUID]] = []
    read_jobs = Listener.read

    def note(listener: Listener, known: dict[UUID, str]) -> list[Row]:
        read.append(set(known))
        return read_jobs(listener, known)

    monkeypatch.setattr(Listener, "read", note)
    monkeypatch.setattr("web.changes.POLL_SECONDS", 60)
    changes = Changes(web_url, Seats(9))
    first, second = (unread(UUID(jobs.add())) for _ in range(2))
    alone, both = {second["job_id"]}, {first["job_id"], second["job_id"]}
    try:
        with changes.watch(first):
            wait_for(
                lambda: changes._read_all_at > monotonic() + 1,
                "it counts on being told from now on",
            )
            with changes.watch(second) as watch:
                assert watch.next(monotonic() + 45)
                wait_for(lambda: alone in read, "the second job was read by itself")
                jobs.start(str(second["job_id"]))
                wait_for(lambda: both in read, "what has changed is looked for everywhere")
    finally:
        changes.close()
        wait_for(lambda: "changes" not in {each.name for each in enumerate_threads()}, "it ends")


def test_who_knows_less_of_a_job_than_another_is_told_too() -> None:
    job_id, other = UUID(int=1), UUID(int=2)
    rows = [(job_id, "5"), (job_id, "6"), (job_id, "6"), (other, "7"), (other, "7")]

    known = known_to(Watch({"job_id": each, "version": version}) for each, version in rows)

    assert known == {job_id: "", other: "7"}
