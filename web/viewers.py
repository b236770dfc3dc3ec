"""Those who look on: one thread a process reads how all stands for all of them.

It reads once a second while somebody looks, less often where that takes long, and writes each
event once, whoever is sent it. What has not changed is not sent.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Condition, Thread
from time import monotonic

from flask import current_app

from web import logs, state
from web.answers import ENCODER
from web.database import Database
from web.errors import DatabaseUnavailable, SchemaMissing
from web.history import History
from web.problems import NOT_REACHED, NOT_SET_UP, away
from web.seats import Full, Seats
from web.state import NEWEST, State

LOOK_SECONDS = 1.0
# To count a long queue takes long: that is to be no more than a twentieth of the time.
LOOK_FACTOR = 20
MAX_LOOK_SECONDS = 15.0

# In this order they are told: that nothing can be read now says more than what was read before.
EVENTS = ("overview", "jobs", "history", "away")

NOTHING = State("", "", {}, 0.0)


@dataclass
class Topic:
    """What one event says. ``step`` brings who has seen the number before up to date."""

    number: int = 0
    whole: str = ""
    step: str = ""

    def tell(self, whole: str, step: str = "") -> None:
        """Say something new."""
        self.number += 1
        self.whole, self.step = whole, step or whole

    def since(self, seen: int) -> str:
        """Write what is new to who has seen that number."""
        if seen == self.number:
            return ""
        return self.step if seen == self.number - 1 and seen else self.whole


class Viewer:
    """Somebody who looks, and what he has seen."""

    def __init__(self, viewers: "Viewers") -> None:
        self._viewers = viewers
        self._seen: dict[str, int] = {}

    @property
    def ended(self) -> bool:
        """Whether there is nothing more to come."""
        return self._viewers.closed

    def next(self, until: float) -> str:
        """Wait for events, by the monotonic clock until then; nothing if there are none."""
        return self._viewers.wait(self._seen, until)


class Viewers:
    """All who look on in this process. It may be made before a fork, if it is used after it."""

    def __init__(self, database: Database, history: History, seats: Seats) -> None:
        self._database = database
        self._history = history
        self._seats = seats
        self._changed = Condition()
        self._looking = 0
        self._thread: Thread | None = None
        self._topics: dict[str, Topic] = {}
        self._state = NOTHING
        self._past = ""
        # Why nothing can be read now, if so.
        self._away: str | None = None
        self.closed = False

    @contextmanager
    def look(self) -> Iterator[Viewer]:
        """Look on until the block ends.

        :raises Full: when nobody else may wait.
        """
        with self._seats.taken():
            with self._changed:
                if self.closed:
                    raise Full
                self._looking += 1
                self._start()
                self._changed.notify_all()
            try:
                yield Viewer(self)
            finally:
                with self._changed:
                    self._looking -= 1

    def wait(self, seen: dict[str, int], until: float) -> str:
        """Give what is new to who has seen that, and note that he has."""
        with self._changed:
            while not (self.closed or (news := self._news(seen))):
                left = until - monotonic()
                if left <= 0 or not self._changed.wait(left):
                    return ""
            return "" if self.closed else news

    def close(self) -> None:
        """Let nobody look any more: the process is to end."""
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _news(self, seen: dict[str, int]) -> str:
        news = ""
        for name in EVENTS:
            if topic := self._topics.get(name):
                news += topic.since(seen.get(name, 0))
                seen[name] = topic.number
        return news

    def _start(self) -> None:
        if self._thread is None:
            self._thread = Thread(target=self._run, name="viewers", daemon=True)
            self._thread.start()

    def _run(self) -> None:
        while self._await_viewers():
            pause = LOOK_SECONDS
            try:
                self._look()
                pause = max(pause, LOOK_FACTOR * self._state.seconds)
            except Exception as error:
                # Whatever it was: the thread must go on, or who looks would see nothing more.
                self._lose(error)
            self._pause(min(pause, MAX_LOOK_SECONDS))

    def _await_viewers(self) -> bool:
        """Wait until somebody looks; whether there is more to do."""
        with self._changed:
            if not self._looking:
                # What was seen last is old when the next one comes.
                self._forget()
            while not (self.closed or self._looking):
                self._changed.wait()
            return not self.closed

    def _forget(self) -> None:
        self._topics.clear()
        self._state, self._past, self._away = NOTHING, "", None

    def _pause(self, seconds: float) -> None:
        until = monotonic() + seconds
        with self._changed:
            while not self.closed and (left := until - monotonic()) > 0:
                self._changed.wait(left)

    def _look(self) -> None:
        """Read how all stands, and tell what is new."""
        found, past = state.read(self._database), self._history.text()
        with self._changed:
            before, was_away = self._state, self._away is not None
            if was_away:
                logs.info("overview_found")
                self._topics["away"].tell("")
            overview = f'{{"now": {found.now}, {found.stands}}}'
            if was_away or found.stands != before.stands:
                self._tell("overview", overview)
            else:
                # Who comes later sets his clock by it.
                self._topics["overview"].whole = _event("overview", overview)
            if found.jobs != before.jobs or "jobs" not in self._topics:
                whole = _jobs(found.jobs, True)
                step = "" if _lacks(before, found) else _jobs(_newer(before, found), False)
                self._tell("jobs", whole, step)
            if past != self._past:
                self._tell("history", past)
            self._state, self._past, self._away = found, past, None
            self._changed.notify_all()

    def _lose(self, error: Exception) -> None:
        """Say that nothing can be read now, once."""
        detail = NOT_SET_UP if isinstance(error, SchemaMissing) else NOT_REACHED
        with self._changed:
            if self._away == detail:
                return
            if not self._away:
                cause = error.__cause__ if isinstance(error, DatabaseUnavailable) else None
                logs.error("overview_lost", error=type(cause or error).__name__)
            self._away = detail
            self._tell("away", ENCODER.encode(away(detail)))
            self._changed.notify_all()

    def _tell(self, name: str, whole: str, step: str = "") -> None:
        topic = self._topics.setdefault(name, Topic())
        topic.tell(_event(name, whole), _event(name, step) if step else "")


def _newer(before: State, found: State) -> dict[str, str]:
    """The jobs that have changed or come."""
    return {key: text for key, text in found.jobs.items() if before.jobs.get(key) != text}


def _lacks(before: State, found: State) -> bool:
    """Whether jobs were deleted; those that newer ones have pushed out were not."""
    oldest = min(found.jobs, default="") if len(found.jobs) == NEWEST else ""
    return any(key > oldest for key in before.jobs.keys() - found.jobs.keys())


def _jobs(jobs: dict[str, str], whole: bool) -> str:
    return f'{{"whole": {"true" if whole else "false"}, "jobs": [{", ".join(jobs.values())}]}}'


def _event(name: str, data: str) -> str:
    return f"event: {name}\ndata: {data}\n\n"


def get() -> Viewers:
    """The viewers of the current app."""
    viewers: Viewers = current_app.extensions["viewers"]
    return viewers
