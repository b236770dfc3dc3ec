"""`jobrunner submit` goes on where it was interrupted: nothing twice, nothing missing."""

import json
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner, Result

from crews import Crew
from helpers import Jobs, login_url, only_line, wait_for
from jobrunner import database, embedded
from jobrunner.bulk import collector, feed
from jobrunner.bulk.batch import Batch
from jobrunner.cli import main
from jobrunner.errors import DatabaseRefused, DatabaseUnavailable
from processes import TOLD, Process, System, environment, system

SUBMITTED_TWICE = """
    select batch_position
    from job
    group by batch_position
    having count(*) > 1
"""

# Asked of each row that is inserted; a shared lock is waited for while somebody has it alone.
HOLD = """
    alter table job add constraint held_half_way
        check (batch_position < 30000 or pg_advisory_xact_lock_shared(7)::text = '') not valid
"""
LET_GO = "select pg_advisory_unlock_all()"

# By a process of its own: what a child takes is counted from what its parent had.
MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)
"""


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def submit(web_url: str, tmp_path: Path) -> Callable[..., Result]:
    def submit(*arguments: str, **changes: str) -> Result:
        env = {"DATABASE_URL": web_url, "JOBRUNNER_HOME": str(tmp_path)} | changes
        return CliRunner().invoke(main, ["submit", *arguments], env=env, prog_name="jobrunner")

    return submit


@pytest.fixture
def small_chunks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(feed, "CHUNK_ROWS", 10)
    monkeypatch.setattr(collector, "SAFE_SECONDS", 0.0)


@pytest.fixture
def crew(owner_url: str, jobs: Jobs) -> Iterator[Crew]:
    with Crew(owner_url) as crew:
        yield crew


@pytest.fixture
def fast(runner_url: str, tmp_path: Path) -> Iterator[System]:
    """A runner that takes no time for a job, unless its text says so."""
    with system(runner_url, tmp_path) as started:
        started.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
        yield started


def write(count: int, name: str = "in.ndjson", length: int = 20) -> str:
    rows = ({"id": n, "text": f"text {n} ".ljust(length, "x")} for n in range(count))
    Path(name).write_text("".join(f"{json.dumps(row)}\n" for row in rows))
    return name


def write_held(count: int, go: Path) -> str:
    """Rows of which the last one is not done before that file is there."""
    source = write(count - 1)
    with Path(source).open("a") as rows:
        rows.write(json.dumps({"id": count - 1, "text": f"await {go}"}) + "\n")
    return source


def written(name: str = "out.ndjson") -> list[Any]:
    return [json.loads(line) for line in Path(name).read_text().splitlines()]


def start(url: str, *arguments: str) -> Process:
    command = ["-m", "jobrunner", "submit", *arguments]
    return Process(command, environment(url), Path("submit.log"))


def execute(url: str, *arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "jobrunner", "submit", *arguments],
        env=environment(url), capture_output=True, text=True, timeout=60, **options,
    )  # fmt: skip


def size(name: str = "out.ndjson") -> int:
    return Path(name).stat().st_size if Path(name).exists() else 0


def assert_complete(jobs: Jobs, count: int) -> None:
    """All rows are written once and in order, and each is one job's."""
    rows = written()
    assert [row["id"] for row in rows] == list(range(count))
    assert {row["status"] for row in rows} == {"completed"}
    assert len({row["job_id"] for row in rows}) == count
    assert jobs.count() == count
    assert jobs.db.execute(SUBMITTED_TWICE).fetchall() == []
    assert not Path("out.ndjson.jobrunner").exists()


# Real processes.


@pytest.mark.process
@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_killed_again_and_again_it_goes_on_and_ends_with_every_row_once(
    signum: int, web_url: str, jobs: Jobs, fast: System, tmp_path: Path
) -> None:
    go, count = tmp_path / "go", 20_000
    source = write_held(count, go)

    for part in (1, 4, 8):
        process = start(web_url, source, "--output", "out.ndjson")
        wait_for(lambda n=part: size() > n * 150_000, "so much is written", 60)
        process.send(signum)
        process.wait()
    go.touch()
    last = execute(web_url, source, "--output", "out.ndjson")

    assert (last.returncode, last.stderr) == (0, "")
    assert_complete(jobs, count)


@pytest.fixture
def held_half_way(db: psycopg.Connection[Any]) -> Iterator[None]:
    """Nobody inserts the rows from 30,000 on before the test lets go."""
    db.execute("select pg_advisory_lock(7)")
    db.execute(HOLD)
    yield
    db.execute(LET_GO)
    db.execute("alter table job drop constraint held_half_way")


@pytest.mark.process
@pytest.mark.usefixtures("held_half_way")
def test_killed_while_it_submits_it_submits_the_rest(web_url: str, jobs: Jobs) -> None:
    source = write(60_000)

    process = start(web_url, source)
    wait_for(lambda: jobs.count() > 5000, "some are submitted")
    process.send(signal.SIGKILL)
    process.wait()
    before = jobs.count()
    jobs.db.execute(LET_GO)
    last = execute(web_url, source, "--json")

    assert before <= 30_000
    assert json.loads(last.stdout)["submitted"] == 60_000
    assert jobs.count() == 60_000
    assert jobs.db.execute(SUBMITTED_TWICE).fetchall() == []
    assert jobs.db.execute("select from (select distinct batch_id from job)").rowcount == 1


@pytest.mark.process
def test_ctrl_c_says_how_to_go_on(web_url: str, jobs: Jobs) -> None:
    # Otherwise it is told to start a runner, if it waits for long.
    jobs.add_runner("here-1-abcd")
    process = start(web_url, write(10), "--output", "out.ndjson")
    wait_for(lambda: jobs.count() == 10, "all are submitted")
    process.send(signal.SIGINT)

    assert process.wait() == 130
    assert process.log == "Interrupted: the same command goes on from here.\n"


@pytest.mark.process
def test_ctrl_c_says_that_a_pipe_can_not_be_continued(web_url: str, jobs: Jobs) -> None:
    process = start(web_url, write(10), "--output", "-")
    wait_for(lambda: jobs.count() == 10, "all are submitted")
    process.send(signal.SIGINT)

    assert process.wait() == 130
    assert "through a pipe it can not be continued" in process.log


@pytest.mark.process
def test_a_restart_of_the_database_in_the_middle_is_survived(
    own_server: embedded.Server, services: System, tmp_path: Path
) -> None:
    services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=600)
    url, go = login_url(own_server.url, "web_login"), tmp_path / "go"

    process = start(url, write_held(20_000, go), "--output", "out.ndjson")
    wait_for(lambda: size() > 300_000, "some are written", 60)
    own_server.stop()
    go.touch()
    own_server.start()

    assert process.wait(60) == 0
    assert process.log.startswith("The database is away: waiting for it, 60 s.\n")
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        assert_complete(Jobs(admin), 20_000)


@pytest.mark.process
def test_a_database_that_is_away_at_the_start_is_waited_for_as_well(
    own_server: embedded.Server, services: System
) -> None:
    services.runner(MOCK_DELAY_SECONDS=0)
    url = login_url(own_server.url, "web_login")
    own_server.stop()

    process = start(url, write(100), "--output", "out.ndjson")
    wait_for(lambda: process.log or process.process.poll() is not None, "it has said something")
    own_server.start()

    assert process.wait(60) == 0
    assert process.log.startswith("The database is away: waiting for it, 60 s.\n")
    with psycopg.connect(own_server.url, autocommit=True) as admin:
        assert_complete(Jobs(admin), 100)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (("web_login:web_login", "web_login:wrong"), "password authentication failed"),
        (("127.0.0.1", "nowhere.invalid"), "nowhere.invalid"),
        (("/jobrunner", "/nothing"), 'database "nothing" does not exist'),
        (("/jobrunner", "/postgres"), "run `jobrunner migrate`"),
    ],
)
def test_what_waiting_does_not_mend_is_said_at_once(
    change: tuple[str, str], said: str, web_url: str
) -> None:
    done = execute(web_url.replace(*change), write(10))

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("Error: ")
    assert said in done.stderr
    assert "waiting for it" not in done.stderr


def test_a_login_whose_connections_are_used_up_is_let_in_in_a_moment(
    owner_url: str, db: psycopg.Connection[Any]
) -> None:
    db.execute("create role narrow_login login connection limit 0 password 'narrow_login'")
    try:
        with pytest.raises(DatabaseUnavailable, match="too many connections for role") as caught:
            database.connect(login_url(owner_url, "narrow_login"), name="test")
    finally:
        db.execute("drop role narrow_login")

    assert not isinstance(caught.value, DatabaseRefused)


@pytest.mark.process
def test_memory_is_bounded_however_long_the_file(web_url: str, jobs: Jobs, fast: System) -> None:
    source = write(50_000, length=2000)

    command = [sys.executable, "-m", "jobrunner", "submit", source, "--output", "out.ndjson"]
    measured = subprocess.run(
        [sys.executable, "-c", MEASURE, *command],
        env=environment(web_url), capture_output=True, text=True, timeout=100, check=True,
    )  # fmt: skip

    assert Path(source).stat().st_size > 100_000_000
    with Path("out.ndjson").open() as output:
        assert sum(1 for _ in output) == 50_000
    kilobytes = int(measured.stdout.split()[-1]) // (1024 if sys.platform == "darwin" else 1)
    assert kilobytes < 120_000


@pytest.mark.process
def test_standard_streams_of_a_process(web_url: str, jobs: Jobs, crew: Crew) -> None:
    lines = "".join(f'{{"id": {n}, "text": "good"}}\n' for n in range(2000))

    done = execute(web_url, "-", "--format", "ndjson", "--output", "-", input=lines)

    assert done.returncode == 0
    assert [json.loads(line)["id"] for line in done.stdout.splitlines()] == list(range(2000))
    assert done.stderr.startswith("Completed 2000 jobs of batch ")


@pytest.mark.process
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["none.csv"], "none.csv: No such file or directory"),
        (["in.ndjson", "--output", "none/out.jsonl"], "none/out.jsonl: No such file or directory"),
        (["in.ndjson", "--output", "."], ".: Is a directory"),
    ],
)
def test_a_file_that_can_not_be_opened_is_one_line(
    arguments: list[str], said: str, web_url: str, jobs: Jobs
) -> None:
    write(1)

    done = execute(web_url, *arguments)

    assert (done.returncode, done.stdout, done.stderr) == (1, "", f"Error: {said}\n")
    assert jobs.count() == 0


# What is left by an interruption, and what is made of it.


@pytest.fixture
def interrupted(
    submit: Callable[..., Result],
    small_chunks: None,
    monkeypatch: pytest.MonkeyPatch,
    crew: Crew,
    jobs: Jobs,
) -> None:
    """Of 100 rows 50 are submitted and some of the first 40 written."""
    write(100)
    with monkeypatch.context() as patch:
        insert, calls = Batch.insert, iter(range(100))

        def insert_some(self: Batch, items: Any) -> int:
            last, call = insert(self, items), next(calls)
            if call == 3:
                wait_for(lambda: jobs.count("completed") >= 10, "some can be written")
            if call == 4:
                raise KeyboardInterrupt
            return last

        patch.setattr(Batch, "insert", insert_some)
        assert submit("in.ndjson", "--output", "out.ndjson").exit_code == 130
    assert Path("out.ndjson.jobrunner").exists()


@pytest.mark.usefixtures("interrupted")
def test_a_torn_last_row_is_written_again(submit: Callable[..., Result], jobs: Jobs) -> None:
    with Path("out.ndjson").open("a") as output:
        output.write('{"id": 7, "text": "te')

    assert submit("in.ndjson", "--output", "out.ndjson").exit_code == 0

    assert_complete(jobs, 100)


@pytest.mark.usefixtures("interrupted")
def test_jobs_that_were_deleted_meanwhile_are_errors_in_their_place(
    submit: Callable[..., Result], jobs: Jobs
) -> None:
    state = json.loads(Path("out.ndjson.jobrunner").read_text())
    done = sum(state["tally"].values())
    wait_for(lambda: jobs.count("completed") == 50, "the crew has done the rest")
    jobs.db.execute("delete from job where batch_position = 44")

    assert submit("in.ndjson", "--output", "out.ndjson").exit_code == 1

    rows = written()
    assert done <= 44
    assert [row["id"] for row in rows] == list(range(100))
    assert rows[44]["error"]["code"] == "deleted"


@pytest.mark.usefixtures("interrupted")
def test_an_input_that_has_changed_is_refused(submit: Callable[..., Result], jobs: Jobs) -> None:
    before = jobs.count()
    text = Path("in.ndjson").read_text()
    Path("in.ndjson").write_text(text.replace("text 3 ", "text three "))

    error = only_line(submit("in.ndjson", "--output", "out.ndjson"))

    assert error.startswith("the input is not what it was when this was begun: remove ")
    assert error.endswith("out.ndjson.jobrunner to submit all of it anew")
    assert jobs.count() == before


@pytest.mark.usefixtures("interrupted")
def test_other_options_are_refused(submit: Callable[..., Result]) -> None:
    error = only_line(submit("in.ndjson", "--output", "out.ndjson", "--priority", "5"))

    assert "was begun with format ndjson, model sentiment, priority 0" in error


@pytest.mark.usefixtures("interrupted")
def test_an_output_that_is_gone_or_shorter_is_refused(submit: Callable[..., Result]) -> None:
    Path("out.ndjson").write_text("")

    error = only_line(submit("in.ndjson", "--output", "out.ndjson"))

    assert "out.ndjson is shorter than it was" in error


@pytest.mark.usefixtures("interrupted")
def test_a_state_that_can_not_be_read_is_one_line(submit: Callable[..., Result]) -> None:
    Path("out.ndjson.jobrunner").write_text("{}")

    error = only_line(submit("in.ndjson", "--output", "out.ndjson"))

    assert "out.ndjson.jobrunner can not be read: remove " in error


@pytest.mark.usefixtures("small_chunks")
def test_a_row_that_is_mended_lets_it_go_on(
    submit: Callable[..., Result], crew: Crew, jobs: Jobs
) -> None:
    text = Path(write(100)).read_text()
    Path("in.ndjson").write_text(text.replace('"text": "text 77', '"txt": "text 77'))

    stopped = only_line(submit("in.ndjson", "--output", "out.ndjson"))
    Path("in.ndjson").write_text(text)

    assert stopped == "in.ndjson, line 78: text is required"
    assert jobs.count() == 70
    assert submit("in.ndjson", "--output", "out.ndjson").exit_code == 0
    assert_complete(jobs, 100)


def test_two_at_once_are_refused(web_url: str, submit: Callable[..., Result], jobs: Jobs) -> None:
    write(10)
    first = start(web_url, "in.ndjson", "--output", "out.ndjson")
    wait_for(lambda: jobs.count() == 10, "the first one waits")

    error = only_line(submit("in.ndjson", "--output", "out.ndjson"))
    first.end()

    assert error == "another `jobrunner submit` is at work on out.ndjson"
    assert jobs.count() == 10
