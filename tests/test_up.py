"""`jobrunner up`: everything with one command, and nothing left of it afterwards."""

import json
import os
import pty
import re
import shlex
import signal
import socket
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import psycopg
import pytest

from helpers import Jobs, wait_for
from jobrunner import child as child_module
from jobrunner.child import Child
from jobrunner.embedded import free_port
from jobrunner.errors import JobrunnerError, PortTaken
from jobrunner.up import require_port
from processes import HERE, TOLD, Web

pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="/proc shows what is left"),
]

HALF_A_REQUEST = (
    b"POST /predict HTTP/1.1\r\nHost: here\r\n"
    b"Content-Type: application/json\r\nContent-Length: 100\r\n\r\n{"
)
MY_MODEL = """
class Sentiment:
    def setup(self):
        pass

    def predict(self, item):
        return {"sentiment": "mine", "confidence": 1}
"""
TOLD_SETTINGS = {"PYTHONPATH": HERE, "TOLD_TIMEOUT_SECONDS": 600}
COMMAND = [sys.executable, "-m", "jobrunner", "up"]


class Up:
    """A `jobrunner up` of the test, in a home and on a port of its own."""

    def __init__(self, home: Path, *arguments: str, **settings: object) -> None:
        self.home = home
        self.port = free_port()
        self.environment = up_environment(home, self.port, **settings)
        self.output_file = home.with_suffix(".out")
        self.pids: set[int] = set()
        with self.output_file.open("wb") as output:
            self.process = subprocess.Popen(
                [*COMMAND, *arguments], env=self.environment, stdin=subprocess.DEVNULL,
                stdout=output, stderr=output, start_new_session=True,
            )  # fmt: skip
        self.pid = self.process.pid

    @property
    def output(self) -> str:
        return self.output_file.read_text()

    def wait_until_ready(self) -> "Up":
        wait_for(lambda: "jobrunner is up" in self.output or self.process.poll(), "it is up", 60)
        assert self.process.poll() is None, self.output
        self.pids = family(self.pid)
        return self

    def wait(self) -> int:
        return self.process.wait(40)

    def send(self, signum: int) -> None:
        self.process.send_signal(signum)

    def end(self) -> None:
        """Leave nothing of it, whatever the test did."""
        if self.process.poll() is None:
            self.pids |= family(self.pid)
            self.process.kill()
            self.process.wait()
        for pid in alive(self.pids):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def url(self) -> str:
        return (self.home / "database_url").read_text().strip()

    def query(self, query: str) -> list[Any]:
        with psycopg.connect(self.url()) as connection:
            return [row[0] for row in connection.execute(query)]  # type: ignore[call-overload]

    def submit(self, text: str = "I love it") -> str:
        """Post a text to the web, as the client of the banner does."""
        status, body = self.call("/predict", {"text": text})
        assert status == 202, body
        return str(body["job_id"])

    def call(self, path: str, body: Any = None) -> tuple[int, Any]:
        """Call the web; status 0 is a broken or refused connection."""
        web = Web(f"http://127.0.0.1:{self.port}")
        return web.get(path) if body is None else web.post(path, body)

    def wait_for_job(self, job_id: str, status: str = "completed") -> dict[str, Any]:
        """Wait until the job has that status; what the web says of it."""
        wait_for(lambda: self.call(f"/jobs/{job_id}")[1]["status"] == status, f"job is {status}")
        return dict(self.call(f"/jobs/{job_id}")[1])

    def web(self) -> tuple[int, set[int]]:
        """The pid of the web's master, and those of its workers."""
        [master] = [pid for pid in children(self.pid) if b"\0web\0" in arguments_of(pid)]
        return master, children(master)

    def refused(self) -> str:
        """Start another with the same home; the one line in which it says no."""
        return refusal(self.environment | {"PORT": str(free_port())})


def up_environment(home: Path, port: int, **settings: object) -> dict[str, str]:
    inherited = {
        name: value
        for name, value in os.environ.items()
        if "JOBRUNNER" not in name and name != "DATABASE_URL"
    }
    changes = {"JOBRUNNER_HOME": home, "PORT": port, "MOCK_DELAY_SECONDS": 0.2} | settings
    return inherited | {name: str(value) for name, value in changes.items()}


def refusal(environment: dict[str, str]) -> str:
    """Run `up` where it must not start; the one line in which it says why."""
    done = subprocess.run(COMMAND, env=environment, capture_output=True, text=True, timeout=30)
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout == ""
    assert re.fullmatch(r"Error: .*\n", done.stderr)
    return done.stderr.removeprefix("Error: ").strip()


def children(pid: int) -> set[int]:
    return {each for each, (parent, _) in processes().items() if parent == pid}


def arguments_of(pid: int) -> bytes:
    with suppress(OSError):
        return (Path("/proc") / str(pid) / "cmdline").read_bytes()
    return b""


def family(pid: int) -> set[int]:
    """A process and its descendants."""
    found, ahead = {pid}, [pid]
    while ahead:
        new = children(ahead.pop())
        found |= new
        ahead += new
    return found


def alive(pids: set[int]) -> set[int]:
    """Those of them that run."""
    return {pid for pid, (_, state) in processes().items() if pid in pids and state not in "ZX"}


def processes() -> dict[int, tuple[int, str]]:
    """Each process of the machine: its parent and its state."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            state, parent = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            found[int(folder.name)] = (int(parent), state)
    return found


def assert_nothing_is_left(up: Up) -> None:
    wait_for(lambda: not alive(up.pids), f"nothing of it is left: {up.output_file}")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", up.port)) != 0


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Up]]:
    """Starts an `up` in the test's folder and waits until it is ready."""
    started: list[Up] = []

    def start(
        home: Path = tmp_path / "home", *arguments: str, ready: bool = True, **settings: object
    ) -> Up:
        started.append(Up(home, *arguments, **settings))
        return started[-1].wait_until_ready() if ready else started[-1]

    yield start
    for up in started:
        up.end()


@pytest.fixture(scope="module")
def up(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Up]:
    """One that runs for all the tests that let it run on."""
    up = Up(tmp_path_factory.mktemp("up") / "home")
    try:
        yield up.wait_until_ready()
    finally:
        up.end()


# While it runs


def test_it_says_where_everything_is(up: Up) -> None:
    assert f"http://127.0.0.1:{up.port}/docs" in up.output
    assert f"database   {up.home}\n" in up.output
    assert "Ctrl-C stops everything" in up.output
    assert (up.home / "password").read_text().strip() not in up.output


def test_the_curl_line_that_it_prints_gets_a_job_done(up: Up) -> None:
    command = re.search(r"curl -X POST .*\\\n.*", up.output)
    assert command
    words = shlex.split(command[0].replace("\\\n", " "))
    address, body = words[3], words[words.index("-d") + 1]
    header = words[words.index("-H") + 1].split(": ")

    request = urllib.request.Request(address, body.encode(), {header[0]: header[1]})
    with urllib.request.urlopen(request, timeout=10) as answer:
        job = json.load(answer)

    assert answer.status == 202
    assert job == {"job_id": job["job_id"], "status": "processing"}
    result = up.wait_for_job(job["job_id"])["result"]
    assert result == {"sentiment": "positive", "confidence": 0.95}


def test_the_other_commands_find_its_database(up: Up) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "jobrunner", "status", "--json"],
        env=up.environment, capture_output=True, text=True, check=True,
    )  # fmt: skip

    assert [runner["workers"] for runner in json.loads(done.stdout)["runners"]] == [2]


def test_a_second_one_in_the_same_home_is_refused(up: Up) -> None:
    assert up.refused() == (
        f"`jobrunner up` runs in {up.home} already:"
        " stop it, or set JOBRUNNER_HOME to another folder"
    )
    assert up.call("/readyz")[0] == 200


def test_a_runner_that_is_killed_is_started_again_and_its_job_is_done(up: Up) -> None:
    with psycopg.connect(up.url()) as connection:
        # Both workers are busy for a moment: the last job is in somebody's hands or ahead.
        job_ids = [up.submit() for _ in range(4)]
        [pid] = [
            row[0] for row in connection.execute("select pid from runner where lost_at is null")
        ]

    os.kill(pid, signal.SIGKILL)

    for job_id in job_ids:
        up.wait_for_job(job_id)
    live = "select pid from runner where lost_at is null"
    wait_for(lambda: len(up.query(live)) == 1 and pid not in up.query(live), "another is there")
    assert "child_crashed name=runner code=-9" in up.output


def test_a_database_that_is_killed_is_started_again_and_its_job_is_done(up: Up) -> None:
    url = up.url()
    job_id = up.submit()
    pid = int((up.home / "pgdata" / "postmaster.pid").read_text().split()[0])

    os.kill(pid, signal.SIGKILL)

    wait_for(lambda: "child_crashed name=database code=-9" in up.output, "it is noticed")
    wait_for(lambda: up.call("/readyz")[0] == 200, "the web is ready again")
    up.wait_for_job(job_id)
    assert up.url() == url


def test_a_web_that_is_killed_is_started_again_and_its_workers_do_not_keep_the_port(
    up: Up,
) -> None:
    master, workers = up.web()
    assert workers
    with socket.create_connection(("127.0.0.1", up.port)) as client:
        # A worker would wait for the rest, and nobody else could listen.
        client.sendall(HALF_A_REQUEST)
        wait_for(lambda: up.call("/readyz")[0] == 200, "others are served")

        os.kill(master, signal.SIGKILL)

        wait_for(lambda: "child_crashed name=web code=-9" in up.output, "it is noticed")
        wait_for(lambda: not alive(workers), "its workers are gone", 10)
        wait_for(lambda: up.call("/readyz")[0] == 200, "the web is ready again", 30)
    assert up.web()[0] != master


def test_a_web_that_is_ended_by_somebody_else_is_started_again(up: Up) -> None:
    master, workers = up.web()

    os.kill(master, signal.SIGTERM)

    wait_for(lambda: "child_crashed name=web code=0" in up.output, "it is noticed")
    wait_for(lambda: up.call("/readyz")[0] == 200, "the web is ready again")
    assert not alive({master, *workers})


def test_a_runner_that_was_told_to_stop_stays_away(start: Callable[..., Up]) -> None:
    up = start(JOBRUNNER_WORKERS=1)

    subprocess.run(
        [sys.executable, "-m", "jobrunner", "stop", "--all"], env=up.environment, check=True
    )

    wait_for(lambda: "child_ended name=runner" in up.output, "it is noticed")
    assert up.call("/readyz")[0] == 200
    assert up.query("select id from runner") == []
    up.send(signal.SIGTERM)
    assert up.wait() == 0


def test_a_child_that_does_not_stay_up_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child_module, "SHORT_LIFE_SECONDS", 60)
    command = ["-c", "raise SystemExit(3)"]
    child = Child("web", command, dict(os.environ), 1, signal.SIGKILL, may_end=False, proven=True)
    child.start()

    def tend() -> None:
        with suppress(AssertionError):
            wait_for(lambda: child.tend(), "it is given up")

    with pytest.raises(JobrunnerError, match="the web does not stay up: its last exit code is 3"):
        tend()


# Stopping


def test_sigterm_lets_the_job_in_hand_finish_stops_all_in_order_and_keeps_the_data(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    go = tmp_path / "go"
    first = start(tmp_path / "home", *TOLD, **TOLD_SETTINGS)
    job_id = first.submit(f"await {go}")
    wait_for(Path(f"{go}.begun").exists, "the job is in hand")

    first.send(signal.SIGTERM)
    wait_for(lambda: "info stopping runner" in first.output, "the runner is stopping")
    go.touch()

    assert first.wait() == 0
    assert not alive(first.pids)
    assert_nothing_is_left(first)
    assert "Stopping: web, runner, database. Again Ctrl-C: at once.\n" in first.output
    assert first.output.endswith("Stopped.\n")
    assert "Traceback" not in first.output
    assert first.output.index("Shutting down: Master") < first.output.index("info stopping runner")
    assert not (first.home / "database_url").exists()
    again = start(first.home)
    found = again.call(f"/jobs/{job_id}")[1]
    assert (found["status"], found["attempt"]) == ("completed", 1)
    assert "Applied" not in again.output


def test_a_second_ctrl_c_does_not_wait_for_the_job_in_hand(
    start: Callable[..., Up], jobs: Jobs, owner_url: str
) -> None:
    up = start(MOCK_DELAY_SECONDS=60, DATABASE_URL=owner_url)
    job_id = up.submit()
    jobs.wait(job_id, "processing")

    up.send(signal.SIGINT)
    wait_for(lambda: "Stopping" in up.output, "it is stopping")
    up.send(signal.SIGINT)

    assert up.process.wait(20) == 0
    row = jobs.get(job_id)
    assert (row["status"], row["attempt"]) == ("pending", 0)
    assert_nothing_is_left(up)


def test_a_second_ctrl_c_does_not_wait_for_a_client_that_stalls(start: Callable[..., Up]) -> None:
    up = start(JOBRUNNER_WORKERS=1)
    with socket.create_connection(("127.0.0.1", up.port)) as client:
        client.sendall(HALF_A_REQUEST)
        wait_for(lambda: up.call("/readyz")[0] == 200, "others are served")

        up.send(signal.SIGINT)
        wait_for(lambda: "Handling signal: term" in up.output, "the web is stopping")
        up.send(signal.SIGINT)

        assert up.process.wait(8) == 0
    assert_nothing_is_left(up)


def test_ctrl_c_in_a_terminal_stops_all_and_shows_no_traceback(tmp_path: Path) -> None:
    environment = up_environment(tmp_path / "home", free_port())
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], COMMAND, environment)
    os.set_blocking(terminal, False)
    said = b""

    def read() -> bytes:
        nonlocal said
        with suppress(OSError):
            said += os.read(terminal, 65536)
        return said

    wait_for(lambda: b"jobrunner psql" in read(), "it is up", 60)
    pids = family(pid)
    os.write(terminal, b"\x03")
    wait_for(lambda: b"Stopped." in read(), "it has stopped")

    _, status = os.waitpid(pid, 0)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not alive(pids)
    assert b"Traceback" not in said
    assert b"Aborted" not in said


def test_a_terminal_that_is_closed_stops_all(tmp_path: Path, jobs: Jobs, owner_url: str) -> None:
    home = tmp_path / "home"
    changes, port, go = TOLD_SETTINGS | {"DATABASE_URL": owner_url}, free_port(), tmp_path / "go"
    pid, terminal = pty.fork()
    if pid == 0:
        os.execve(COMMAND[0], [*COMMAND, *TOLD], up_environment(home, port, **changes))
    said = b""
    while b"jobrunner psql" not in said:
        said += os.read(terminal, 65536)
    pids = family(pid)
    job_id = jobs.add(f"await {go}")
    jobs.wait(job_id, "processing")

    os.close(terminal)
    web = Web(f"http://127.0.0.1:{port}")
    wait_for(lambda: web.get("/livez")[0] == 0, "the web is stopped, and the runner is next")
    go.touch()

    _, status = os.waitpid(pid, 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert not alive(pids)
    assert jobs.status(job_id) == "completed"
    assert jobs.db.execute("select from runner").fetchall() == []


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux alone")
def test_kill_9_leaves_no_database_no_web_and_no_runner(start: Callable[..., Up]) -> None:
    up = start()
    job_id = up.submit()

    up.send(signal.SIGKILL)
    up.wait()

    assert len(up.pids) > 5
    assert_nothing_is_left(up)
    again = start(up.home)
    ready = again.query("select pid from runner where ready_workers = 2")
    assert again.pids.intersection(ready), "the one that was killed along was taken for ours"
    again.wait_for_job(job_id)


# Settings


def test_a_database_of_ones_own_is_used_and_none_is_started(
    start: Callable[..., Up], jobs: Jobs, owner_url: str
) -> None:
    up = start(DATABASE_URL=owner_url, JOBRUNNER_WORKERS=1)

    jobs.wait(up.submit(), "completed")

    assert "database   DATABASE_URL" in up.output
    assert "Starting PostgreSQL" not in up.output
    up.send(signal.SIGTERM)
    assert up.wait() == 0
    assert "Stopping: web, runner. Again Ctrl-C: at once.\n" in up.output
    assert [path.name for path in up.home.iterdir()] == ["up.lock"]


def test_a_port_that_is_taken_is_said_at_once_before_anything_is_started(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]

        said = refusal(up_environment(tmp_path / "home", port))

    assert said.startswith(f"127.0.0.1:{port} can not be had (Address already in use)")
    assert "set PORT to another" in said
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["up.lock"]


@pytest.mark.parametrize("host", ["no such host", "a" * 100])
def test_a_host_that_is_no_address_is_said(host: str) -> None:
    with pytest.raises(PortTaken, match="is no address of this machine: set HOST to one"):
        require_port(host, free_port())


def test_a_home_that_can_not_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    said = refusal(up_environment(tmp_path / "file" / "home", free_port()))

    assert said.endswith("(Not a directory): set JOBRUNNER_HOME to a folder of your own")


@pytest.mark.parametrize("name", ["WEB_THREADS", "WEB_CONCURRENCY", "JOBRUNNER_MAX_PENDING"])
def test_a_bad_setting_of_the_web_is_said_at_once_before_anything_is_started(
    name: str, tmp_path: Path
) -> None:
    said = refusal(up_environment(tmp_path / "home", free_port(), **{name: "many"}))

    assert said.startswith(f"{name}: should be a valid integer")
    assert [path.name for path in (tmp_path / "home").iterdir()] == ["up.lock"]


def test_a_model_of_ones_own_is_served_and_the_banner_says_how_to_ask_for_it(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    (tmp_path / "mymodel.py").write_text(MY_MODEL)
    model = ["--model", "mine=mymodel:Sentiment"]

    up = start(tmp_path / "home", *model, PYTHONPATH=tmp_path)

    assert '{"model": "mine", "text": "This product is amazing!"}' in up.output
    status, job = up.call("/predict", {"model": "mine", "text": "I love it"})
    assert status == 202
    assert up.wait_for_job(job["job_id"])["result"] == {"sentiment": "mine", "confidence": 1}


def test_files_of_ones_own_may_be_called_as_ours_are(
    start: Callable[..., Up], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymodel.py").write_text(MY_MODEL)
    for name in ("web", "flask", "gunicorn"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('this is not it')")
    monkeypatch.chdir(tmp_path)

    up = start(tmp_path / "home", "--model", "mine=mymodel:Sentiment")

    status, job = up.call("/predict", {"model": "mine", "text": "I love it"})
    assert status == 202
    assert up.wait_for_job(job["job_id"])["result"] == {"sentiment": "mine", "confidence": 1}


def test_a_model_that_can_not_be_loaded_ends_it_at_once_and_leaves_nothing(
    start: Callable[..., Up], tmp_path: Path
) -> None:
    up = start(tmp_path / "home", "--model", "sentiment=nowhere:Model", ready=False)

    assert up.wait() == 1
    assert up.output.count("Error: the model sentiment could not be loaded") == 1
    last = "Error: the runner did not start (its exit code is 1): it says why above"
    assert up.output.splitlines()[-1] == last
    assert not family(up.pid) - {up.pid}
