"""PostgreSQL as it is to be broken: a primary, perhaps a standby, and what can befall them."""

import os
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any
from urllib.parse import urlsplit

import psycopg

from chaos import audit
from jobrunner import binaries, database, embedded, migrations

LOGINS = {"chaos_web": ("job_web",), "chaos_runner": ("job_runner", "job_janitor")}
WAIT_SECONDS = 30.0
DATABASE = "jobrunner"
CLAIM_SECONDS = 0.5

# What was written last is a claim, and has not reached the disk.
CLAIM_BEFORE_DISK = """
    select
    where
        pg_current_wal_flush_lsn() < pg_current_wal_insert_lsn()
        and exists (
            select
            from job
            where
                status = 'processing'
                and started_at > clock_timestamp() - interval '50 ms'
        )
"""

IN_SYNC = "select from pg_stat_replication where sync_state = 'sync'"
TERMINATE = """
    select count(pg_terminate_backend(pid))
    from pg_stat_activity
    where
        backend_type = 'client backend'
        and pid <> pg_backend_pid()
        and random() < %s
"""


class Postgres:
    """The servers of a run. Whoever breaks them holds ``in_use`` meanwhile."""

    def __init__(self, folder: Path, *, with_standby: bool, weaken: tuple[str, ...] = ()) -> None:
        self.in_use = False
        self._weaken = weaken
        self._primary = embedded.Server(folder / "primary")
        self._standby = embedded.Server(folder / "standby") if with_standby else None
        self._current = self._primary

    @property
    def ports(self) -> list[int]:
        """Where the servers listen: the first primary, then the standby."""
        return [server.port for server in (self._primary, self._standby) if server]

    @property
    def has_standby(self) -> bool:
        """Whether there is one that was not promoted yet."""
        return self._standby is not None and self._current is self._primary

    def start(self) -> None:
        """Start it all: migrated, with the logins of a deployment and the audit."""
        with database.connect(self._primary.start()) as connection:
            migrations.migrate(connection)
            _prepare(connection)
            for statement in self._weaken:
                connection.execute(statement.encode())
            if self._standby:
                self._start_standby(self._standby)
                connection.execute("alter system set synchronous_standby_names = '*'")
                connection.execute("select pg_reload_conf()")
                wait_for(lambda: connection.execute(IN_SYNC).rowcount, "the standby is in sync")

    def connect(self) -> database.BoundedConnection:
        """Connect as the owner, past all proxies, to the primary of the moment."""
        return database.connect(self._current.url, name="chaos")

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Stop the primary of the moment."""
        self._current.stop(signum)

    def start_again(self) -> None:
        """Start the primary of the moment after a stop."""
        self._current.start()

    def crash_primary(self) -> None:
        """Lose the primary for good; the standby is there, and can only be read."""
        assert self._standby
        self._primary.stop(signal.SIGQUIT)
        self._current = self._standby

    def promote(self) -> None:
        """Make the standby the primary."""
        with self.connect() as connection:
            connection.execute("select pg_promote()")

    def stop_standby(self) -> None:
        """Let commits wait: there is nobody to confirm them."""
        assert self._standby
        self._standby.stop()

    def start_standby_again(self) -> None:
        """Let the standby catch up and commits go on."""
        assert self._standby
        self._standby.start()

    def terminate(self, share: float) -> int:
        """End about this share of all client backends; return how many."""
        with self.connect() as connection:
            row = connection.execute(TERMINATE, [share]).fetchone()
        return int(row[0]) if row else 0

    def saw_claim_before_disk(self) -> bool:
        """Wait for a claim of which nothing is on the disk yet; whether there was one soon."""
        deadline = monotonic() + CLAIM_SECONDS
        with self.connect() as connection:
            while monotonic() < deadline:
                if connection.execute(CLAIM_BEFORE_DISK).rowcount:
                    return True
        return False

    def processes(self) -> list[int]:
        """The process ids of the server of the moment."""
        main = int((self._current.data / "postmaster.pid").read_text().split()[0])
        return [main, *children(main)]

    def end(self) -> None:
        """Stop every server."""
        for server in (self._standby, self._primary):
            if server:
                server.stop()

    def _start_standby(self, standby: embedded.Server) -> None:
        standby.home.mkdir(parents=True)
        source = urlsplit(self._primary.url)._replace(path="/postgres").geturl()
        subprocess.run(
            [
                binaries.find_binaries() / "pg_basebackup", "--dbname", source,
                "--pgdata", standby.data, "--write-recovery-conf", "--checkpoint=fast",
            ],
            check=True,
            capture_output=True,
        )  # fmt: skip
        password = (self._primary.home / "password").read_text()
        (standby.home / "password").write_text(password)
        standby.start()


def _prepare(connection: psycopg.Connection[Any]) -> None:
    for login, roles in LOGINS.items():
        connection.execute(f"create role {login} login password '{login}'".encode())
        connection.execute(f"grant {', '.join(roles)} to {login}".encode())
        connection.execute(f"alter role {login} set role {roles[0]}".encode())
    connection.execute("insert into model (name) values ('chaos')")
    audit.install(connection)


def url(login: str, ports: list[int]) -> str:
    """Say where a login finds the primary, whichever of the servers that is."""
    hosts = ",".join(f"127.0.0.1:{port}" for port in ports)
    return f"postgresql://{login}:{login}@{hosts}/{DATABASE}?target_session_attrs=read-write"


def children(parent: int) -> list[int]:
    """The process ids of the children of a process, as /proc has them."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            after_name = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(after_name[1]) == parent:
            found.append(int(entry.parent.name))
    return found


def send(pids: list[int], signum: int) -> None:
    """Send a signal to those that are still there."""
    for pid in pids:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            continue


def wait_for(fact: Callable[[], object], what: str, seconds: float = WAIT_SECONDS) -> None:
    """Wait until something is so.

    :raises TimeoutError: when it is not in time.
    """
    deadline, pause = monotonic() + seconds, Event()
    while not fact():
        if monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        pause.wait(0.02)
