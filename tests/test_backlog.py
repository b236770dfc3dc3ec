"""How the queue stands, as the web knows it: new enough, without anybody waiting for it."""

from collections.abc import Iterator
from dataclasses import replace
from threading import Thread
from time import monotonic

import pytest

from helpers import Jobs, wait_for
from web.backlog import AGEING, Backlog, Snapshot
from web.database import Database
from web.errors import DatabaseUnavailable

LIMIT = 1000
NOBODY_THERE = "postgresql://nobody@127.0.0.1:1/nothing?connect_timeout=1"


@pytest.fixture
def database(web_url: str) -> Iterator[Database]:
    database = Database(web_url)
    yield database
    database.close()


@pytest.fixture
def backlog(database: Database) -> Backlog:
    return Backlog(database, LIMIT)


def let_age(backlog: Backlog, share: float) -> Snapshot:
    """Let what it knows have such a share of the age that it may reach."""
    known = backlog.now()
    backlog._snapshot = old = replace(known, taken_at=monotonic() - share * known.fresh_seconds)
    return old


def is_renewed(backlog: Backlog, old: Snapshot) -> bool:
    return backlog._snapshot is not old and not backlog._lock.locked()


def test_what_is_new_is_given_again(backlog: Backlog, jobs: Jobs) -> None:
    first = backlog.now()
    jobs.add()

    assert backlog.now() is first
    assert not backlog._lock.locked()


def test_what_is_too_old_is_not_given(backlog: Backlog, jobs: Jobs) -> None:
    let_age(backlog, 1.0)
    jobs.add()

    assert backlog.now().depth == 1


def test_what_has_grown_rather_old_is_given_while_it_is_renewed(
    backlog: Backlog, jobs: Jobs
) -> None:
    old = let_age(backlog, AGEING)
    jobs.add()
    jobs.db.execute("begin; lock table job in access exclusive mode")

    assert backlog.now() is old
    assert backlog.now() is old, "one thread looks, and nobody waits for it"

    jobs.db.execute("commit")
    wait_for(lambda: is_renewed(backlog, old), "it is renewed")
    assert backlog.now().depth == 1


def test_a_database_that_is_away_when_it_is_renewed_breaks_nothing(
    database: Database, backlog: Backlog, jobs: Jobs, capfd: pytest.CaptureFixture[str]
) -> None:
    old = let_age(backlog, AGEING)
    backlog._database = Database(NOBODY_THERE)

    assert backlog.now() is old
    wait_for(lambda: not backlog._lock.locked(), "it has tried")
    assert backlog.now() is old
    wait_for(lambda: not backlog._lock.locked(), "it has tried again")

    backlog._database.close()
    backlog._database = database
    let_age(backlog, 1.0)
    assert backlog.now() is not old
    assert capfd.readouterr().err == ""


def test_who_has_nothing_is_told_that_the_database_is_away() -> None:
    database = Database(NOBODY_THERE)

    with pytest.raises(DatabaseUnavailable):
        Backlog(database, LIMIT).now()

    database.close()


def test_without_a_thread_left_it_is_renewed_by_who_comes_too_late(
    backlog: Backlog, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    old = let_age(backlog, AGEING)
    monkeypatch.setattr(Thread, "start", fail)

    assert backlog.now() is old
    let_age(backlog, 1.0)
    assert backlog.now() is not old
