"""The promise, kept by real processes: every accepted job reaches one final state."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from helpers import Jobs, login_url, signs, wait_for
from jobrunner import database, embedded, migrations, queue
from processes import TOLD, Load, Process, System, environment, system

pytestmark = pytest.mark.process


@pytest.fixture
def services(runner_url: str, tmp_path: Path) -> Iterator[System]:
    with system(runner_url, tmp_path) as started:
        yield started


def all_completed(jobs: Jobs, count: int, seconds: float = 40) -> None:
    wait_for(lambda: jobs.count("completed") == count, f"{count} completed", seconds)


def test_a_job_goes_from_post_to_result(
    services: System, web_url: str, jobs: Jobs, runner_url: str
) -> None:
    services.runner(MOCK_DELAY_SECONDS=0.2)
    web = services.web(web_url)

    status, body = web.submit("This product is amazing!")

    assert status == 202
    assert set(body) == {"job_id", "status"}
    assert body["status"] == "processing"
    jobs.wait(body["job_id"], "completed")
    _, job = web.get(f"/jobs/{body['job_id']}")
    assert job["result"] == {"sentiment": "positive", "confidence": 0.95}
    assert (job["status"], job["attempt"], job["error"]) == ("completed", 1, None)


def test_the_estimate_of_a_steady_queue_is_true_within_a_factor_of_two(
    services: System, web_url: str, jobs: Jobs
) -> None:
    services.runner("--workers", "2", MOCK_DELAY_SECONDS=0.2)
    web = services.web(web_url)
    jobs.add_many(4)
    all_completed(jobs, 4)
    known = "select from runner where inference_seconds is not null"
    wait_for(lambda: jobs.db.execute(known).rowcount, "it is known how long a job takes")

    last = jobs.add_many(40)[-1]

    def estimate() -> float | None:
        queue_now = web.get(f"/jobs/{last}")[1]["queue"]
        return queue_now and queue_now["eta_seconds"]

    wait_for(lambda: estimate() is not None, "there is an estimate")
    asked, expected, answered = monotonic(), estimate(), monotonic()
    assert expected is not None
    assert web.get(f"/jobs/{last}?wait=30")[1]["status"] == "completed"
    # It was made at some time between.
    least, most = monotonic() - answered, monotonic() - asked
    assert least / 2 < expected < most * 2, (least, expected, most)


def test_a_sleeping_runner_is_woken_by_an_insert_by_hand(services: System, jobs: Jobs) -> None:
    # So rare a poll that only the notification can explain a quick start.
    services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_POLL_SECONDS=60)
    asleep = "select from runner where sleeping"
    wait_for(lambda: jobs.db.execute(asleep).rowcount, "the runner sleeps")
    started = monotonic()

    jobs.db.execute("""insert into job (model, input) values ('sentiment', '{"text": "good"}')""")

    all_completed(jobs, 1)
    assert monotonic() - started < 10


def test_without_notifications_the_poll_finds_the_job(services: System, jobs: Jobs) -> None:
    services.runner(MOCK_DELAY_SECONDS=0)
    jobs.db.execute("alter table job disable trigger job_wakes_sleeping_runners")
    try:
        job_id = jobs.add()
        jobs.wait(job_id, "completed")
    finally:
        jobs.db.execute("alter table job enable trigger job_wakes_sleeping_runners")


def test_a_failed_attempt_is_tried_again_until_none_is_left(services: System, jobs: Jobs) -> None:
    services.runner(*TOLD)
    job_id = jobs.add("raise secret words", max_attempts=2)

    row = jobs.wait(job_id, "failed")

    assert [entry["attempt"] for entry in row["errors"]] == [1, 2]
    assert row["error"]["code"] == "model_error"


def test_a_job_that_kills_its_worker_every_time_ends_as_worker_lost(
    services: System, jobs: Jobs
) -> None:
    runner = services.runner(*TOLD)
    poison = jobs.add("segfault", max_attempts=2)
    healthy = [jobs.add("sleep 0.05") for _ in range(10)]

    row = jobs.wait(poison, "failed")

    assert row["error"]["code"] == "worker_lost"
    assert row["attempt"] == 2
    for job_id in healthy:
        assert jobs.wait(job_id, "completed")["attempt"] == 1
    assert runner.process.poll() is None


def test_an_urgent_job_is_not_passed_over_for_long_by_a_busy_runner(
    services: System, jobs: Jobs
) -> None:
    waiting = [jobs.add() for _ in range(400)]
    services.runner("--workers", "2", MOCK_DELAY_SECONDS=0.05)
    wait_for(lambda: jobs.count("completed") > 20, "it is busy")

    urgent = jobs.add(priority=100)

    finished = jobs.wait(urgent, "completed", 10)["finished_at"]
    last_started = jobs.get(waiting[-1])["started_at"]
    assert last_started is None or finished < last_started


def test_a_runner_without_standard_streams_works(services: System, jobs: Jobs) -> None:
    command = f"exec {sys.executable} -m jobrunner start --drain <&- >&- 2>&-"
    job_id = jobs.add()
    env = environment(services.url, MOCK_DELAY_SECONDS=0)

    assert subprocess.run(["sh", "-c", command], env=env, check=False, timeout=60).returncode == 0

    assert jobs.status(job_id) == "completed"


def test_an_outcome_that_can_never_be_written_stops_neither_heartbeat_nor_other_jobs(
    services: System, jobs: Jobs, db: psycopg.Connection[Any]
) -> None:
    runner = services.runner("--workers", "1", MOCK_DELAY_SECONDS=0.1, JOBRUNNER_LEASE_SECONDS=2)
    db.execute(
        """
        create function refuse() returns trigger language plpgsql as $$
        begin raise exception 'never'; end $$;
        create trigger refuse before update on job for each row
        when (old.input ->> 'text' = 'refuse' and new.finished_at is not null)
        execute function refuse();
        """
    )
    try:
        jobs.add("refuse", max_attempts=1)
        wait_for(lambda: runner.lines("outcome_refused"), "the outcome is refused")

        assert jobs.wait(jobs.add("another"), "completed")["attempt"] == 1
        heartbeat = "select heartbeat_at from runner"
        before = db.execute(heartbeat).fetchone()
        wait_for(lambda: db.execute(heartbeat).fetchone() != before, "it beats on")
    finally:
        db.execute("drop function refuse cascade")


def test_no_text_and_no_result_gets_into_the_log(services: System, jobs: Jobs) -> None:
    runner = services.runner(*TOLD)
    failing = jobs.add("raise private-matter", max_attempts=1)
    good = jobs.add("private-matter")

    jobs.wait(failing, "failed")
    jobs.wait(good, "completed")

    wait_for(lambda: runner.lines("completed") and runner.lines("failed"), "both are logged")
    assert "private" not in runner.log
    assert "positive" not in runner.log


def test_after_kill_9_in_mid_inference_another_runner_completes_the_jobs(
    services: System, jobs: Jobs
) -> None:
    victim = services.runner(MOCK_DELAY_SECONDS=60)
    held = [jobs.add(), jobs.add()]
    for job_id in held:
        jobs.wait(job_id, "processing")
    services.runner(MOCK_DELAY_SECONDS=0)
    killed = monotonic()

    victim.send(signal.SIGKILL)

    rows = [jobs.wait(job_id, "completed") for job_id in held]
    assert monotonic() - killed < 10
    assert [row["attempt"] for row in rows] == [2, 2]
    assert [row["errors"][0]["code"] for row in rows] == ["runner_lost"] * 2


def test_a_claim_that_its_runner_never_heard_of_is_handed_back_uncounted(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    # As a claim does whose connection was given up, and which takes effect afterwards.
    runner, go = services.runner("--workers", "1", *TOLD), tmp_path / "go"
    busy, forgotten = jobs.add(f"await {go}"), jobs.add()
    jobs.wait(busy, "processing")
    [row] = jobs.db.execute("select id from runner").fetchall()

    with database.connect(services.url, role="job_runner") as connection:
        [job] = queue.claim(connection, runner=row[0], model="sentiment", slots=1)

    assert job.id == forgotten
    go.touch()
    assert jobs.wait(forgotten, "completed", 30)["attempt"] == 1
    assert runner.lines("claim_lost") == []


def test_a_lone_runner_that_is_started_again_takes_up_its_jobs(
    services: System, jobs: Jobs
) -> None:
    victim = services.runner(MOCK_DELAY_SECONDS=60)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")
    victim.send(signal.SIGKILL)
    victim.wait()

    services.runner(MOCK_DELAY_SECONDS=0)

    assert jobs.wait(job_id, "completed", 10)["attempt"] == 2


def test_five_hundred_jobs_and_a_killed_runner(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    workers, go = 8, tmp_path / "go"
    arguments = "--workers", str(workers), *TOLD
    victim, survivor = services.runner(*arguments), services.runner(*arguments)
    # Before the end, all workers are held up.
    texts = ["sleep 0.1"] * 200 + [f"await {go}"] * 2 * workers + ["sleep 0.1"] * 284
    query = """
        insert into job (model, input)
        select 'sentiment', jsonb_build_object('text', text) from unnest(%s::text[]) as text
    """
    jobs.db.execute(query, [texts])
    wait_for(lambda: signs(tmp_path / "go.begun") == 2 * workers, "nearly half is done", 30)

    victim.send(signal.SIGKILL)

    victim.wait()
    killed_at = jobs.db.execute("select clock_timestamp()").fetchone()
    go.touch()
    all_completed(jobs, 500)
    again = jobs.db.execute("select attempt, started_at, errors from job where attempt > 1")
    rows = again.fetchall()
    assert killed_at
    assert rows
    assert len(rows) <= workers
    assert all(attempt == 2 and len(errors) == 1 for attempt, _, errors in rows)
    assert all((started - killed_at[0]).total_seconds() < 10 for _, started, _ in rows)
    done = [line["job_id"] for runner in (victim, survivor) for line in runner.lines("completed")]
    assert len(done) == len(set(done))


def test_sigterm_lets_running_jobs_finish_and_claims_no_more(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    runner, go = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600), tmp_path / "go"
    running = [jobs.add(f"await {go}") for _ in range(2)]
    wait_for(lambda: signs(tmp_path / "go.begun") == 2, "both are running")
    waiting = jobs.add()

    runner.send(signal.SIGTERM)
    wait_for(lambda: runner.lines("stopping"), "the runner stops")
    go.touch()

    assert runner.wait() == 0
    assert [jobs.status(job_id) for job_id in running] == ["completed", "completed"]
    assert jobs.get(waiting)["attempt"] == 0
    assert jobs.db.execute("select from runner").rowcount == 0


@pytest.mark.parametrize("how", ["the grace is over", "a second signal"])
def test_what_is_not_finished_is_handed_back_uncounted(
    services: System, jobs: Jobs, how: str
) -> None:
    grace = 0.3 if how == "the grace is over" else 60
    runner = services.runner(MOCK_DELAY_SECONDS=60, JOBRUNNER_GRACE_SECONDS=grace)
    job_id = jobs.add()
    jobs.wait(job_id, "processing")

    runner.send(signal.SIGTERM)
    wait_for(lambda: runner.lines("stopping"), "the runner stops")
    if how == "a second signal":
        runner.send(signal.SIGTERM)

    assert runner.wait(10) == 0
    row = jobs.get(job_id)
    assert (row["status"], row["attempt"], row["errors"]) == ("pending", 0, [])


def test_signals_that_come_after_a_stop_do_not_change_how_it_ends(services: System) -> None:
    runner = services.runner()
    runner.send(signal.SIGTERM)
    wait_for(lambda: runner.lines("stopped"), "it has stopped")

    while runner.process.poll() is None:
        runner.send(signal.SIGTERM)
        runner.send(signal.SIGINT)

    assert runner.wait() == 0


def test_at_a_second_signal_no_answer_of_the_database_is_waited_for(
    services: System, jobs: Jobs, owner_url: str
) -> None:
    runner = services.runner()
    # (A web of an earlier test may still be connected, and also be looking at that table.)
    stuck = """
        select from pg_stat_activity
        where usename = 'runner_login' and %s = any(pg_blocking_pids(pid))
    """
    with psycopg.connect(owner_url) as other:
        other.execute("lock table runner in access exclusive mode")
        lock = [other.info.backend_pid]
        wait_for(lambda: jobs.db.execute(stuck, lock).rowcount, "it waits for an answer")

        # (Of two equal ones that come at once the system may pass on one.)
        runner.send(signal.SIGINT)
        runner.send(signal.SIGTERM)

        # The server would end the statement after nine seconds.
        assert runner.wait(8) == 0
    assert [line["jobs_left"] for line in runner.lines("stopped")] == ["0"]


def test_a_runner_that_was_paused_past_its_lease_records_nothing_and_goes_on(
    services: System, jobs: Jobs, tmp_path: Path
) -> None:
    go = tmp_path / "go"
    paused = services.runner("--workers", "1", *TOLD, JOBRUNNER_LEASE_SECONDS=2)
    job_id = jobs.add(f"await {go}")
    # Not when it is claimed: who is paused then may not have given it away yet.
    wait_for(lambda: signs(tmp_path / "go.begun"), "its worker has begun")
    paused.send(signal.SIGSTOP)
    other = services.runner("--workers", "1", *TOLD, JOBRUNNER_LEASE_SECONDS=2)
    wait_for(lambda: jobs.get(job_id)["attempt"] == 2, "the other has it")
    go.touch()
    row = jobs.wait(job_id, "completed")
    # When the paused one goes on, its own worker is done as well.
    wait_for(lambda: signs(go) == 2, "both workers are about to answer")

    paused.send(signal.SIGCONT)

    wait_for(lambda: paused.lines("found_dead"), "the paused runner learns that it is dead")
    assert paused.lines("completed") == []
    assert jobs.get(job_id) == row
    other.send(signal.SIGTERM)
    other.wait()
    assert jobs.wait(jobs.add(), "completed")["attempt"] == 1


def test_workers_die_with_their_runner(services: System, jobs: Jobs) -> None:
    runner = services.runner(MOCK_DELAY_SECONDS=60)
    pids = [int(line["pid"]) for line in runner.lines("worker_ready")]

    runner.send(signal.SIGKILL)

    runner.wait()
    wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in pids), "no orphans")


def test_old_final_jobs_are_removed_by_the_runner(services: System, jobs: Jobs) -> None:
    old = [jobs.add(status=s, created="2 d", finished="2 d") for s in ("completed", "failed")]
    young = jobs.add(status="completed", created="2 d", finished="1 h")
    waiting = jobs.add(created="90 d", due_in="1 h")

    services.runner(JOBRUNNER_RETENTION="1d")

    query = "select id from job where id = any(%s)"
    wait_for(lambda: jobs.db.execute(query, [old]).rowcount == 0, "the old jobs are gone")
    assert jobs.status(young) == "completed"
    assert jobs.status(waiting) == "pending"


@pytest.fixture(params=[signal.SIGINT, signal.SIGQUIT], ids=["fast", "immediate"])
def restarting(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[embedded.Server, int]]:
    """A server of one's own, and how it is to be stopped."""
    server = embedded.Server(tmp_path / "postgres")
    with database.connect(server.start()) as connection:
        migrations.migrate(connection)
    yield server, request.param
    server.stop()


def test_postgresql_restarts_under_load_and_nothing_is_lost(
    restarting: tuple[embedded.Server, int], tmp_path: Path
) -> None:
    server, how = restarting
    with system(server.url, tmp_path) as services:
        runner = services.runner("--workers", "4", MOCK_DELAY_SECONDS=0.02)
        web = services.web(server.url)
        with Load(web, pause=0.005) as load:
            wait_for(lambda: len(load.accepted) > 100, "some load")
            server.stop(how)
            wait_for(lambda: 503 in load.statuses, "the web says 503", 20)
            server.start()
            before = len(load.accepted)
            wait_for(lambda: len(load.accepted) > before + 100, "load goes on")

        with psycopg.connect(server.url, autocommit=True) as db:
            states = Jobs(db)
            wait_for(lambda: not unfinished(states), "everything is final", 30)
            rows = db.execute("select id::text, status, attempt from job").fetchall()
    found = {job_id: (status, attempt) for job_id, status, attempt in rows}
    assert set(load.accepted) <= set(found)
    # Not even started twice: the outcomes of the meantime have waited for the database.
    assert set(found.values()) == {("completed", 1)}
    assert load.statuses == {202, 503}
    assert runner.lines("database_back")


def unfinished(jobs: Jobs) -> int:
    return jobs.count("pending") + jobs.count("processing")


def test_a_rolling_restart_under_load_loses_and_repeats_nothing(
    services: System, web_url: str, jobs: Jobs
) -> None:
    runners = [services.runner("--workers", "2", MOCK_DELAY_SECONDS=0.1) for _ in range(2)]
    web = services.web(web_url)

    with Load(web, clients=2) as load:
        for runner in runners:
            before = jobs.count("completed")
            wait_for(lambda n=before: jobs.count("completed") > n + 5, "some are completed")
            runner.send(signal.SIGTERM)
            assert runner.wait() == 0
            services.runner("--workers", "2", MOCK_DELAY_SECONDS=0.1)

    wait_for(lambda: not unfinished(jobs), "everything is final", 30)
    rows = jobs.db.execute("select id::text, status, attempt from job").fetchall()
    assert {row[0] for row in rows} == set(load.accepted)
    assert {row[1:] for row in rows} == {("completed", 1)}
    assert load.statuses == {202}


def test_drain_ends_when_the_queue_is_empty(services: System, jobs: Jobs) -> None:
    done = [jobs.add() for _ in range(5)]
    later = jobs.add(due_in="1 s")

    runner = services.runner("--drain", "--workers", "1", MOCK_DELAY_SECONDS=0)

    assert runner.wait() == 0
    assert [jobs.status(job_id) for job_id in (*done, later)] == ["completed"] * 6


def test_a_stop_ends_in_time_with_the_database_away(tmp_path: Path) -> None:
    server = embedded.Server(tmp_path / "postgres")
    with database.connect(server.start()) as connection:
        migrations.migrate(connection)
    with system(server.url, tmp_path) as services:
        runner = services.runner(MOCK_DELAY_SECONDS=0, JOBRUNNER_GRACE_SECONDS=1)
        server.stop()
        wait_for(lambda: runner.lines("database_lost"), "the runner misses the database")

        runner.send(signal.SIGTERM)

        assert runner.wait(15) == 0


def test_a_runner_waits_in_vain_for_no_job_of_a_login_without_rights(
    services: System, owner_url: str, db: object
) -> None:
    url = login_url(owner_url, "web_login")
    log = services.folder / "refused.log"
    process = Process(["-m", "jobrunner", "start"], {"DATABASE_URL": url}, log)

    assert process.wait() == 1
    assert "may not act as job_runner" in process.log
    assert len(process.log.strip().splitlines()) == 1


def test_the_row_of_a_runner_says_what_is_wrong_until_it_is_mended(
    services: System, jobs: Jobs, db: psycopg.Connection[Any], tmp_path: Path
) -> None:
    marker = tmp_path / "marker"
    services.runner(
        "--model", "sentiment=strange_models:SetsUpOnce", "--workers", "1", MARKER=marker
    )
    trouble = "select trouble from runner_overview"
    assert db.execute(trouble).fetchone() == (None,)

    jobs.add(max_attempts=1)  # kills its worker, and none comes after it
    wait_for(lambda: "the weights are gone" in str(db.execute(trouble).fetchone()), "it says so")

    marker.unlink()
    wait_for(lambda: db.execute(trouble).fetchone() == (None,), "nothing is wrong any more", 20)


def test_a_runner_that_may_delete_nothing_says_so(
    services: System, owner_url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("drop role if exists poor_login")
    db.execute("create role poor_login login password 'poor_login' in role job_runner")
    try:
        services.runner(url=login_url(owner_url, "poor_login"), JOBRUNNER_LEASE_SECONDS=2)

        refused = "select from runner where trouble like '%%grant job_janitor%%'"
        wait_for(lambda: db.execute(refused).rowcount, "it says so")
    finally:
        services.end()
        db.execute("drop role poor_login")


def test_a_runner_is_not_started_on_tables_that_are_older_than_it(
    services: System, db: psycopg.Connection[Any]
) -> None:
    last = "(select max(version) from migration)"
    [row] = db.execute(
        f"delete from migration where version = {last} returning version, name, sha256, applied_at"
    ).fetchall()  # type: ignore[arg-type]
    log = services.folder / "old.log"
    try:
        process = Process(["-m", "jobrunner", "start"], environment(services.url), log)
        assert process.wait() == 1
    finally:
        db.execute("insert into migration values (%s, %s, %s, %s)", row)

    assert "run `jobrunner migrate`" in process.log
    assert len(process.log.strip().splitlines()) == 1


def test_a_runner_works_on_tables_that_are_newer_than_it(
    services: System, jobs: Jobs, db: psycopg.Connection[Any]
) -> None:
    db.execute("insert into migration values (9999, 'add_future', repeat('0', 64))")
    job_id = jobs.add()
    try:
        services.runner(MOCK_DELAY_SECONDS=0)
        jobs.wait(job_id, "completed")
    finally:
        services.end()
        db.execute("delete from migration where version = 9999")


def test_a_model_that_can_not_be_loaded_leaves_nothing_behind(services: System, jobs: Jobs) -> None:
    model = "typo=strange_models:FailsSetup"
    log = services.folder / "failed.log"
    command = ["-m", "jobrunner", "start", "--model", model]
    process = Process(command, environment(services.url), log)

    assert process.wait() == 1
    last = process.log.strip().splitlines()[-1]
    assert last == ("Error: the model typo could not be loaded: OSError: the weights are missing")
    assert jobs.db.execute("select from runner").rowcount == 0
    assert jobs.db.execute("select name from model").fetchall() == [("sentiment",)]
