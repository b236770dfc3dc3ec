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
# So long that none grows old by itself in a test.
LONG_SECONDS = 1000.0


@pytest.fixture
def database(web_url: str) -> Iterator[Database]:
    database = Database(web_url)
    yield database
    database.close()


@pytest.fixture
def backlog(database: Database) -> Backlog:
    """One that knows a queue without a job, and takes that for new."""
    backlog = Backlog(database, LIMIT)
    backlog.now()
    let_age(backlog, 0.0)
    return backlog


def let_age(backlog: Backlog, share: float) -> Snapshot:
    """Let what it knows have such a share of the age that it may reach."""
    assert backlog._snapshot
    taken_at = monotonic() - share * LONG_SECONDS
    old = replace(backlog._snapshot, taken_at=taken_at, fresh_seconds=LONG_SECONDS)
    backlog._snapshot = old
    return old


def is_idle(backlog: Backlog) -> bool:
    return not backlog._lock.locked()


def test_what_is_new_is_given_again(backlog: Backlog, jobs: Jobs) -> None:
    known = backlog.now()
    jobs.add()

    assert backlog.now() is known
    assert is_idle(backlog)


def test_what_is_too_old_is_not_given(backlog: Backlog, jobs: Jobs) -> None:
    let_age(backlog, 1.0)
    jobs.add()

    assert backlog.now().depth == 1


def test_what_has_grown_rather_old_is_given_while_a_thread_looks_anew(
    backlog: Backlog, jobs: Jobs
) -> None:
    old = let_age(backlog, AGEING)
    jobs.add()
    jobs.db.execute("begin; lock table job in access exclusive mode")

    assert backlog.now() is old
    assert backlog.now() is old, "one thread looks, and nobody waits for it"
    assert not is_idle(backlog)

    jobs.db.execute("commit")
    wait_for(lambda: is_idle(backlog), "it has looked")
    assert backlog.now().depth == 1


def test_a_database_that_is_away_when_a_thread_looks_breaks_nothing(
    database: Database, backlog: Backlog, jobs: Jobs, capfd: pytest.CaptureFixture[str]
) -> None:
    jobs.add()
    old = let_age(backlog, AGEING)
    backlog._database = Database(NOBODY_THERE)

    assert backlog.now() is old
    wait_for(lambda: is_idle(backlog), "it has tried")
    assert backlog._snapshot is old

    backlog._database.close()
    backlog._database = database
    assert backlog.now() is old
    wait_for(lambda: backlog.now().depth == 1, "it has looked")
    assert capfd.readouterr().err == ""


def test_who_has_nothing_is_told_that_the_database_is_away() -> None:
    database = Database(NOBODY_THERE)

    with pytest.raises(DatabaseUnavailable):
        Backlog(database, LIMIT).now()

    database.close()


def test_without_a_thread_left_who_comes_too_late_looks(
    backlog: Backlog, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_thread: Thread) -> None:
        raise RuntimeError("can't start new thread")

    jobs.add()
    old = let_age(backlog, AGEING)
    monkeypatch.setattr(Thread, "start", fail)

    assert backlog.now() is old
    assert is_idle(backlog)
    let_age(backlog, 1.0)
    assert backlog.now().depth == 1
