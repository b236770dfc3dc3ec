"""The models that a runner serves: the workers of each, who claims for them, and their pace."""

from collections.abc import Collection, Iterable, Sequence
from itertools import chain

from jobrunner import queue, registry
from jobrunner.activity import Activity
from jobrunner.claimer import Claimer
from jobrunner.database import brief
from jobrunner.heartbeat import ModelPulse
from jobrunner.leases import Leases
from jobrunner.memory import resident_bytes
from jobrunner.outcome import Job, Outcome
from jobrunner.polling import readable
from jobrunner.progress import Progress
from jobrunner.sleep import Sleep
from jobrunner.tally import Tally
from jobrunner.worker_handle import ModelSpec, WorkerLimits
from jobrunner.workers import Waitable, Workers


class Served:
    """One model."""

    def __init__(
        self,
        spec: ModelSpec,
        workers: int,
        limits: WorkerLimits,
        claims: tuple[float, Activity, Sleep, Leases],
        first_slot: int,
    ) -> None:
        self.name = spec.name
        self.workers = Workers(spec, workers, limits, first_slot)
        self.claimer = Claimer(self.workers, spec.name, *claims)
        self.tally = Tally()
        # Whether the database knows which version this is; nothing is claimed for it before.
        self.is_registered = False
        self.not_registered_because: str | None = None

    def register(self, connection: queue.Connection) -> None:
        """Make it known, once a worker has said what it is.

        :raises ModelLoadError: when its version has been something else.
        :raises psycopg.Error: when that can't be done now.
        """
        if self.workers.card:
            with brief(connection):
                registry.register_model(connection, self.name, self.workers.card)
            self.is_registered, self.not_registered_because = True, None

    @property
    def trouble(self) -> str | None:
        """Why it has too few workers just now, or is not served at all."""
        if self.not_registered_because:
            return f"can not be registered: {self.not_registered_because}"
        return self.workers.trouble

    def pulse(self) -> ModelPulse:
        """What a heartbeat says of it."""
        self.tally.measure()
        return ModelPulse(
            model=self.name,
            version=self.workers.card["version"] if self.workers.card else None,
            workers=self.workers.count,
            ready_workers=self.workers.ready,
            jobs_per_second=self.tally.jobs_per_second,
            inference_seconds=self.tally.inference_seconds,
            batch_size=self.tally.batch_size,
            memory_bytes=resident_bytes(self.workers.pids),
        )


class Crew:
    """All of them, as a runner's loop sees them."""

    def __init__(
        self,
        specs: Sequence[ModelSpec],
        workers: int,
        limits: WorkerLimits,
        poll_seconds: float,
        activity: Activity,
        leases: Leases,
    ) -> None:
        self._sleep = Sleep(len(specs))
        claims = (poll_seconds, activity, self._sleep, leases)
        self.served = [
            Served(spec, workers, limits, claims, first_slot=number * workers)
            for number, spec in enumerate(specs)
        ]

    @property
    def models(self) -> list[str]:
        """Their names."""
        return [served.name for served in self.served]

    @property
    def jobs(self) -> list[Job]:
        """What all workers are on, and what waits for one of them."""
        return [job for each in self._workers for job in each.jobs]

    @property
    def ahead(self) -> int:
        """How many jobs wait until a worker is done with others."""
        return sum(each.ahead for each in self._workers)

    @property
    def count(self) -> int:
        """How many workers there should be."""
        return sum(each.count for each in self._workers)

    @property
    def trouble(self) -> str | None:
        """Why there are too few workers just now, if there are."""
        said = ((each.name, each.trouble) for each in self.served if each.trouble)
        return "; ".join(f"{name}: {reason}" for name, reason in said) or None

    @property
    def standing(self) -> tuple[list[int], str | None]:
        """How many workers of each model are ready, and why there are too few."""
        return [each.ready for each in self._workers], self.trouble

    def tend(self) -> None:
        """Start the workers that are missing; deal what waits."""
        for each in self._workers:
            each.tend()

    def wait(self, seconds: float, others: Sequence[Waitable], listen: bool = True) -> set[int]:
        """Wait until a worker says something, another has something, or a deadline comes.

        Without ``listen``, what workers say can wait. Give the descriptors to be read.
        """
        seconds = min(seconds, *(each.rest for each in self._workers))
        pipes = chain.from_iterable(each.pipes for each in self._workers) if listen else ()
        return readable([*pipes, *(other.fileno() for other in others)], seconds)

    def collect(self, heard: Collection[int]) -> list[Outcome]:
        """Take what has been finished, failed or overrun; where it is, jobs may be claimed anew.

        :raises ModelLoadError: when a model can't be loaded and never could.
        """
        outcomes: list[Outcome] = []
        for served in self.served:
            ready = served.workers.ready
            done = served.workers.collect(heard)
            if done or served.workers.ready > ready:
                served.claimer.look_soon()
                served.claimer.queue_is_empty = False
            outcomes += done
        return outcomes

    def take_progress(self) -> list[tuple[Job, Progress]]:
        """Give what models have said of their jobs since the last time."""
        return [said for each in self._workers for said in each.take_progress()]

    def surplus(self) -> list[Job]:
        """Take back what was claimed ahead and would wait too long, and return it."""
        return [job for each in self._workers for job in each.surplus()]

    def kill_jobs(self, ids: Collection[str] | None = None) -> tuple[list[Job], list[Outcome]]:
        """Take away all jobs, or those of these ids; see ``Workers``."""
        killed: list[Job] = []
        outcomes: list[Outcome] = []
        for each in self._workers:
            jobs, done = each.kill_jobs(ids)
            killed += jobs
            outcomes += done
        return killed, outcomes

    def end(self) -> None:
        """End all workers, those of which the model has something to clean up in peace."""
        for each in self._workers:
            each.dismiss()
        for each in self._workers:
            each.end()

    # Claims

    @property
    def drained(self) -> bool:
        """Whether nothing is pending for any of the models."""
        return all(served.claimer.queue_is_empty for served in self.served)

    @property
    def look_at(self) -> list[float]:
        """When to look for jobs, by the monotonic clock, for those that want any; and at once
        where one is to be woken up that wants none."""
        claimers = self._claimers
        times = [each.due for each in claimers if each.wants_jobs]
        return times + [0.0 for each in claimers if each.oversleeps]

    def begin(self, runner: str) -> None:
        """Claim for a runner that has just been registered under that id."""
        for served in self.served:
            served.claimer.begin(runner)

    def claim_at_once(self, connection: queue.Connection) -> int:
        """Claim before anything else what they were told of while asleep; how many jobs."""
        return sum(each.claim_at_once(connection) for each in self._claimers)

    def wake_up(self, others_sleep: bool) -> None:
        """The runner was told that there are jobs, and maybe others were not that sleep."""
        for each in self._claimers:
            each.wake_up(others_sleep)

    def pass_on(self, connection: queue.Connection) -> None:
        """Wake up others where no worker is free for what may be left."""
        for each in self._claimers:
            each.pass_on(connection)

    def claim(self, connection: queue.Connection) -> None:
        """Give each free worker what it takes; where that is not there, sleep until it comes."""
        for each in self._claimers:
            each.claim(connection)

    def listen(self, connection: queue.Connection, hears: bool) -> None:
        """Note whether notifications come: only then is anybody to be woken up by them."""
        self._sleep.listen(connection, hears)

    def doubt_sleep(self) -> None:
        """Say again whether they are to be woken up."""
        self._sleep.doubt()

    def look_soon(self) -> None:
        """Look in the next turn: a job was submitted or freed."""
        for served in self.served:
            served.claimer.look_soon()

    def stop_claims(self) -> None:
        """Claim nothing any more."""
        for served in self.served:
            served.claimer.stop()
            served.workers.hold_no_more()

    def note_clock(self, clock: float, asked: float) -> None:
        """Say what the database's clock was since it was asked, by the monotonic clock."""
        for served in self.served:
            served.claimer.note_clock(clock, asked)

    # Pace

    def count_outcomes(self, outcomes: Iterable[Outcome]) -> None:
        """Take recorded outcomes into account."""
        tallies = {served.name: served.tally for served in self.served}
        for outcome in outcomes:
            tallies[outcome.job.model].count(outcome)

    @property
    def completed(self) -> int:
        """How many jobs were completed under the present id."""
        return sum(served.tally.completed for served in self.served)

    @property
    def failed(self) -> int:
        """How many attempts have failed under the present id."""
        return sum(served.tally.failed for served in self.served)

    def pulses(self) -> list[ModelPulse]:
        """What a heartbeat says of each model."""
        return [served.pulse() for served in self.served]

    def forget_pace(self) -> None:
        """Count anew."""
        for served in self.served:
            served.tally = Tally()

    @property
    def _claimers(self) -> list[Claimer]:
        """Those of the models that the database takes for what they were."""
        return [served.claimer for served in self.served if served.is_registered]

    @property
    def _workers(self) -> list[Workers]:
        return [served.workers for served in self.served]
