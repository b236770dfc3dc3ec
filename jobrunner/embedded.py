"""A PostgreSQL of one's own, in a folder, for as long as this process lives.

The server listens on 127.0.0.1 only, with a random password, and stops when its parent does,
however that ends. See binaries.py for the programs, identity.py for as whom they run.
"""

import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

import psycopg

from jobrunner import log
from jobrunner.binaries import find_binaries
from jobrunner.database import URL_FILE, display
from jobrunner.errors import EmbeddedError
from jobrunner.identity import Identity, find_identity
from jobrunner.initdb import initdb
from jobrunner.orphans import end_orphans
from jobrunner.processes import child_setup

START_SECONDS = 60.0
STOP_SECONDS = 30.0
# After a crash: a backend that outlives the server holds its memory, and keeps the next one out
# until its statement is over, where it can't be found and ended.
AGAIN_SECONDS = 20.0

MEGABYTE = 2**20

# Terse: a constraint's DETAIL would write a row, and so a user's text, into the log.
OPTIONS = {
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_error_verbosity": "terse",
    "timezone": "UTC",
    "max_connections": "100",
}


class Server:
    """The server of one folder: initialised if need be, started, stopped."""

    def __init__(
        self,
        home: Path,
        *,
        binaries: Path | None = None,
        options: Mapping[str, str] | None = None,
        database: str = "jobrunner",
    ) -> None:
        self.home = home.absolute()
        self.data = self.home / "pgdata"
        self.log = self.home / "postgres.log"
        self.database = database
        self.options = OPTIONS | {"shared_buffers": shared_buffers()} | dict(options or {})
        self.port = 0
        self._binaries = binaries
        self._process: subprocess.Popen[bytes] | None = None
        self._crashed_at: float | None = None

    @property
    def url(self) -> str:
        """Where the running server is, with its password."""
        return f"postgresql://postgres:{self._password()}@127.0.0.1:{self.port}/{self.database}"

    @property
    def running(self) -> bool:
        """Whether the server process lives."""
        return self._process is not None and self._process.poll() is None

    def start(self) -> str:
        """Start the server and return its URL; it is also written to the file ``database_url``.

        :raises EmbeddedError: when it can't be made or does not answer.
        """
        try:
            self._start()
            _write_secret(self.home / URL_FILE, self.url + "\n")
            return self.url
        except PermissionError as error:
            raise EmbeddedError(
                f"{error.filename} belongs to another user: run as that user,"
                " or set JOBRUNNER_HOME to a folder of your own"
            ) from None
        except OSError as error:
            raise EmbeddedError(
                f"the embedded PostgreSQL could not be started in {display(self.home)}:"
                f" {error.strerror or error}"
            ) from None

    def tend(self) -> None:
        """Start the server again, where it was, if it has crashed; try that with each call.

        :raises EmbeddedError: when it does not start for AGAIN_SECONDS.
        """
        if self._process and (code := self._process.poll()) is not None:
            log.warning("child_crashed", name="database", code=code)
            self._process, self._crashed_at = None, monotonic()
        if self._crashed_at is None:
            return
        try:
            self.start()
        except EmbeddedError:
            if monotonic() > self._crashed_at + AGAIN_SECONDS:
                raise
        else:
            self._crashed_at = None

    def stop(self, signum: int = signal.SIGINT) -> None:
        """Stop the server: SIGINT is a fast stop, SIGQUIT an immediate one (as in a crash)."""
        if self._process is None and self._crashed_at is None:
            return
        with suppress(OSError):
            (self.home / URL_FILE).unlink()
        self._end(signum)

    def _start(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        version = self._version_of_data()
        binaries = self._binaries or self._binaries_for_data(version)
        identity = find_identity(binaries, self.home)
        if version is None:
            self._initialise(binaries, identity)
        self._own_files(identity)
        self._end_leftover()
        end_orphans(self.data)
        self._launch(binaries, identity)
        try:
            self._await_answer()
        except BaseException:
            self._end(signal.SIGQUIT)
            raise

    def _end(self, signum: int) -> None:
        if self._process is None:
            return
        if self.running:
            self._process.send_signal(signum)
        try:
            self._process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.send_signal(signal.SIGQUIT)
            self._process.wait()
        self._process = None

    def _version_of_data(self) -> int | None:
        """Read the major version of the data; None when there are none yet."""
        if not self.data.exists():
            return None
        try:
            return int((self.data / "PG_VERSION").read_text())
        except (FileNotFoundError, ValueError):
            raise EmbeddedError(
                f"{self.data} holds no data of PostgreSQL: move it away to begin anew"
            ) from None

    def _binaries_for_data(self, version: int | None) -> Path:
        if version is None:
            return find_binaries()
        try:
            return find_binaries(version)
        except EmbeddedError:
            raise EmbeddedError(
                f"{self.data} was made by PostgreSQL {version}, which is not on this machine"
                f" any more: install it, or move the folder away to begin anew"
            ) from None

    def _initialise(self, binaries: Path, identity: Identity) -> None:
        # Into a folder beside it, renamed when whole: a kill halfway leaves nothing broken.
        fresh = self.home / "pgdata.new"
        shutil.rmtree(fresh, ignore_errors=True)
        fresh.mkdir(mode=0o700)
        password_file = self._make_password()
        for path in (fresh, password_file):
            identity.own(path)
        try:
            initdb(binaries, fresh, password_file, identity)
        except EmbeddedError:
            shutil.rmtree(fresh, ignore_errors=True)
            raise
        finally:
            password_file.unlink()
        fresh.rename(self.data)

    def _make_password(self) -> Path:
        """Write a new password for us, and give a file with it for initdb."""
        password = secrets.token_urlsafe(24)
        for_initdb = self.home / "password.new"
        for path in (self.home / "password", for_initdb):
            _write_secret(path, password + "\n")
        return for_initdb

    def _own_files(self, identity: Identity) -> None:
        """Give the files to whom the server runs as: that may change between two starts."""
        self.log.touch()
        for path in (self.data, self.log):
            if path.stat().st_uid != identity.owner[0]:
                identity.own(path)

    def _launch(self, binaries: Path, identity: Identity) -> None:
        self.port = self.port or self._usual_port()
        options = self.options | {"port": str(self.port)}
        command = [*identity.prefix, str(binaries / "postgres"), "-D", str(self.data)]
        for name, value in options.items():
            command += ["-c", f"{name}={value}"]
        with self.log.open("ab") as output:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=child_setup(signal.SIGINT),
                **identity.for_popen,
            )

    def _usual_port(self) -> int:
        """The port of the last time, if it is free: others may hold on to the address."""
        file = self.home / "port"
        with suppress(OSError, ValueError, OverflowError):
            if is_free(port := int(file.read_text())):
                return port
        port = free_port()
        file.write_text(f"{port}\n")
        return port

    def _await_answer(self) -> None:
        deadline = monotonic() + START_SECONDS
        while monotonic() < deadline:
            if not self.running:
                break
            try:
                self._make_database()
                return
            except psycopg.OperationalError:
                sleep(0.02)
        raise EmbeddedError(f"PostgreSQL did not start; its log is {display(self.log)}")

    def _make_database(self) -> None:
        url = f"postgresql://postgres:{self._password()}@127.0.0.1:{self.port}/postgres"
        with psycopg.connect(url, autocommit=True, connect_timeout=3) as connection:
            query = "select from pg_database where datname = %s"
            if connection.execute(query, [self.database]).rowcount == 0:
                name = psycopg.sql.Identifier(self.database)
                connection.execute(psycopg.sql.SQL("create database {}").format(name))

    def _end_leftover(self) -> None:
        """Wait for a server whose parent was killed to go; end it where it does not by itself."""
        deadline = monotonic() + STOP_SECONDS
        asked = False
        while pid := self._leftover_pid():
            if monotonic() > deadline:
                raise EmbeddedError(
                    f"another PostgreSQL (process {pid}) runs in {display(self.data)}: stop it"
                )
            if not asked and monotonic() > deadline - STOP_SECONDS + 3:
                os.kill(pid, signal.SIGINT)
                asked = True
            sleep(0.05)

    def _leftover_pid(self) -> int | None:
        """Read the pid of a live server in our folder from its postmaster.pid."""
        try:
            lines = (self.data / "postmaster.pid").read_text().splitlines()
            pid, port = int(lines[0]), int(lines[3])
            os.kill(pid, 0)
        except (OSError, ValueError, IndexError):
            return None
        with socket.socket() as probe:
            probe.settimeout(1)
            return pid if probe.connect_ex(("127.0.0.1", port)) == 0 else None

    def _password(self) -> str:
        try:
            return (self.home / "password").read_text().strip()
        except OSError as error:
            raise EmbeddedError(
                f"{display(self.home / 'password')} can not be read: {error.strerror}"
            ) from None


def shared_buffers() -> str:
    """Say how large the server's cache may become: a 16th of the memory, 128 MB to 1 GB.

    That is little beside what the manual begins with (19.4, "Resource Consumption": a quarter),
    since models need memory as well; it is taken as the tables grow.
    """
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // MEGABYTE
    return f"{max(128, min(memory // 16, 1024))}MB"


def is_free(port: int) -> bool:
    """Whether nobody listens on a TCP port of 127.0.0.1."""
    with socket.socket() as probe:
        # As PostgreSQL does: connections that have just ended do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
            return port > 0
        except OSError:
            return False


def free_port() -> int:
    """Find a TCP port on 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _write_secret(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    fresh = path.with_name(path.name + ".part")
    with suppress(FileNotFoundError):
        fresh.unlink()
    with open(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(text)
    fresh.replace(path)
