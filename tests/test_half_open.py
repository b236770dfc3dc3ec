"""Packets get lost and nobody says so: each connection is found dead in seconds and replaced.

A filter on both ends of a connection drops what arrives, so that neither hears of the other
again, as when a host or a firewall between them vanishes. Only connections that are there
are hit: a new one works.
"""

import ctypes
import os
import socket
import struct
from contextlib import suppress
from pathlib import Path
from time import monotonic
from typing import Any

import psycopg
import pytest

from helpers import RUNNER, Jobs, signs, wait_for
from jobrunner import embedded
from jobrunner.links import Link
from jobrunner.listener import Listener
from processes import TOLD, Load, Process, System

PIDFD_GETFD = 438
SO_ATTACH_FILTER = 26
DROP_ALL = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF: return 0 bytes

# Application names.
STATEMENTS = "^jobrunner [^ ]+-[^ ]+$"
LISTENER = "^jobrunner listener "
WEB = "^jobrunner web$"

ALIVE = "select from pg_stat_activity where pid = any(%s)"

# Nobody looks into the queue within a test: who starts a job has been told of it.
QUIET: dict[str, Any] = {"JOBRUNNER_POLL_SECONDS": 60}

# A connection is given up after 4 s without a sign of the other end.
NOTICED_SECONDS = 8


def take_socket(pid: int, fd: int) -> socket.socket:
    """A duplicate of another process's socket.

    :raises OSError: when it is none, or may not be had.
    """
    process = os.pidfd_open(pid)
    try:
        libc = ctypes.CDLL(None, use_errno=True)
        copy = libc.syscall(PIDFD_GETFD, process, fd, 0)
    finally:
        os.close(process)
    if copy < 0:
        raise OSError(ctypes.get_errno(), "pidfd_getfd")
    return socket.socket(fileno=copy)


def deafen(pid: int, port: int) -> bool:
    """Drop what arrives at a process's end of a connection that has the port at one end."""
    found = False
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(OSError):
            if entry.readlink().name.startswith("socket:"):
                with take_socket(pid, int(entry.name)) as end:
                    if end.family != socket.AF_INET:
                        continue
                    if port in (end.getsockname()[1], end.getpeername()[1]):
                        program = ctypes.create_string_buffer(DROP_ALL)
                        filters = struct.pack("HL", 1, ctypes.addressof(program))
                        end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filters)
                        found = True
    return found


def can_deafen() -> bool:
    try:
        with socket.create_server(("127.0.0.1", 0)) as server:
            take_socket(os.getpid(), server.fileno()).close()
    except (AttributeError, OSError):
        return False
    return True


pytestmark = [
    pytest.mark.process,
    pytest.mark.skipif(not can_deafen(), reason="needs Linux and the right to trace processes"),
]


def drop_packets(admin: psycopg.Connection[Any], whose: str, pids: list[int]) -> list[int]:
    """Make connections half-open, by their application name; give the server's process ids."""
    query = "select pid, client_port from pg_stat_activity where application_name ~ %s"
    ends = admin.execute(query, [whose]).fetchall()
    for backend, port in ends:
        assert deafen(backend, port)
        assert [pid for pid in pids if deafen(pid, port)]
    return [backend for backend, _ in ends]


def all_say(runners: list[Process], move: str) -> bool:
    return all(runner.lines(move) for runner in runners)


def has_locks(admin: psycopg.Connection[Any]) -> bool:
    query = "select from runner where has_lock and runner_holds_lock(id)"
    return admin.execute(query).rowcount == 2


def ran_once(admin: psycopg.Connection[Any], *runners: Process) -> bool:
    """Whether each job was given to a worker once, and that attempt was its last."""
    started = [line["job_id"] for runner in runners for line in runner.lines("claimed")]
    all_first = admin.execute("select from job where attempt <> 1 or errors <> '[]'").rowcount == 0
    return all_first and len(started) == len(set(started))


def test_a_half_open_connection_for_statements_is_replaced_and_the_job_in_hand_completes(
    services: System, admin: psycopg.Connection[Any], tmp_path: Path
) -> None:
    runner = services.runner(*TOLD, TOLD_TIMEOUT_SECONDS=60, **QUIET)
    jobs = Jobs(admin)
    job_id = jobs.add(f"await {tmp_path / 'go'}")
    wait_for(lambda: signs(tmp_path / "go.begun"), "the job is in hand")

    assert len(drop_packets(admin, STATEMENTS, [runner.pid])) == 1
    (tmp_path / "go").touch()

    wait_for(lambda: runner.lines("database_lost"), "it has noticed", NOTICED_SECONDS)
    wait_for(lambda: runner.lines("database_back"), "it is back", 10)
    jobs.wait(job_id, "completed", 10)
    assert Jobs(admin).start_quickly()
    wait_for(lambda: jobs.count("completed") == 2, "that job is done as well")
    assert ran_once(admin, runner)


def test_a_half_open_listener_is_replaced_and_hears_again(
    services: System, admin: psycopg.Connection[Any], tmp_path: Path
) -> None:
    runners = two_at_work(services, admin, tmp_path / "go")

    assert len(drop_packets(admin, LISTENER, [runner.pid for runner in runners])) == 2

    wait_for(lambda: all_say(runners, "listener_lost"), "both have noticed", NOTICED_SECONDS)
    (tmp_path / "go").touch()
    wait_for(lambda: Jobs(admin).count("completed") == 2, "both have finished")
    assert Jobs(admin).start_quickly()
    wait_for(lambda: Jobs(admin).count("completed") == 3, "that job is done as well")
    assert ran_once(admin, *runners)


def test_the_lock_of_a_half_open_listener_is_free_in_seconds_and_nobody_is_found_dead(
    services: System, admin: psycopg.Connection[Any], tmp_path: Path
) -> None:
    runners = two_at_work(services, admin, tmp_path / "go")

    half_open = drop_packets(admin, LISTENER, [runner.pid for runner in runners])

    wait_for(lambda: not admin.execute(ALIVE, [half_open]).rowcount, "they are given up", 14)
    wait_for(lambda: has_locks(admin), "both hold their locks again")
    (tmp_path / "go").touch()
    wait_for(lambda: Jobs(admin).count("completed") == 2, "both have finished")
    assert ran_once(admin, *runners)
    for runner in runners:
        assert runner.lines("runner_lost") == runner.lines("found_dead") == []


def test_the_lock_of_a_half_open_listener_that_is_being_notified_is_free_in_seconds(
    admin: psycopg.Connection[Any], own_server: embedded.Server
) -> None:
    """What is sent and not acknowledged is repeated, and keepalives wait meanwhile."""
    Jobs(admin).add_runner(RUNNER)
    listener = Listener(own_server.url, RUNNER, Link(own_server.url, RUNNER))
    assert listener.tend(admin)
    assert listener.holds_lock

    [half_open] = drop_packets(admin, LISTENER, [os.getpid()])
    admin.execute("notify job_submitted")

    wait_for(lambda: not admin.execute(ALIVE, [[half_open]]).rowcount, "it is given up", 14)
    listener.lose()


def two_at_work(services: System, admin: psycopg.Connection[Any], go: Path) -> list[Process]:
    """Two runners, each with its lock and a job that ends once the file is there."""
    runners = [services.runner("--workers", "1", *TOLD, **QUIET) for _ in "ab"]
    wait_for(lambda: has_locks(admin), "both hold their locks")
    for _ in runners:
        Jobs(admin).add(f"await {go}")
    wait_for(lambda: Jobs(admin).count("processing") == 2, "both are at work")
    return runners


def test_half_open_connections_of_the_web_are_a_503_in_seconds_and_then_forgotten(
    services: System, admin: psycopg.Connection[Any], own_server: embedded.Server
) -> None:
    web = services.web(own_server.url, WEB_CONCURRENCY=2)
    master = services.processes[-1].pid
    wait_for(lambda: len(children(master)) == 2, "both processes are there")
    pools = "select from pg_stat_activity where application_name ~ %s"
    wait_for(lambda: admin.execute(pools, [WEB]).rowcount == 16, "so are all connections")
    with Load(web, clients=12) as load:
        wait_for(lambda: len(load.accepted) > 50, "jobs are accepted")
        assert len(drop_packets(admin, WEB, children(master))) >= 8
        dropped = monotonic()
        wait_for(
            lambda: len([post for post in load.since(dropped + 5.5) if post.status == 202]) > 50,
            "jobs are accepted again",
        )

    late = load.since(dropped + 5.5)
    assert {post.status for post in load.posted} <= {202, 503}
    assert 503 in {post.status for post in load.posted}
    assert {post.status for post in late} == {202}
    assert max(post.ended - post.began for post in load.posted) < 10
    assert max(post.ended - post.began for post in late) < 2
    kept = {str(row[0]) for row in admin.execute("select id from job")}
    assert kept >= set(load.accepted)


def children(parent: int) -> list[int]:
    listed = Path(f"/proc/{parent}/task/{parent}/children").read_text()
    return [int(pid) for pid in listed.split()]
