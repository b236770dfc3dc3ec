"""What a runner tells the database of itself, over its second connection: see listener.py."""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, TypeVar

import psycopg

from jobrunner import heartbeat, log
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.database import first_line, unless_refused
from jobrunner.depth import Depth
from jobrunner.heartbeat import Answer, ModelPulse, Pulse
from jobrunner.listener import Listener
from jobrunner.outcome import Job
from jobrunner.progress import Progress, Reporter

# A beat is late after a third of a lease.
LATES_PER_LEASE = 3

Connection = psycopg.Connection[Any]
T = TypeVar("T")


class Reports:
    """Beats, and what follows them: how each model does, what was done, how long queues and how far
    jobs are. Work does not wait for that, nor end with it."""

    def __init__(
        self, crew: Crew, activity: Activity, listener: Listener, lease_seconds: float
    ) -> None:
        self._crew = crew
        self._activity = activity
        self._listener = listener
        self._lease_seconds = lease_seconds
        self._depth = Depth(crew.models)
        self._reporter = Reporter()
        self._runner = ""
        self._beaten_at = 0.0
        # What the last beat did not say of the models; with that comes what was done.
        self._models: Sequence[ModelPulse] | None = None

    @property
    def tell_at(self) -> list[float]:
        """When something new may be told, by the monotonic clock, if there is any."""
        return self._reporter.tell_at

    def begin(self, runner: str) -> None:
        """Speak for a runner that registers under that id now."""
        self._runner, self._models = runner, None
        self._beaten_at = monotonic()

    def note_progress(self, said: Iterable[tuple[Job, Progress]]) -> None:
        """Take in what models say of their jobs."""
        self._reporter.note(said)

    def beat(self, link: Connection, trouble: str | None) -> Answer | None:
        """Give a sign of life; None when another runner has found us dead.

        If that did not succeed for long, it goes over the ``link``, which has more patience: who
        judges us has as much.

        :raises psycopg.Error: when the database does not take it.
        """
        asked, models = monotonic(), self._crew.pulses()
        pulse = Pulse(
            has_lock=self._listener.holds_lock,
            completed=self._crew.completed,
            failed=self._crew.failed,
            models=models,
            trouble=trouble,
        )

        def beat(connection: Connection) -> Answer | None:
            return heartbeat.beat(connection, self._runner, pulse)

        if asked - self._beaten_at > self._lease_seconds / LATES_PER_LEASE:
            answer = beat(link)
        else:
            answer = self._say(beat, link, must=True)
        self._beaten_at = asked
        if answer:
            self._crew.note_clock(answer.clock, asked)
            self._depth.tell_time(answer.clock)
            self._models = models
        return answer

    def tell(self, link: Connection) -> None:
        """Tell what there is to tell now.

        :raises psycopg.Error: when the link was lost.
        """
        if self._models is not None:
            models, self._models = self._models, None
            self._tell(
                lambda to: heartbeat.tell_models(to, self._runner, models), link, "models_not_told"
            )
            self._tell(self._activity.record, link, "activity_not_recorded")
        if self._depth.due:
            self._tell(self._depth.sample, link, "depth_not_sampled")
        if self._reporter.due:
            jobs = self._crew.jobs
            self._tell(lambda to: self._reporter.tell(to, jobs), link, "progress_not_told")

    def tell_last(self, link: Connection, patience: float) -> None:
        """Count what was done, which nobody else does: who holds these rows is waited for so many
        seconds. And take back how far jobs were; nothing else is owed to anybody any more."""
        acts: dict[str, Callable[[], None]] = {
            "activity_not_recorded": lambda: self._activity.record(link, patience),
            "progress_not_told": lambda: self._reporter.tell(link, []),
        }
        for refused, act in acts.items():
            try:
                act()
            except psycopg.Error as error:
                log.warning(refused, runner=self._runner, reason=first_line(error))

    def _tell(self, act: Callable[[Connection], None], link: Connection, refused: str) -> None:
        unless_refused(lambda to: self._say(act, to), link, refused, self._runner)

    def _say(self, act: Callable[[Connection], T], link: Connection, must: bool = False) -> T:
        """Have something said over the listener's connection; see ``Listener.say``."""
        said = self._listener.say(act, link, must=must)
        if link.closed:
            raise psycopg.OperationalError("the connection was lost meanwhile")
        return said
