"""The life of a runner: its row, its beats, its lock."""

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from helpers import CARD, Jobs, wait_for
from jobrunner import heartbeat, migrations, queue, registry
from jobrunner.database import BoundedConnection, connect
from jobrunner.errors import DatabaseUnavailable
from jobrunner.heartbeat import ModelPulse, Pulse
from jobrunner.links import FIRST_PAUSE_SECONDS, Link
from jobrunner.listener import TAKEN, Listener
from jobrunner.polling import readable
from jobrunner.statement import Statement

ME = "here-1-abcd"
OTHER = "there-2-abcd"
MODEL = ModelPulse("fresh", "1", 3, 2, 0.5, 0.25, 1.0, None)
PULSE = Pulse(False, 5, 1, [MODEL])
REST: LiteralString = "select pg_sleep(0.1)"


class Clock:
    """The monotonic clock, moved by the test."""

    now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def link(runner_url: str) -> Iterator[Link]:
    link = Link(runner_url, ME)
    yield link
    link.lose()


@pytest.fixture
def listener(runner_url: str, link: Link, jobs: Jobs) -> Iterator[Listener]:
    """One that has its lock, beside a link that listens; its runner is registered as ME."""
    jobs.add_runner(ME)
    listener = Listener(runner_url, ME, link)
    link.open()
    assert listener.tend(jobs.db)
    yield listener
    listener.lose()


@pytest.fixture
def runner(runner_url: str, jobs: Jobs) -> Iterator[BoundedConnection]:
    with connect(runner_url) as connection:
        yield connection


def test_a_runner_registers_itself_and_its_model_when_that_is_loaded(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    heartbeat.register(runner, ME, models={"fresh": 3}, lease_seconds=30)
    registry.register_model(runner, "fresh", CARD)
    registry.register_model(runner, "fresh", CARD)

    row = jobs.db.execute("select id, models, workers, lease::text from runner").fetchone()
    assert row == (ME, ["fresh"], 3, "00:00:30")
    assert ("fresh",) in jobs.db.execute("select name from model").fetchall()


def test_a_beat_says_what_the_runner_does(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_runner(ME, heartbeat_ago="20 s")

    answer = heartbeat.beat(runner, ME, PULSE)

    assert answer
    assert (answer.stop, answer.now) == (False, False)
    query = "select now() - heartbeat_at < interval '5 s', completed, inference_seconds from runner"
    assert jobs.db.execute(query).fetchone() == (True, 5, 0.25)


def test_a_beat_brings_a_stop_request(runner: BoundedConnection, jobs: Jobs) -> None:
    jobs.add_runner(ME)
    assert heartbeat.request_stop(runner, [ME, "unknown"], now=False) == [ME]
    answer = heartbeat.beat(runner, ME, PULSE)
    assert answer
    assert (answer.stop, answer.now) == (True, False)

    heartbeat.request_stop(runner, [ME], now=True)

    answer = heartbeat.beat(runner, ME, PULSE)
    assert answer
    assert (answer.stop, answer.now) == (True, True)


def test_who_was_declared_lost_does_not_come_back_by_a_beat(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    jobs.add_runner(ME)
    jobs.db.execute("update runner set lost_at = now()")

    assert heartbeat.beat(runner, ME, PULSE) is None
    lost = "select from runner where id = %s and lost_at is not null"
    assert jobs.db.execute(lost, [ME]).rowcount == 1


def test_two_runners_can_not_hold_the_same_lock(runner_url: str, jobs: Jobs) -> None:
    jobs.add_runner(ME)
    first, second = (Listener(runner_url, ME, Link(runner_url, ME)) for _ in range(2))
    assert first.tend(jobs.db)
    assert first.holds_lock

    assert second.tend(jobs.db)

    assert second.connected
    assert not second.holds_lock
    assert second.has_news
    assert second.trouble == TAKEN
    second.say(lambda to: to.execute("select"), jobs.db)
    assert second.trouble == TAKEN

    first.lose()
    wait_for(lambda: second.keep_lock(jobs.db) or second.holds_lock, "it has the lock")
    assert second.trouble is None
    second.lose()


def test_the_longer_a_try_to_connect_takes_the_longer_is_the_pause(
    jobs: Jobs, runner_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a way that leads nowhere keeps the runner from its work for most of the time."""
    took = 0.5

    def connect_in_vain(url: str, **how: object) -> BoundedConnection:
        clock.now += took
        raise DatabaseUnavailable("no answer")

    clock = Clock()
    monkeypatch.setattr("jobrunner.links.monotonic", clock)
    monkeypatch.setattr("jobrunner.listener.monotonic", clock)
    monkeypatch.setattr("jobrunner.links.connect", connect_in_vain)
    listener = Listener(runner_url, ME, Link(runner_url, ME))

    assert not listener.tend(jobs.db)

    assert listener.retry_at - clock.now == 10 * took


def test_a_listener_hears_of_new_jobs_where_the_link_does_not(runner_url: str, jobs: Jobs) -> None:
    jobs.add_runner(ME)
    listener = Listener(runner_url, ME, Link(runner_url, ME))
    assert listener.tend(jobs.db)
    assert listener.hear() == []

    jobs.db.execute("select pg_notify('job_submitted', '')")
    heard = wait_for(listener.hear, "the notification has come")

    listener.lose()
    assert heard == [("job_submitted", "")]


@pytest.mark.parametrize("channel", ["job_submitted", "cancel_requested", "runner_stop_requested"])
def test_a_listener_is_not_woken_up_where_the_link_is(
    link: Link, listener: Listener, jobs: Jobs, channel: str
) -> None:
    jobs.db.execute("select pg_notify(%s, '')", [channel])

    assert wait_for(link.hear, "the notification has come") == [(channel, "")]
    listener.say(lambda to: to.execute("select"), link.open())
    assert listener.hear() == []


def test_a_listener_that_leads_to_another_database_is_none_and_tried_ever_more_seldom(
    owner_url: str, runner_url: str, jobs: Jobs
) -> None:
    """Its lock is seen by nobody who judges us, and its beats would be told that we are dead."""
    jobs.db.execute("create database elsewhere")
    try:
        with connect(make_conninfo(owner_url, dbname="elsewhere")) as owner:
            migrations.migrate(owner)
        url = make_conninfo(runner_url, dbname="elsewhere")
        listener = Listener(url, ME, Link(runner_url, ME))
        for _ in range(3):
            wait_for(lambda: listener._own.due, "it is time to try")
            assert not listener.tend(jobs.db)
    finally:
        jobs.db.execute("drop database elsewhere with (force)")

    assert listener.trouble
    assert "leads to another database" in listener.trouble
    assert not listener.connected
    assert not listener.holds_lock
    assert listener._own._pause == 8 * FIRST_PAUSE_SECONDS


def test_what_can_not_be_said_over_a_listener_that_is_lost_is_said_over_the_link(
    link: Link, listener: Listener, jobs: Jobs
) -> None:
    mine = link.open()
    pid = listener.say(lambda to: to.info.backend_pid, mine)
    assert pid != mine.info.backend_pid
    listener.has_news = False
    jobs.db.execute("select pg_terminate_backend(%s)", [pid])

    answer = listener.say(lambda to: heartbeat.beat(to, ME, PULSE), mine)

    assert answer
    assert not listener.connected
    assert not listener.holds_lock
    assert listener.has_news
    assert listener.trouble
    assert listener.trouble.startswith("holds no lock: ")


def test_a_listener_whose_link_is_lost_when_it_connects_begins_anew(
    runner_url: str, jobs: Jobs
) -> None:
    """Else it would hold a lock that nobody told of, and its loss would be told by nobody."""
    jobs.add_runner(ME)
    link = Link(runner_url, ME)
    listener = Listener(runner_url, ME, link)
    lost = link.open()
    lost.close()

    with pytest.raises(psycopg.OperationalError):
        listener.tend(lost)
    assert not listener.connected

    listener.retry_soon()
    wait_for(lambda: listener.tend(jobs.db), "it connects")
    assert listener.holds_lock
    assert listener.has_news
    listener.lose()


def test_whose_link_is_lost_while_it_asks_for_its_lock_says_so(runner_url: str, jobs: Jobs) -> None:
    jobs.add_runner(ME)
    link = Link(runner_url, ME)
    first = Listener(runner_url, ME, link)
    mine = link.open()
    assert first.tend(mine)
    second = Listener(runner_url, ME, link, meanwhile=lambda _: mine.close())

    with pytest.raises(psycopg.OperationalError, match="lost meanwhile"):
        second.tend(mine)
    with pytest.raises(psycopg.OperationalError, match="lost meanwhile"):
        first.say(lambda to: to.execute("select"), mine)
    first.lose()


def test_a_listener_has_its_lock_while_its_link_is_away_and_listens_only_where_that_hears_nothing(
    runner_url: str, jobs: Jobs
) -> None:
    jobs.add_runner(ME)
    link = Link(runner_url, ME)
    listener = Listener(runner_url, ME, link)

    assert listener.keep_up()

    assert jobs.db.execute("select runner_holds_lock(%s)", [ME]).fetchone() == (True,)
    listener.keep_lock(link.open())
    assert listener.holds_lock
    jobs.db.execute("select pg_notify('job_submitted', '')")
    assert wait_for(link.hear, "the notification has come")
    listener.say(lambda to: to.execute("select"), link.open())
    assert listener.hear() == []
    listener.lose()
    link.lose()


def test_a_listener_that_the_server_has_ended_is_not_taken_for_one_that_leads_elsewhere(
    link: Link, listener: Listener, jobs: Jobs
) -> None:
    """What the server has said last lies before the end of the connection, and is read as well."""
    mine = link.open()
    pid = [listener.say(lambda to: to.info.backend_pid, mine)]
    jobs.db.execute("select pg_terminate_backend(%s)", pid)
    is_there = "select from pg_stat_activity where pid = %s"
    wait_for(lambda: not jobs.db.execute(is_there, pid).rowcount, "it has ended")
    listener.hear()

    listener.check(mine)

    assert not listener.connected
    assert listener.trouble
    assert listener.trouble.startswith("holds no lock: ")
    assert "another database" not in listener.trouble


class Slow:
    """A link; while it is waited for, something happens."""

    closed = False

    def __init__(self, connection: BoundedConnection, happens: Callable[[], object]) -> None:
        self._connection = connection
        self._happens = happens

    def execute(self, *statement: Any) -> Any:
        answer = self._connection.execute(*statement)
        self._happens()
        return answer


def test_a_listener_that_was_replaced_while_it_was_looked_at_is_looked_at_anew(
    link: Link, listener: Listener, jobs: Jobs
) -> None:
    def replace() -> None:
        pid = listener.say(lambda to: to.info.backend_pid, mine)
        jobs.db.execute("select pg_terminate_backend(%s)", [pid])
        wait_for(lambda: listener.keep_up() and not listener.holds_lock, "it is lost")
        wait_for(lambda: listener.keep_up() and listener.connected, "it is back")
        wait_for(lambda: listener.keep_up() and listener._has_lock, "it has its lock")

    mine = link.open()
    listener.check(Slow(mine, replace))  # type: ignore[arg-type]

    assert listener.connected
    assert not listener.holds_lock
    # Who knows where that leads, and what a beat would be told there?
    assert listener.say(lambda to: to.info.backend_pid, mine) == mine.info.backend_pid
    listener.keep_lock(mine)
    assert listener.holds_lock


def test_what_is_refused_by_both_connections_costs_the_listener_nothing(
    link: Link, listener: Listener
) -> None:
    with pytest.raises(psycopg.errors.UndefinedTable):
        listener.say(lambda to: to.execute("select from nowhere"), link.open(), must=True)

    assert listener.holds_lock


def test_what_a_listener_takes_beside_beats_does_not_show_that_it_is_well_again(
    link: Link, listener: Listener, jobs: Jobs
) -> None:
    """Else the row would say that all is well until the next beat is refused, again and again."""

    def beat_over_the_link(to: queue.Connection) -> heartbeat.Answer | None:
        if to is not mine:
            raise psycopg.errors.FeatureNotSupported("no plan")
        return heartbeat.beat(to, ME, PULSE)

    def pause_after_a_refusal() -> float:
        wait_for(lambda: listener.connected or listener.tend(mine), "it is connected")
        assert listener.holds_lock
        listener.say(lambda to: to.execute("select"), mine)
        assert listener.say(beat_over_the_link, mine, must=True)
        assert listener.trouble == "holds no lock: no plan"
        return listener._own._pause

    mine = link.open()
    assert pause_after_a_refusal() < pause_after_a_refusal() < pause_after_a_refusal()

    wait_for(lambda: listener.tend(mine), "it is connected")
    listener.say(lambda to: to.execute("select"), mine)
    assert listener.trouble == "holds no lock: no plan"
    listener.has_news = False
    assert listener.say(lambda to: heartbeat.beat(to, ME, PULSE), mine, must=True)
    assert listener.trouble is None
    assert listener.has_news


def test_what_is_refused_to_a_listener_does_not_cost_it_its_lock(
    link: Link, listener: Listener, jobs: Jobs
) -> None:
    with jobs.db.transaction():
        jobs.db.execute("select from runner for update")
        with pytest.raises(psycopg.errors.LockNotAvailable):
            listener.say(lambda to: heartbeat.beat(to, ME, PULSE), link.open())

    assert listener.holds_lock
    assert listener.say(lambda to: heartbeat.beat(to, ME, PULSE), link.open())


def test_the_connection_for_statements_hears_of_new_jobs(runner_url: str, jobs: Jobs) -> None:
    link = Link(runner_url, ME)
    link.open()
    assert link.listens
    assert link.hear() == []

    jobs.db.execute("select pg_notify('job_submitted', '')")

    assert wait_for(link.hear, "the notification has come") == [("job_submitted", "")]
    link.lose()
    assert not link.listens


@pytest.mark.parametrize(
    "rest",
    [lambda to: to.execute(REST), lambda to: Statement("rest", REST).rows(to, {})],
    ids=["of psycopg", "at libpq's level"],
)
def test_a_notification_that_comes_with_an_answer_is_heard(
    runner_url: str, jobs: Jobs, rest: Callable[[BoundedConnection], object]
) -> None:
    link = Link(runner_url, ME)
    connection = link.open()

    jobs.db.execute("select pg_notify('job_submitted', '')")
    rest(connection)

    assert link.has_heard
    assert link.hear() == [("job_submitted", "")]
    link.lose()


def test_who_listens_in_vain_hears_that_the_server_has_gone(runner_url: str, jobs: Jobs) -> None:
    link = Link(runner_url, ME)
    pid = link.open().info.backend_pid

    jobs.db.execute("select pg_terminate_backend(%s)", [pid])

    # First comes why, then the end.
    with suppress(psycopg.OperationalError):
        assert readable([link.fileno()], 10)
        link.hear()
        assert readable([link.fileno()], 10)
    with pytest.raises(psycopg.OperationalError):
        link.hear()
    link.lose()


def test_the_rows_of_lost_runners_are_deleted_after_a_day(
    runner: BoundedConnection, jobs: Jobs
) -> None:
    for name, lost_at in (("alive", None), ("lost", "now"), ("long-lost", "yesterday")):
        jobs.add_runner(name)
        query = "update runner set lost_at = %s::timestamptz - interval '1 m' where id = %s"
        jobs.db.execute(query, [lost_at, name])

    assert heartbeat.delete_lost(runner) == 1

    assert jobs.db.execute("select id from runner order by id").fetchall() == [
        ("alive",),
        ("lost",),
    ]
