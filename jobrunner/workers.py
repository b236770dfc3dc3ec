"""The workers of a model, as many as asked for: they are given jobs and replaced when they end.

A worker that dies, overruns its model's timeout or talks nonsense costs the attempt that it
was on, and is replaced; the others do not notice. One that dies while it loads the model is
started again after a growing pause.

Jobs are dealt in batches, as large as the model takes them. Where they are short, each worker
has a few ahead, so that it need not wait for the runner. They are no worker's for good:
whoever has nothing to do gets those that another has not started.

When a batch kills its worker, nobody knows which job did it: each is run again by itself, so
that only the bad one fails.
"""

from collections import deque
from collections.abc import Collection, Iterable, Sequence
from itertools import count, islice
from math import inf
from time import monotonic
from typing import Protocol

from jobrunner import frames, log
from jobrunner.errors import FrameError, ModelLoadError
from jobrunner.frames import Message
from jobrunner.outcome import Failure, Job, Outcome, clean
from jobrunner.pace import Pace
from jobrunner.polling import readable
from jobrunner.progress import Progress
from jobrunner.restarts import Restarts
from jobrunner.worker_handle import (
    SETUP_SECONDS,
    TEARDOWN_SECONDS,
    ModelCard,
    ModelSpec,
    Worker,
    WorkerLimits,
    read_card,
)

# On a job for so long, a worker is not at short ones any more.
SLOW_SECONDS = 1.0
# What is registered of a model, and so stays as it is for all the life of a runner: its code may
# have been changed since.
FIXED = "version", "input_schema", "output_schema"
# So long before a batch should be done, the next one is filled up: as late as may be, so that
# there are as many as may be, but soon enough for a claim.
FILL_SECONDS = 0.015
# A batch that waits for more goes without them so long after its time: nobody can claim now.
LATE_SECONDS = 0.02


class Waitable(Protocol):
    """Something with a file descriptor that can be waited for."""

    def fileno(self) -> int: ...


class Workers:
    """The workers of one model, as many as asked for."""

    def __init__(
        self, spec: ModelSpec, count: int, limits: WorkerLimits, first_slot: int = 0
    ) -> None:
        self.spec = spec
        self.count = count
        self.lost = 0
        self._limits = limits
        self._first_slot = first_slot
        self._workers: list[Worker] = []
        # Who has been let go, and is waited for.
        self._leaving: list[Worker] = []
        # What the first worker that was ready has said of the model; all others say the same.
        self.card: ModelCard | None = None
        self._hold_until = 0.0
        self._waiting: deque[Job] = deque()
        # Of jobs that no worker could be given.
        self._refused: list[Outcome] = []
        self._pace = Pace()
        self._restarts = Restarts(spec.name)

    @property
    def ready(self) -> int:
        """How many have loaded the model."""
        return sum(worker.ready for worker in self._workers)

    @property
    def trouble(self) -> str | None:
        """Why there are too few of them just now; None where nothing is wrong."""
        return self._restarts.trouble

    @property
    def hold_until(self) -> float:
        """Until when a batch that is not full waits for more jobs, by the monotonic clock."""
        return self._hold_until if self._waiting else 0.0

    @property
    def pids(self) -> list[int]:
        """Their processes."""
        return [worker.pid for worker in (*self._workers, *self._leaving)]

    @property
    def pipes(self) -> list[int]:
        """The descriptors of what they say."""
        return [worker.pipe.fileno() for worker in self._workers]

    @property
    def rest(self) -> float:
        """Seconds until one of them should be done, or may be started."""
        times = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if len(self._workers) < self.count:
            times.append(self._restarts.at)
        if self.hold_until + LATE_SECONDS > monotonic():
            times.append(self.hold_until + LATE_SECONDS)
        return min(times, default=inf) - monotonic()

    @property
    def batch_size(self) -> int:
        """How many jobs a worker takes at once, at most."""
        return self.card["max_batch_size"] if self.card else 1

    @property
    def jobs(self) -> list[Job]:
        """What they are on, and what waits for one of them."""
        given = (
            job for worker in self._workers for job in worker.jobs if job.id not in worker.unwanted
        )
        return [*given, *self._waiting, *(outcome.job for outcome in self._refused)]

    @property
    def idle(self) -> int:
        """How many jobs would be started at once."""
        idle = sum(worker.ready and not worker.jobs for worker in self._workers)
        return max(0, idle * self.batch_size - len(self._waiting))

    @property
    def ahead(self) -> int:
        """How many jobs wait until a worker is done with others."""
        ahead = sum(max(0, len(worker.jobs) - self.batch_size) for worker in self._workers)
        return ahead + len(self._waiting)

    @property
    def room(self) -> int:
        """How many more jobs they want now.

        None while all have enough ahead: a few large claims cost less than many small ones. But
        where only one batch is ahead, that should be a full one.
        """
        wanted = sum(self._depth(worker) for worker in self._workers if worker.ready)
        room = wanted - self._in_hand
        some = self.idle or room * 2 >= wanted or self._has_one_batch_ahead
        return max(0, room) if some else 0

    @property
    def fill_at(self) -> float:
        """When the next batch should be filled up, by the monotonic clock, if that is to come."""
        if not self._has_one_batch_ahead or self._pace.job_seconds is None:
            return inf
        lead, now = FILL_SECONDS, monotonic()
        ends = (
            now - worker.seconds + self._pace.job_seconds * len(worker.current) - lead
            for worker in self._workers
            if worker.jobs
        )
        return min((at for at in ends if at > now), default=inf)

    def tend(self) -> None:
        """Start those that are missing, unless that has just failed; deal what waits."""
        self._retire()
        while len(self._workers) < self.count and self._restarts.due:
            try:
                self._workers.append(Worker(self.spec, self._limits, self._free_slot()))
            except OSError as error:
                # No process or no memory left, say: the machine may recover.
                self._restarts.put_off(f"no worker can be started: {error.strerror}")
        self._deal(LATE_SECONDS)

    def give(self, jobs: Sequence[Job], hold_until: float = 0.0) -> None:
        """Take jobs in, and start those for which a worker is free.

        Until ``hold_until`` those that make no full batch wait for more.
        """
        if jobs:
            self._hold_until = min(self._hold_until, hold_until) if self._waiting else hold_until
        self._waiting.extend(jobs)
        if not self._gave_lone():
            self._deal()

    def hold_no_more(self) -> None:
        """Let a batch wait for more jobs no longer: there will be none."""
        self._hold_until = 0.0
        self._deal()

    def collect(self, heard: Collection[int]) -> list[Outcome]:
        """Take what has been finished, failed or overrun, and end who is to be replaced.

        Who has something to say is among the descriptors ``heard``.

        :raises ModelLoadError: when the model can't be loaded and never could.
        """
        outcomes, self._refused = self._refused, []
        for worker in list(self._workers):
            try:
                if worker.pipe.fileno() in heard:
                    self._take(worker, outcomes)
                elif worker.died:
                    raise EOFError
                if not worker.trusted:
                    raise FrameError("it has talked nonsense")
                if worker.overdue:
                    outcomes += self._replace(worker, self._overrun(worker))
            except EOFError as end:
                failure = Failure("worker_lost", str(end) or worker.cause_of_death())
                outcomes += self._replace(worker, failure)
            except FrameError as error:
                worker.trusted = False
                outcomes += self._replace(worker, Failure("invalid_output", str(error)))
        if outcomes and 2 * len(self._waiting) >= self.batch_size > 1:
            # Who is done goes on with what there is, if that is no small batch, while its
            # outcomes are written.
            self._deal()
        return outcomes

    def take_progress(self) -> list[tuple[Job, Progress]]:
        """Give what models have said of their jobs since the last time."""
        said: list[tuple[Job, Progress]] = []
        for worker in self._workers:
            if progress := worker.progress:
                said += [(job, progress) for job in worker.current]
                worker.progress = None
        return said

    def surplus(self) -> list[Job]:
        """Take back what was claimed ahead and would wait too long, and return it.

        That is what is more than the workers should have: jobs have turned slow, or workers
        are missing that can't be started now. Who is to be run alone stays as long as anybody can
        run it: whoever claims it next would not know, and batch it with the others again.
        """
        wanted = sum(self._depth(worker) for worker in self._workers)
        if self._restarts.due:
            wanted += (self.count - len(self._workers)) * (self.batch_size + self._usual_ahead())
        over = self._in_hand - wanted
        if over <= 0:
            return []
        for worker in self._workers:
            self._waiting.extend(worker.take_back())
        stays = bool(self._workers) or self._restarts.due
        back = [job for job in self._waiting if not (job.alone and stays)][-over:]
        ids = {job.id for job in back}
        self._waiting = deque(job for job in self._waiting if job.id not in ids)
        return back

    def kill_jobs(self, ids: Collection[str] | None = None) -> tuple[list[Job], list[Outcome]]:
        """Take away all jobs, or those of these ids, and return them.

        Inferences that are under way are ended, and their workers replaced. What had just
        been finished is returned as well.
        """
        outcomes: list[Outcome] = []
        if ids is None:
            outcomes, self._refused = self._refused, []
        killed = self._withdraw(ids)
        for worker in list(self._workers):
            self._listen(worker, outcomes)
            current = worker.batch
            wanted = [job for job in current if job.id not in worker.unwanted]
            if ids is not None and any(job.id not in ids for job in wanted):
                # Others in its batch go on; what is not wanted any more is not waited for.
                killed += worker.forget(ids)
            elif current and (ids is None or wanted):
                outcomes += self._end(worker)
                taken = [job for job in worker.jobs if ids is None or job.id in ids]
                killed += [job for job in taken if job.id not in worker.unwanted]
                # It had gone on to the next ones meanwhile: they are begun again.
                self._put_back(worker, [job for job in worker.jobs if job not in taken])
        return killed, outcomes

    def end(self) -> None:
        """End them all; who was dismissed may clean up for a while."""
        deadline = monotonic() + TEARDOWN_SECONDS
        for worker in self._leaving:
            worker.bury(deadline)
        for worker in self._workers:
            worker.bury()
        self._workers.clear()
        self._leaving.clear()
        self._waiting.clear()

    def dismiss(self) -> None:
        """Let those go that have something to clean up, and nothing else to do."""
        self._leaving += [worker for worker in self._workers if worker.dismiss()]
        self._workers = [worker for worker in self._workers if worker not in self._leaving]

    # Jobs

    @property
    def _in_hand(self) -> int:
        return sum(len(worker.jobs) for worker in self._workers) + len(self._waiting)

    def _depth(self, worker: Worker) -> int:
        """How many jobs a worker should have, with those that it is on."""
        slow = worker.jobs and worker.seconds > SLOW_SECONDS
        # A call that is under way takes nobody else in.
        depth = len(worker.current) if worker.jobs else self.batch_size
        depth += 0 if slow else self._usual_ahead()
        if self._limits.max_jobs is None:
            return depth
        left = self._limits.max_jobs - worker.done
        return min(depth, max(left, self.batch_size)) if left > 0 else 0

    def _usual_ahead(self) -> int:
        return self._pace.ahead(self.batch_size)

    @property
    def _has_one_batch_ahead(self) -> bool:
        return self.batch_size > 1 and self._usual_ahead() == self.batch_size

    def _deal(self, late: float = 0.0) -> None:
        """Give what waits to those that have least, and what is ahead to those with nothing.

        What waits for more until a certain time waits so many seconds longer.
        """
        if not self._waiting:
            self._waiting.extend(self._shareable())
        room = {
            worker: self._depth(worker) - len(worker.jobs)
            for worker in self._workers
            if worker.ready
        }
        holds, size = monotonic() < self.hold_until + late, self.batch_size
        while self._waiting and room:
            worker, batch = max(room, key=room.__getitem__), self._next_batch(size)
            full = len(batch) == size or batch[0].alone
            if not full and (worker.jobs or holds):
                return
            room[worker] -= len(batch)
            if room[worker] < 0 or not self._give_next(worker, batch):
                del room[worker]

    def _gave_lone(self) -> bool:
        """Give the only job that waits to a worker that has none, where that is all there is to
        weigh: somebody waits for its start. Whether it was given."""
        if len(self._waiting) != 1 or self.batch_size > 1 or self._limits.max_jobs is not None:
            return False
        idle = next((worker for worker in self._workers if worker.ready and not worker.jobs), None)
        return idle is not None and self._give_next(idle, [self._waiting[0]])

    def _next_batch(self, size: int) -> list[Job]:
        """The jobs that go together next, of those that wait: so many at most."""
        if size == 1 or self._waiting[0].alone:
            return [self._waiting[0]]
        batch: list[Job] = []
        for job in islice(self._waiting, size):
            if job.alone:
                break
            batch.append(job)
        return batch

    def _give_next(self, worker: Worker, batch: Sequence[Job]) -> bool:
        """Give a worker the first jobs that wait; False when it can take none now."""
        try:
            if not worker.give(batch):
                return False
        except OSError as error:
            said = f"the input can not be passed to a worker: {error.strerror}"
            failure = Failure("worker_lost", said)
            self._refused += [Outcome(job, None, failure=failure) for job in batch]
        for _ in batch:
            self._waiting.popleft()
        return True

    def _shareable(self) -> list[Job]:
        """What another worker has not started, where a worker has nothing to do."""
        ready = [worker for worker in self._workers if worker.ready]
        most = max(ready, key=lambda worker: len(worker.jobs), default=None)
        if most and len(most.jobs) > self.batch_size and any(not worker.jobs for worker in ready):
            return most.take_back()
        return []

    def _withdraw(self, ids: Collection[str] | None) -> list[Job]:
        """Take away jobs that no worker has started; the others wait to be dealt again."""
        for worker in self._workers:
            if ids is None or any(job.id in ids for job in worker.jobs):
                self._waiting.extend(worker.take_back())
        wanted: list[Job] = []
        left: deque[Job] = deque()
        for job in self._waiting:
            (wanted if ids is None or job.id in ids else left).append(job)
        self._waiting = left
        return wanted

    # Workers

    def _free_slot(self) -> int:
        # Who leaves passes its GPU on at once, and may be on it for the seconds of its teardown:
        # else its successor would share another worker's GPU for good.
        taken = {worker.slot for worker in self._workers}
        return next(slot for slot in count(self._first_slot) if slot not in taken)

    def _retire(self) -> None:
        """Let those go that have done as much as one may, and bury who is gone."""
        for worker in list(self._workers):
            if not worker.jobs and self._limits.max_jobs and worker.done >= self._limits.max_jobs:
                log.info("worker_retired", model=self.spec.name, pid=worker.pid, jobs=worker.done)
                self._workers.remove(worker)
                if worker.dismiss():
                    self._leaving.append(worker)
                else:
                    worker.bury()
        for worker in list(self._leaving):
            if worker.died or worker.seconds > TEARDOWN_SECONDS:
                worker.bury()
                self._leaving.remove(worker)

    def _take(self, worker: Worker, outcomes: list[Outcome]) -> None:
        """Add what it has said, one by one: nonsense after a good reply must not undo that."""
        for message in worker.hear():
            if not message.startswith(b"{"):
                outcome = worker.take_outcome(message)
                if outcome is not None:
                    outcomes.append(outcome)
                    self._pace.note(outcome)
            else:
                self._take_word(worker, frames.parse(message))

    def _listen(self, worker: Worker, outcomes: list[Outcome]) -> None:
        """Take what it has said already: it may be done with what it is thought to be on."""
        try:
            if readable([worker.pipe.fileno()]):
                self._take(worker, outcomes)
        except EOFError:
            return  # which is seen when outcomes are collected
        except FrameError:
            worker.trusted = False

    def _take_word(self, worker: Worker, message: Message) -> None:
        """Take what a worker says of itself."""
        for fault in ("setup_error", "unwell"):
            if fault in message:
                raise EOFError(clean(str(message[fault])))
        if worker.ready:
            raise FrameError("a worker that says twice what its model is")
        card = read_card(message)
        if self.card and any(card[key] != self.card[key] for key in FIXED):  # type: ignore[literal-required]
            raise FrameError("the model is not what it was when this runner started: start another")
        worker.welcome(card)
        self.card = card
        self._restarts.succeeded()
        log.info("worker_ready", model=self.spec.name, pid=worker.pid, version=card["version"])

    def _overrun(self, worker: Worker) -> Failure:
        if worker.card is None:
            return Failure("worker_lost", f"setup took more than {SETUP_SECONDS:g} s")
        seconds = worker.card["timeout_seconds"]
        return Failure("timeout", f"the model took more than {seconds:g} s")

    def _replace(self, worker: Worker, failure: Failure) -> list[Outcome]:
        """End a worker for a fault. A job that it was on fails, those after it wait; of several
        that it was on each is run again by itself."""
        judged, seconds = worker.current, worker.seconds
        outcomes = self._end(worker)
        self.lost += 1
        log.warning("worker_lost", model=self.spec.name, pid=worker.pid, reason=failure.message)
        if not worker.ready:
            self._setup_failed(failure.message)
        current, left = worker.current, list(worker.jobs)
        if len(current) > 1:
            for job in current:
                job.alone = True
        elif current and (current == judged or failure.code != "timeout"):
            left = left[1:]
            if current[0].id not in worker.unwanted:
                failed = Outcome(current[0], seconds, failure=failure, version=worker.version)
                outcomes.append(failed)
        self._put_back(worker, left)
        return outcomes

    def _put_back(self, worker: Worker, jobs: Iterable[Job]) -> None:
        """Let jobs that a worker was on, or was to be on next, be started again."""
        wanted = [job for job in jobs if job.id not in worker.unwanted]
        self._waiting.extendleft(reversed(wanted))

    def _end(self, worker: Worker) -> list[Outcome]:
        """Kill a worker and give its last outcomes; what it never started waits again.

        What it had started stays in its ``jobs``.
        """
        self._workers.remove(worker)
        outcomes = worker.kill()
        self._waiting.extendleft(reversed(worker.close()))
        return outcomes

    def _setup_failed(self, reason: str) -> None:
        if self.card is None:
            raise ModelLoadError(f"the model {self.spec.name} could not be loaded: {reason}")
        self._restarts.put_off(reason)
