"""The benchmarks measure what they say, and the page of figures says what was measured."""

import json
from collections.abc import Iterator
from contextlib import closing
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, time
from types import SimpleNamespace
from typing import cast

import psycopg
import pytest
import redis
from celery.signals import after_task_publish
from psycopg.conninfo import make_conninfo

from benchmarks import (
    batching,
    disk,
    drain,
    fleet,
    latency,
    profile,
    queues,
    report,
    signals,
    statements,
    views,
)
from benchmarks.figures import Figures, ratio, shown
from benchmarks.queues import Queue, history
from benchmarks.queues.backlog import Backlog
from benchmarks.queues.celery import Celery
from benchmarks.queues.history import History
from benchmarks.queues.jobrunner import Batching, Checked, Jobrunner
from benchmarks.webs.batchers import PEERS, Batcher, OursBatching
from deploy_files import need
from helpers import Jobs

JOBS = 300
MANY = 6_000
# Its times are of milliseconds, and of when it began what it is about.
REDIS_CLOCK_SECONDS = 0.1
SERVER = {"postgresql": "18.0", "shared_buffers": "1GB"}

# Jobs, a parameter, that are seen to become fewer, even by who stands still for two seconds.
SLOW = """
    insert into job (model, input)
    select 'sentiment', '{"text": "good", "seconds": 0.0004}'
    from generate_series(1, %s)
"""

# Ids of another time than their job's, and jobs that are older than the one before.
WRONG = """
    select
        count(*) filter (where abs(extract(epoch from uuid_time - created_at)) > 0.001),
        count(*) filter (where created_at < former)
    from (
        select
            created_at,
            lag(created_at) over (order by id) as former,
            to_timestamp(
                ('x' || replace(left(id::text, 13), '-', ''))::bit(48)::bigint / 1000.0
            ) as uuid_time
        from job
    ) as listed
"""


@pytest.fixture
def ours(owner_url: str, jobs: Jobs) -> Iterator[Jobrunner]:
    with closing(Jobrunner(owner_url)) as queue:
        yield queue
    queue.forget()


@pytest.fixture
def batches(owner_url: str, jobs: Jobs) -> Iterator[Batching]:
    with closing(Batching(owner_url)) as queue:
        yield queue
    queue.forget()


@pytest.fixture
def checked(owner_url: str, jobs: Jobs) -> Iterator[Checked]:
    jobs.db.execute("create database checked")
    with closing(Checked(make_conninfo(owner_url, dbname="checked"))) as queue:
        queue.install()
        yield queue
    jobs.db.execute("drop database checked")


@pytest.mark.process
def test_a_full_queue_is_drained_and_its_rate_measured(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "fill_statement", SLOW)

    rate = drain.measure(ours, 1, MANY)

    assert rate > 0
    assert jobs.count("completed") == MANY


@pytest.mark.process
def test_the_start_of_a_job_is_signalled_and_measured(ours: Jobrunner) -> None:
    with signals.ear() as ear, ours.running(1):
        queues.rest()
        starts = latency.measure(ours.submit, ear, 5)

    assert len(starts) == 5
    for each in starts:
        assert each.called < each.committed < each.returned
        assert 0 < each.after_call < 15
        # It may be started before the commit is answered.
        assert abs(each.after_commit) < 15


@pytest.mark.process
def test_starts_are_measured_in_turns_another_one_first_each_time(
    ours: Jobrunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(latency, "WARM_UP", 1)
    called: list[str] = []

    def first() -> float:
        called.append("first")
        return ours.submit()

    def second() -> float:
        called.append("second")
        return ours.submit()

    with signals.ear() as ear, ours.running(1):
        queues.rest()
        measured = latency.measure_in_turns([first, second], ear, 2)

    assert [len(starts) for starts in measured] == [2, 2]
    assert called == ["first", "second", "second", "first", "first", "second"]
    # The warm-up of each is left out.
    [one, other] = measured
    assert one[0].called > other[0].called
    assert one[1].called < other[1].called


def test_a_job_is_committed_when_postgresql_has_answered(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    held_back = 'insert into job (input) select \'{"text": "good"}\' from pg_sleep(0.5)'
    monkeypatch.setattr(ours, "submit_statement", held_back)
    called = time()

    committed = ours.submit()

    assert called + 0.5 <= committed <= time()
    assert jobs.count("pending") == 1


def test_a_job_that_is_refused_is_not_submitted(
    ours: Jobrunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "submit_statement", "insert into job (input) values ('7')")

    with pytest.raises(psycopg.errors.CheckViolation):
        ours.submit()


@pytest.mark.process
def test_a_job_of_celery_is_committed_when_redis_has_answered() -> None:
    need("redis-server")
    published: list[float] = []

    def note(**_: object) -> None:
        published.append(time())

    with closing(Celery("")) as celery:
        celery.install()
        celery.submit()
        held_back_until = time() + 0.5
        redis.Redis(port=celery.port).client_pause(500, all=False)
        # Its client has more to do after that.
        after_task_publish.connect(note)
        committed = celery.submit()
        after_task_publish.disconnect(note)

        assert committed > held_back_until - REDIS_CLOCK_SECONDS
        assert committed < published[0]
        assert celery.left() == 2


def test_what_the_disk_alone_takes_is_measured_as_often_as_asked_for() -> None:
    began = monotonic()

    seconds = disk.measure(100, 1)

    assert monotonic() - began >= 0.99
    assert len(seconds) == 100
    assert min(seconds) > 0


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """Little is measured."""
    for name, value in (("CLIENTS", 8), ("WARM_UP", 40), ("REQUESTS", 160)):
        monkeypatch.setattr(batching, name, value)
    monkeypatch.setattr(batching, "LONE_REQUESTS", 5)


@pytest.mark.process
def test_a_model_that_takes_batches_is_measured(
    batches: Batching, few: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As the slow ones: they take two and a half seconds at least.
    monkeypatch.setattr(batches, "jobs", 1_600)

    for measure in (batching.drained, batching.in_flight):
        shares = [value for name, *_, value, _ in measure(batches) if name.endswith("of that")]
        assert 0 < shares[0] <= 1.1


@pytest.mark.process
def test_a_bad_item_leaves_the_others_their_results(batches: Batching, few: None) -> None:
    figures = measured(OursBatching(batches))

    assert figures[f"{batching.POISON}: results of the others"] == batching.GOOD


@pytest.mark.process
@pytest.mark.parametrize("kind", PEERS)
def test_peers_with_the_same_model_are_measured_where_they_are_installed(
    owner_url: str, kind: type[Batcher], few: None
) -> None:
    if missing := kind.missing():
        pytest.skip(f"it needs {missing}")

    figures = measured(kind(owner_url))

    assert figures[f"{batching.POISON}: results of the others"] < batching.GOOD


def measured(web: Batcher) -> dict[str, float]:
    """The figures of a service, by their workload."""
    with web.running() as port:
        return {
            name: value
            for measure in (batching.lone, batching.loaded, batching.poisoned)
            for name, _, _, value, _ in measure(web, port)
        }


@pytest.mark.parametrize("variant", statements.VARIANTS)
def test_what_statements_cost_is_measured_and_the_tables_are_as_before(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    monkeypatch.setattr(statements, "JOBS", JOBS)
    query = "select reloptions from pg_class where relname = 'job'"
    before = jobs.db.execute(query).fetchone()

    costs = statements.costs(ours, variant)

    assert costs["WAL, bytes"] > 100
    assert (costs["heap-only updates, %"] > 40) == ("full pages" not in variant)
    assert set(jobs.db.execute(query).fetchone()[0]) == set(before[0])  # type: ignore[index]


@pytest.mark.parametrize("variant", statements.SINGLES)
def test_what_one_job_costs_is_measured(
    ours: Jobrunner, checked: Checked, monkeypatch: pytest.MonkeyPatch, variant: str
) -> None:
    monkeypatch.setattr(statements, "JOBS", JOBS)
    monkeypatch.setattr(statements, "SINGLE", 5)

    costs = statements.single(checked if variant == statements.RULES_AS_CHECKS else ours, variant)

    assert costs["claim, ms"] > 0
    assert costs["complete, ms"] > 0


def test_the_jobs_of_a_month_have_ids_of_their_times_and_lie_in_their_order(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PART", 2_500)
    for name, value in (("jobs", MANY), ("pending", 100), ("processing", 10)):
        monkeypatch.setattr(History, name, value)

    with closing(History(ours.url)) as month:
        month.install()
        batches = month.batches()

    assert jobs.db.execute(WRONG).fetchall() == [(0, 0)]
    assert [jobs.count(status) for status in ("pending", "processing")] == [100, 10]
    assert jobs.count("completed") > 0.98 * MANY - 110 > 0
    assert jobs.count("failed") > 0
    assert len(batches) == MANY // history.BATCH_JOBS // 10


def test_each_look_of_an_operator_is_measured_on_a_bad_day(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(history, "PART", 2_500)
    monkeypatch.setattr(views, "REQUESTS", 2)
    for name, value in (("jobs", MANY), ("pending", 100)):
        monkeypatch.setattr(Backlog, name, value)

    with closing(Backlog(ours.url)) as backlog:
        backlog.install()
        measured = {name: views.measure(backlog, query) for name, query in views.cases(backlog)}

    assert (jobs.count("pending"), jobs.count("processing")) == (50, 50)
    assert {*views.VIEWS, "Jobs pile up, 1", "The clock is wrong, 1"} <= measured.keys()
    assert all(seconds > 0 for taken, _ in measured.values() for seconds in taken)


def test_a_rate_is_that_of_the_last_nine_tenths() -> None:
    samples = [(0.0, 100), (1.0, 95), (2.0, 90), (3.0, 50), (4.0, 10), (5.0, 0)]

    assert drain.rate(samples, 100) == 40


def test_a_look_that_stands_still_makes_no_rate_higher(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten of 1,000 jobs are done a second; later looks take long, and tell of their end."""
    clock = SimpleNamespace(now=0.0)

    def left() -> int:
        clock.now += 1 if clock.now < 50 else 20
        return 1_000 - 10 * int(clock.now)

    monkeypatch.setattr(drain, "monotonic", lambda: clock.now)
    monkeypatch.setattr(drain, "sleep", lambda _: None)

    samples = drain.wait_until_empty(cast("Queue", SimpleNamespace(left=left)), 1_000)

    assert drain.rate(samples, 1_000) <= 10


def test_a_ratio_is_the_middle_one_of_the_runs() -> None:
    figures = Figures()
    for ours, theirs in ((2.0, 1.0), (9.0, 3.0), (4.0, 1.0)):
        figures.add("drain", "jobrunner", "jobs/s", ours)
        figures.add("drain", "other", "jobs/s", theirs)

    assert ratio(*figures.of("drain")) == (3, 2, 4)


@pytest.mark.parametrize(
    ("value", "text"), [(12345.6, "12,346"), (99.94, "99.9"), (1.2345, "1.23"), (0.0123, "0.0123")]
)
def test_figures_have_the_digits_that_count(value: float, text: str) -> None:
    assert shown(value) == text


def test_the_page_keeps_its_words_and_takes_the_new_figures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = tmp_path / "performance.md"
    page.write_text(f"# Words before\n\n{report.BEGIN}\nold\n{report.END}\n\nWords after\n")
    figures = Figures()
    figures.add("drain", "jobrunner", "jobs/s", 20_000, "defaults")
    figures.add("drain", "other", "jobs/s", 10_000)
    figures.add("drain", "broken", "jobs/s", 0)
    if not find_spec("matplotlib"):
        monkeypatch.setattr(report, "_draw", lambda *_: None)

    report.write(figures, tmp_path, SERVER)

    text = page.read_text()
    assert text.startswith("# Words before\n")
    assert text.endswith("Words after\n")
    assert "old" not in text
    assert "| other | 10,000 (10,000 – 10,000) | 2 (2 – 2) |" in text
    assert "| broken | 0 (0 – 0) |  |" in text
    kept = json.loads((tmp_path / "performance.json").read_text())
    assert kept["machine"]["postgresql"] == "18.0"
    assert [one["values"] for one in kept["series"]] == [[20_000], [10_000], [0]]


def test_workloads_that_were_not_measured_again_stay_in_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(report, "_draw", lambda *_: None)
    page = tmp_path / "performance.md"
    page.write_text(f"{report.BEGIN}\n{report.END}\n")
    for rates in ({"drain": 20_000, "submit": 300}, {"drain": 30_000, "wait": 5}):
        figures = Figures()
        for workload, rate in rates.items():
            figures.add(workload, "jobrunner", "jobs/s", rate)
        report.write(figures, tmp_path, SERVER)

    kept = json.loads((tmp_path / "performance.json").read_text())["series"]
    assert [(one["workload"], one["values"]) for one in kept] == [
        ("drain", [30_000]), ("submit", [300]), ("wait", [5]),
    ]  # fmt: skip
    assert "20,000" not in page.read_text()


@pytest.mark.process
def test_what_a_job_of_a_drain_uses_is_measured(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ours, "fill_statement", SLOW)
    monkeypatch.setattr(ours, "jobs", MANY)

    rate, wal, pages = drain.measure_used(ours, 1)

    assert rate > 0
    assert jobs.count("completed") == MANY
    # Each job is written twice, and found by its key as often.
    assert 300 < wal < 20_000
    assert 4 < pages < 2_000


@pytest.mark.process
@pytest.mark.parametrize("wake_all", [False, True])
def test_what_runners_cost_that_sleep_is_measured_and_the_triggers_are_as_before(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch, wake_all: bool
) -> None:
    for name, few in (("STARTS", 10), ("BURSTS", 2), ("IDLE_SECONDS", 0.2)):
        monkeypatch.setattr(fleet, name, few)
    triggers = "select tgname, tgenabled from pg_trigger where tgrelid = 'job'::regclass order by 1"
    before = jobs.db.execute(triggers).fetchall()

    with signals.ear() as ear:
        figures = {name: value for name, _, value in fleet.measure(ours, 2, ear, wake_all)}

    assert len(figures) == 6
    assert figures["commit to start, p99"] >= figures["commit to start, p50"]
    assert jobs.count("completed") == latency.WARM_UP + 10 + 2 * 2
    assert jobs.db.execute(triggers).fetchall() == before


@pytest.mark.process
def test_the_parts_of_a_start_are_measured(
    owner_url: str, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "STARTS", latency.WARM_UP + 3)

    with closing(profile.Traced(owner_url)) as traced, signals.ear() as ear:
        parts = profile.parts(traced, ear)

    assert len(parts) == 5
    # From when the claim was sent until the job was with its worker, whatever was read before that.
    assert all(seconds > 0 for part, seconds in parts.items() if "claim is answered" in part)
    assert sum(parts.values()) < 15
    assert jobs.count() == latency.WARM_UP + 3


@pytest.mark.process
def test_the_processor_time_of_a_job_is_measured(
    ours: Jobrunner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "RUNNERS_JOBS", MANY)

    worked = profile.work(ours)

    assert len(worked) == 3
    assert all(0 < seconds < 0.01 for seconds in worked.values())


def test_what_statements_of_one_job_read_and_write_is_measured_and_undone(
    ours: Jobrunner, jobs: Jobs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(profile, "DEEP", JOBS)

    figures = list(profile.statements_of_one_job(ours))

    assert {statement for statement, *_ in figures} == {"insert", "claim", "outcome"}
    assert all(value > 0 for *_, value in figures)
    assert (jobs.count("pending"), jobs.count("processing")) == (JOBS - 1, 1)


STACKS = """\
main (jobrunner/cli.py:1);Runner.run (jobrunner/runner.py:9);Runner._turn (jobrunner/runner.py:2) 1
run (jobrunner/runner.py:9);Runner._turn (jobrunner/runner.py:3);readable (jobrunner/polling.py:4) 5
run (jobrunner/runner.py:9);Runner._turn (jobrunner/runner.py:7);put (jobrunner/inbox.py:4);loads (json/x.py:1) 2
Thread (threading.py:4);elsewhere (jobrunner/worker.py:5) 90
"""  # noqa: E501


def test_the_time_of_a_runner_is_told_by_its_own_functions() -> None:
    shares = profile.shares(STACKS)

    assert shares == {"readable": 5 / 8, "put": 2 / 8, "Runner._turn": 1 / 8}


@pytest.mark.skipif(not find_spec("matplotlib"), reason="matplotlib is not installed")
def test_what_is_compared_is_drawn_and_so_is_what_grows(tmp_path: Path) -> None:
    figures = Figures()
    figures.add("drain of no-op jobs, 2 processes", "jobrunner", "jobs/s", 20_000)
    figures.add("drain of no-op jobs, 2 processes: WAL a job", "jobrunner", "bytes", 1_000)
    figures.add("drain, runners: 8", "jobrunner", "jobs/s", 30_000)
    figures.add("drain beside 10 finished rows ÷ drain of an empty table", "jobrunner", "", 1)

    report._draw(figures, tmp_path)

    assert {file.name for file in tmp_path.iterdir()} == {
        "drain-of-no-op-jobs-2-processes.png", "growth.png",
    }  # fmt: skip
