"""What becomes of the jobs that requests wait for: one thread and one connection a process.

Who waits subscribes and is given each change that the thread sees. The thread is told when
jobs have changed, and reads all that somebody waits for in one statement; of who has just come
it reads the job at once, and no other. A notification is a hint: it reads again shortly after
it has begun to watch, and polls.
"""

import socket
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from threading import Condition, Lock, Thread
from time import monotonic, sleep
from uuid import UUID

from flask import current_app

from web import logs
from web.listener import Listener
from web.rows import Row
from web.seats import Full, Seats

# A change that was under way when the thread began to watch is not told.
SECOND_LOOK_SECONDS = 0.05
POLL_SECONDS = 1.0
MOMENT_SECONDS = 0.003
# Where nothing is heard.
DEAF_POLL_SECONDS = 0.25
RETRY_SECONDS = 0.25
# While nobody waits: so long it goes on watching for the next one.
LINGER_SECONDS = 1.0
FOREVER_SECONDS = 3600.0


class Watch:
    """Somebody who waits for news of a job, or for its end alone: he is not woken up before."""

    def __init__(self, row: Row, for_the_end: bool = False) -> None:
        self.job_id: UUID = row["job_id"]
        self.version: str = row["version"]
        self._for_the_end = for_the_end
        # As the job stood when it was last seen.
        self.seen = row
        # Whether it has not been read since.
        self.is_new = True
        self._news: Row | None = None
        self.ended = False
        self._changed = Condition()

    def next(self, until: float) -> Row | None:
        """Wait for the next change, by the monotonic clock until then; None if there is none."""
        with self._changed:
            while self._news is None and not self.ended:
                left = until - monotonic()
                if left <= 0 or not self._changed.wait(left):
                    break
            news, self._news = self._news, None
            return news

    def offer(self, row: Row) -> None:
        """Give it the job as it stands now."""
        with self._changed:
            if row["version"] == self.version:
                return
            self.version, self.seen = row["version"], row
            if row["finished_at"] is not None or not self._for_the_end:
                self._news = row
                self._changed.notify()

    def end(self) -> None:
        """Let it wait no more."""
        with self._changed:
            self.ended = True
            self._changed.notify()


class Changes:
    """All who wait in this process. It may be made before a fork, if it is first used after it."""

    def __init__(self, url: str, seats: Seats) -> None:
        self._listener = Listener(url)
        self._seats = seats
        self._lock = Lock()
        self._watches: set[Watch] = set()
        self._closed = False
        self._lost = False
        # Until when nobody may count on being told, and when to read all in any case.
        self._look_again_until = 0.0
        self._read_all_at = 0.0
        self._thread: Thread | None = None
        self._bell: tuple[socket.socket, socket.socket] | None = None

    @property
    def closed(self) -> bool:
        """Whether the process is about to end."""
        return self._closed

    @contextmanager
    def watch(self, row: Row, for_the_end: bool = False) -> Iterator[Watch]:
        """Subscribe to the changes of a job after ``row``, or to its end.

        :raises Full: when nobody else may wait.
        """
        watch = Watch(row, for_the_end)
        with self._seats.taken():
            with self._lock:
                if self._closed:
                    raise Full
                self._start()
                self._watches.add(watch)
            try:
                self._ring()
                yield watch
            finally:
                with self._lock:
                    self._watches.discard(watch)

    def last(self, row: Row, seconds: float) -> Row:
        """Follow a job until it is final or the time is over; give it as it was seen last.

        :raises Full: when nobody else may wait.
        """
        if row["finished_at"] is not None:
            return row
        with self.watch(row, for_the_end=True) as watch:
            return watch.next(monotonic() + seconds) or watch.seen

    def close(self) -> None:
        """Let nobody wait any more: the process is to end."""
        with self._lock:
            self._closed = True
            for watch in self._watches:
                watch.end()
        self._ring()

    def _start(self) -> None:
        if self._thread is None:
            self._bell = socket.socketpair()
            for end in self._bell:
                end.setblocking(False)
            thread = Thread(target=self._run, name="changes", daemon=True)
            thread.start()
            self._thread = thread

    def _ring(self) -> None:
        # A bell that is full has been rung often enough, and at the end there is none.
        with suppress(OSError):
            if self._bell:
                self._bell[1].send(b"!")

    def _run(self) -> None:
        while not self._closed:
            try:
                self._turn()
                self._lost = False
            except Exception as error:
                # Whatever it was: the thread must go on, or who waits would be told nothing.
                self._lose(error)
                self._pause(RETRY_SECONDS)
        self._listener.lose()
        for end in self._bell or ():
            end.close()

    def _lose(self, error: Exception) -> None:
        """Close the connection, and say so once; who waits goes on waiting."""
        self._listener.lose()
        if not self._lost:
            logs.error("listener_lost", error=type(error).__name__)
        self._lost = True

    def _turn(self) -> None:
        """Read what somebody waits for, and wait until it may have changed."""
        if not self._waiting():
            self._pause(LINGER_SECONDS)
            self._read_all_at = 0.0
        if not (watches := self._waiting()):
            self._listener.unwatch()
            self._pause(FOREVER_SECONDS)
            return
        if self._listener.watch():
            self._look_again_until = monotonic() + SECOND_LOOK_SECONDS
            self._read_all_at = 0.0
        if monotonic() >= self._read_all_at:
            looks_again = monotonic() < self._look_again_until
            self._read(watches)
            self._read_all_at = monotonic() + (SECOND_LOOK_SECONDS if looks_again else self._poll)
        elif new := [watch for watch in watches if watch.is_new]:
            self._read(new)
        # What changes within a moment is read together.
        sleep(MOMENT_SECONDS)
        if self._pause(self._read_all_at - monotonic()):
            self._read_all_at = 0.0

    def _read(self, watches: Sequence[Watch]) -> None:
        """Give these what has changed; not those who have come meanwhile: they may know better."""
        read = {row["job_id"]: row for row in self._listener.read(known_to(watches))}
        for watch in watches:
            watch.is_new = False
            if row := read.get(watch.job_id):
                watch.offer(row)

    @property
    def _poll(self) -> float:
        return DEAF_POLL_SECONDS if self._listener.deaf else POLL_SECONDS

    def _pause(self, seconds: float) -> bool:
        """Wait until somebody comes, or jobs have changed; whether they have."""
        assert self._bell is not None
        return self._listener.wait(self._bell[0], seconds)

    def _waiting(self) -> list[Watch]:
        with self._lock:
            return list(self._watches)


def known_to(watches: Iterable[Watch]) -> dict[UUID, str]:
    """The version of each job that those who wait for it know; none, where they differ."""
    known: dict[UUID, str] = {}
    for watch in watches:
        same = known.get(watch.job_id, watch.version) == watch.version
        known[watch.job_id] = watch.version if same else ""
    return known


def get() -> Changes:
    """The changes of the current app."""
    changes: Changes = current_app.extensions["changes"]
    return changes
