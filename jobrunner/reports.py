"""What a runner tells the database of itself, over its second connection: see listener.py."""

from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any

import psycopg

from jobrunner import heartbeat, log
from jobrunner.activity import Activity
from jobrunner.crew import Crew
from jobrunner.database import first_line
from jobrunner.depth import Depth
from jobrunner.heartbeat import Answer, ModelPulse, Pulse
from jobrunner.listener import Listener
from jobrunner.outcome import Job
from jobrunner.progress import Progress, Reporter
from jobrunner.refusals import unless_refused
from jobrunner.sweeper import Sweeper

# A beat is late after a third of a lease.
LATES_PER_LEASE = 3

Connection = psycopg.Connection[Any]


class Reports:
    """Beats, and what follows them: how each model does, what was done, how long queues and how far
    jobs are. Work does not wait for what follows, nor end with it."""

    def __init__(
        self,
        crew: Crew,
        activity: Activity,
        listener: Listener,
        sweeper: Sweeper,
        lease_seconds: float,
    ) -> None:
        self._crew = crew
        self._activity = activity
        self._listener = listener
        self._sweeper = sweeper
        self._lease_seconds = lease_seconds
        self._depth = Depth(crew.models)
        self._reporter = Reporter()
        self._runner = ""
        self._beaten_at = 0.0
        self._models: Sequence[ModelPulse] = ()
        self._owes_counts = True

    @property
    def tell_at(self) -> list[float]:
        """When something new may be told, by the monotonic clock, if there is any."""
        return self._reporter.tell_at

    def begin(self, runner: str) -> None:
        """Speak for a runner that registers under that id now."""
        self._runner = runner
        self._beaten_at = monotonic()

    def note_progress(self, said: Iterable[tuple[Job, Progress]]) -> None:
        """Take in what models say of their jobs."""
        self._reporter.note(said)

    def beat(self, link: Connection) -> Answer | None:
        """Give a sign of life; None when another runner has found us dead.

        If that did not succeed for long, it goes over the ``link``, which has more patience: who
        judges us has as much.

        :raises psycopg.Error: when the database does not take it.
        """
        asked, self._models = monotonic(), self._crew.pulses()
        if asked - self._beaten_at > self._lease_seconds / LATES_PER_LEASE:
            answer = self._beat(link)
        else:
            answer = self._listener.say(self._beat, link, must=True)
        self._beaten_at = asked
        if answer is not None:
            self._crew.note_clock(answer.clock, asked)
            self._depth.tell_time(answer.clock)
            self._owes_counts = True
        return answer

    def tell_models(self, link: Connection) -> None:
        """Tell how each model does, as the last beat told it of all together.

        :raises psycopg.Error: when the link was lost.
        """
        self._tell(
            lambda to: heartbeat.tell_models(to, self._runner, self._models),
            link,
            "models_not_told",
        )

    def tell(self, link: Connection, attend: Callable[[Connection], None]) -> None:
        """Tell what else there is to tell now; ``attend`` is called after each.

        :raises psycopg.Error: when the link was lost.
        """
        if self._owes_counts:
            self._owes_counts = False
            self._tell(self._activity.record, link, "activity_not_recorded")
            attend(link)
        if self._depth.due:
            self._tell(self._depth.sample, link, "depth_not_sampled")
            attend(link)
        if self._reporter.due:
            jobs = self._crew.jobs
            self._tell(lambda to: self._reporter.tell(to, jobs), link, "progress_not_told")
            attend(link)

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

    def _beat(self, connection: Connection) -> Answer | None:
        """Beat over this connection, by what is true now: the lock may have gone with the other."""
        self._listener.has_news = False
        troubles = self._crew.trouble, self._listener.trouble, self._sweeper.trouble
        pulse = Pulse(
            has_lock=self._listener.holds_lock,
            completed=self._crew.completed,
            failed=self._crew.failed,
            models=self._models,
            trouble="; ".join(filter(None, troubles)) or None,
        )
        return heartbeat.beat(connection, self._runner, pulse)

    def _tell(self, act: Callable[[Connection], None], link: Connection, refused: str) -> None:
        unless_refused(lambda to: self._listener.say(act, to), link, refused, self._runner)
