"""Requests that come together are inserted together, and each gets its own job."""

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from threading import Event, Lock
from time import monotonic
from typing import Any
from uuid import UUID

import psycopg
import pytest

from helpers import Jobs, wait_for
from web.database import KEEP_SECONDS, TRUST_SECONDS, BoundedConnection, Database
from web.errors import DatabaseUnavailable
from web.inserts import TURN_SECONDS, Entry, Inserts, NewJob

REFUSED = 101  # as a priority, by the database

TERMINATE_BLOCKED = """
    select
        pid,
        pg_terminate_backend(pid)
    from pg_stat_activity
    where wait_event_type = 'Lock' and usename = 'web_login' and pid <> all(%s)
"""


STILL_THERE = "select from pg_stat_activity where pid = any(%s)"
TERMINATE_WEB = """
    select
        pid,
        pg_terminate_backend(pid)
    from pg_stat_activity
    where usename = 'web_login'
"""


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.fixture
def inserts(web_url: str, patience: None) -> Iterator[Inserts]:
    database = Database(web_url)
    yield Inserts(database)
    database.close()


@pytest.fixture
def held(owner_url: str) -> Iterator[psycopg.Connection[Any]]:
    """A transaction that lets nobody insert until it ends."""
    with psycopg.connect(owner_url) as connection:
        yield connection
        connection.rollback()


def row(text: str, priority: int = 0) -> NewJob:
    return NewJob("sentiment", text, priority, 3, None, None)


def submit_while_held(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], rows: list[NewJob]
) -> list[Future[UUID]]:
    """Let one insert be under way while those of the rows come in; then let go."""
    held.execute("lock table job in share mode")
    first = threads.submit(inserts.insert, row("the first"))
    wait_for(lambda: inserts._busy, "an insert is under way")
    futures = [threads.submit(inserts.insert, each) for each in rows]
    wait_for(lambda: len(inserts._waiting) == len(rows), "the others wait")
    held.rollback()
    assert first.result()
    return futures


def test_a_lone_insert_is_committed_when_its_id_is_there(inserts: Inserts, jobs: Jobs) -> None:
    job_id = inserts.insert(NewJob("sentiment", "I love it", 7, 5, "shop", TRACE))

    found = jobs.get(job_id)
    assert found["input"] == {"text": "I love it"}
    assert (found["priority"], found["max_attempts"], found["status"]) == (7, 5, "pending")
    assert (found["client_id"], found["traceparent"]) == ("shop", TRACE)


def test_inserts_use_the_same_session_one_after_the_other(inserts: Inserts, jobs: Jobs) -> None:
    inserts._database.warm_up()
    jobs.db.execute("alter table job add column pid integer default pg_backend_pid()")
    try:
        for number in range(3):
            inserts.insert(row(str(number)))

        [(sessions,)] = jobs.db.execute("select count(distinct pid) from job").fetchall()
    finally:
        jobs.db.execute("alter table job drop column pid")
    assert sessions == 1


@pytest.mark.parametrize("pause", [0, 2 * TRUST_SECONDS])
def test_a_session_that_the_server_has_ended_is_replaced(
    inserts: Inserts, jobs: Jobs, pause: float
) -> None:
    inserts.insert(row("before"))
    # The pool may open one more meanwhile: that one stays.
    ended = [pid for pid, _ in jobs.db.execute(TERMINATE_WEB)]
    wait_for(lambda: not jobs.db.execute(STILL_THERE, [ended]).rowcount, "they are gone")
    Event().wait(pause)

    with suppress(DatabaseUnavailable):
        inserts.insert(row("the first may find out"))
    inserts.insert(row("after"))

    assert ended
    assert jobs.count() >= (3 if pause else 2)


def test_a_session_goes_back_to_the_pool_now_and_then(
    inserts: Inserts, monkeypatch: pytest.MonkeyPatch
) -> None:
    inserts.insert(row("first"))
    returned: list[BoundedConnection] = []
    monkeypatch.setattr(inserts._database._pool, "putconn", returned.append)

    inserts.insert(row("second"))
    assert not returned
    kept = inserts._database._kept
    inserts._database._kept_since -= KEEP_SECONDS
    inserts.insert(row("third"))

    assert returned == [kept]
    assert inserts._database._kept is not kept


class Witness:
    """A lock that looks, at the end of each turn, whether a leader can still go away."""

    def __init__(self, inserts: Inserts, leader: Entry) -> None:
        self._lock, self._inserts, self._leader = Lock(), inserts, leader
        self.saw_it_called = False

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *error: object) -> None:
        if self._leader not in self._inserts._waiting:
            self.saw_it_called = not self._leader.turn.locked() and bool(self._leader.group)
        self._lock.release()


def test_who_is_to_insert_the_next_group_is_called_before_it_can_give_up(
    inserts: Inserts,
) -> None:
    first, leader, other = Entry(row("first")), Entry(row("leader")), Entry(row("other"))
    inserts._busy, inserts._waiting = True, [leader, other]
    witness = Witness(inserts, leader)
    inserts._lock = witness  # type: ignore[assignment]

    inserts._hand_over([first])

    assert leader.group == [leader, other]
    assert witness.saw_it_called


def test_those_that_wait_go_in_one_transaction_and_each_has_its_own_job(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], jobs: Jobs
) -> None:
    rows = [row(f"text {number} \u00e9\U0001f600", number % 5) for number in range(30)]

    ids = [future.result() for future in submit_while_held(inserts, threads, held, rows)]

    assert [jobs.get(job_id)["input"]["text"] for job_id in ids] == [each.text for each in rows]
    assert [jobs.get(job_id)["priority"] for job_id in ids] == [each.priority for each in rows]
    transactions = "select count(distinct xmin::text) from job where id = any(%s)"
    assert jobs.db.execute(transactions, [ids]).fetchone() == (1,)


def test_equal_texts_are_different_jobs(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], jobs: Jobs
) -> None:
    futures = submit_while_held(inserts, threads, held, [row("the same")] * 10)

    assert len({future.result() for future in futures}) == 10
    assert jobs.count() == 11


def test_more_than_a_group_go_in_several(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], jobs: Jobs
) -> None:
    futures = submit_while_held(inserts, threads, held, [row(str(n)) for n in range(120)])

    assert len({future.result() for future in futures}) == 120
    assert jobs.count() == 121


def test_a_row_that_the_database_refuses_does_not_spoil_the_others(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], jobs: Jobs
) -> None:
    rows = [row("good"), row("bad", REFUSED), row("good as well")]

    good, bad, other = submit_while_held(inserts, threads, held, rows)

    with pytest.raises(psycopg.errors.CheckViolation):
        bad.result()
    assert jobs.get(good.result())["input"] == {"text": "good"}
    assert jobs.get(other.result())["input"] == {"text": "good as well"}
    assert jobs.count() == 3


def test_when_the_database_goes_away_the_rest_of_a_refused_group_is_not_tried(
    inserts: Inserts,
    threads: ThreadPoolExecutor,
    held: psycopg.Connection[Any],
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tries: list[int] = []

    def refuse_then_vanish(part: list[Entry]) -> None:
        tries.append(len(part))
        if len(part) == 8:
            raise psycopg.errors.CheckViolation
        raise DatabaseUnavailable

    held.execute("lock table job in share mode")
    first = threads.submit(inserts.insert, row("the first"))
    wait_for(lambda: inserts._busy, "an insert is under way")
    group = [threads.submit(inserts.insert, row(str(number))) for number in range(8)]
    wait_for(lambda: len(inserts._waiting) == 8, "the others wait")
    monkeypatch.setattr(inserts, "_insert_part", refuse_then_vanish)
    held.rollback()

    assert first.result()
    for future in group:
        with pytest.raises(DatabaseUnavailable):
            future.result()
    assert tries == [8, 4]


def test_what_begins_after_we_have_given_up_inserts_nothing_and_is_told_so(
    inserts: Inserts, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedConnection, "until", 0.0)

    with pytest.raises(DatabaseUnavailable):
        inserts.insert(row("too late"))

    assert jobs.count() == 0


def test_a_connection_whose_server_has_set_its_clock_asks_for_it_anew(
    inserts: Inserts, jobs: Jobs
) -> None:
    for _ in range(8):
        with inserts._database.connection() as connection:
            connection.clock_lead -= 3600
    with inserts._database.kept_connection() as connection:
        connection.clock_lead = -3600

    outcomes = []
    for number in range(20):
        try:
            outcomes.append(inserts.insert(row(str(number))))
        except DatabaseUnavailable:
            continue

    assert jobs.count() == len(outcomes) >= 12


def test_who_waits_too_long_is_told_so_and_not_inserted(
    inserts: Inserts,
    threads: ThreadPoolExecutor,
    held: psycopg.Connection[Any],
    jobs: Jobs,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("web.inserts.TURN_SECONDS", TURN_SECONDS)
    held.execute("lock table job in share mode")
    first = threads.submit(inserts.insert, row("the first"))
    wait_for(lambda: inserts._busy, "an insert is under way")

    began = monotonic()
    with pytest.raises(DatabaseUnavailable):
        inserts.insert(row("too late"))
    assert monotonic() < began + 10

    held.rollback()
    assert jobs.get(first.result())["input"] == {"text": "the first"}
    assert jobs.count() == 1


def end_the_blocked(jobs: Jobs, ended: list[int]) -> int:
    """End the sessions that wait for a lock; how many there were in all."""
    ended += [pid for pid, _ in jobs.db.execute(TERMINATE_BLOCKED, [ended])]
    return len(ended)


def test_a_lost_database_is_told_to_the_whole_group_and_the_next_one_works(
    inserts: Inserts, threads: ThreadPoolExecutor, held: psycopg.Connection[Any], jobs: Jobs
) -> None:
    held.execute("lock table job in share mode")
    first = threads.submit(inserts.insert, row("the first"))
    wait_for(lambda: inserts._busy, "an insert is under way")
    group = [threads.submit(inserts.insert, row("in the group")) for _ in range(3)]
    wait_for(lambda: len(inserts._waiting) == 3, "the others wait")
    ended: list[int] = []
    wait_for(lambda: end_the_blocked(jobs, ended) == 2, "the first and the group were blocked")

    for future in [first, *group]:
        with pytest.raises(DatabaseUnavailable):
            future.result()
    held.rollback()
    assert jobs.get(inserts.insert(row("the next")))["status"] == "pending"
    assert jobs.count() == 1
