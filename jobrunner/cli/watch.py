"""The live board of ``jobrunner status --watch``."""

import os
import signal
from collections.abc import Callable
from datetime import UTC, datetime
from threading import Event, Thread
from time import monotonic

import click
import psycopg

from jobrunner import board, database
from jobrunner.board import Board
from jobrunner.cli import tables
from jobrunner.errors import JobrunnerError
from jobrunner.settings import load

NAME = "jobrunner status --watch"
# More than a healthy database ever takes, and less than anybody waits for.
STATEMENT_TIMEOUT = "set statement_timeout = '5s'"
# However many jobs wait and have to be counted, at most this share of the time is spent on it.
SHARE_OF_TIME = 0.1
FAILURES = 20
# How often the screen is drawn when nothing new was read: it says for how long.
REDRAW_SECONDS = 1.0


class Reader:
    """Reads the board again and again, and finds the database again when it was away."""

    def __init__(self, interval: float) -> None:
        self.board: Board | None = None
        self.error: str | None = None
        self.away_since: float | None = None
        self._interval = interval
        self._connection: database.BoundedConnection | None = None

    def open(self) -> None:
        """Read it for the first time.

        :raises JobrunnerError: when that can't be done: then there is nothing to wait for.
        """
        self._connection = _connect()
        self.board = board.read(self._connection, failures=FAILURES)

    def read(self) -> None:
        """Read it, or note what keeps us from it."""
        try:
            if self._connection is None or self._connection.closed:
                self._connection = _connect()
            self.board = board.read(self._connection, failures=FAILURES)
        except (psycopg.Error, JobrunnerError) as error:
            self.error = database.first_line(error)
            self.away_since = self.away_since or monotonic()
            if self._connection is not None:
                self._connection.close()
        else:
            self.error = self.away_since = None

    def read_on(self, tell: Callable[[], None], ended: Event) -> None:
        """Read it once an interval, until that is enough."""
        pause = self._interval
        while not ended.wait(pause):
            began = monotonic()
            self.read()
            tell()
            took = monotonic() - began
            pause = max(self._interval - took, took * (1 / SHARE_OF_TIME - 1), 0)

    @property
    def trouble(self) -> str | None:
        """What is to be said in the place of the figures."""
        if self.error is None or self.away_since is None:
            return None
        return f"No figures for {monotonic() - self.away_since:.0f} s: {self.error}"


def print_lines(interval: float) -> None:
    """Print the board as one line of JSON an interval, until Ctrl-C."""
    reader = Reader(interval)
    reader.open()

    def tell() -> None:
        if reader.error is None and reader.board is not None:
            click.echo(tables.to_json_line(reader.board.to_row()))
        else:
            # There is no other clock to ask now.
            at = datetime.now(UTC)
            click.echo(tables.to_json_line({"at": at, "error": reader.error}))

    try:
        tell()
        reader.read_on(tell, Event())
    except KeyboardInterrupt:
        return


def watch(interval: float) -> None:
    """Show the board until q, Ctrl-C or SIGTERM; the terminal is then as it was."""
    reader, ended = Reader(interval), Event()
    reader.open()
    # What is read for long must keep nobody from leaving.
    Thread(target=reader.read_on, args=(lambda: None, ended), daemon=True).start()
    try:
        while _show(reader, interval):
            os.kill(os.getpid(), signal.SIGSTOP)
    finally:
        ended.set()


def _show(reader: Reader, interval: float) -> bool:
    """Fill the screen; True when it is to be given back for a while only (Ctrl-Z)."""
    from rich.live import Live

    from jobrunner.cli import screen
    from jobrunner.cli.board import screenful
    from jobrunner.cli.keyboard import Keyboard

    to = screen.console()
    with Keyboard() as keyboard, Live(console=to, screen=True, auto_refresh=False) as live:
        while True:
            live.update(screenful(reader.board, reader.trouble, to), refresh=True)
            if keyboard.ended(min(interval, REDRAW_SECONDS)):
                return keyboard.suspended


def _connect() -> database.BoundedConnection:
    return database.connect(database.url_of(load()), name=NAME, session=STATEMENT_TIMEOUT)
