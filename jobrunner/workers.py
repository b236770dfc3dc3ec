"""The workers of a model, as many as asked for: they are given jobs and replaced when they end.

A worker that dies, overruns its model's timeout or talks nonsense costs the attempt that it
was on, and is replaced; the others do not notice. One that dies while it loads the model is
started again after a growing pause.

Where jobs are short, each worker has a few ahead, so that it need not wait for the runner.
They are no worker's for good: whoever has nothing to do gets those that another has not
started.
"""

from collections import deque
from collections.abc import Collection, Sequence
from math import inf
from time import monotonic
from typing import Protocol

from jobrunner import frames, log
from jobrunner.errors import FrameError, ModelLoadError
from jobrunner.frames import Message
from jobrunner.jitter import jittered
from jobrunner.outcome import Failure, Job, Outcome, clean
from jobrunner.polling import readable
from jobrunner.worker_handle import SETUP_SECONDS, ModelSpec, Worker

MAX_RESTART_SECONDS = 60.0

# So much work a worker has ahead: more than the runner is ever away to talk to the database.
AHEAD_SECONDS = 0.05
MAX_AHEAD = 200
# On a job for so long, a worker is not at short ones any more.
SLOW_SECONDS = 1.0
# How much of the moving average of a job's time the newest job makes up.
FRESH_SHARE = 0.1


class Waitable(Protocol):
    """Something with a file descriptor that can be waited for."""

    def fileno(self) -> int: ...


class Workers:
    """The workers of one model, as many as asked for."""

    def __init__(self, spec: ModelSpec, count: int, max_result_bytes: int) -> None:
        self.spec = spec
        self.count = count
        self.lost = 0
        # Why there are too few of them just now; None where nothing is wrong.
        self.trouble: str | None = None
        self._max_result_bytes = max_result_bytes
        self._workers: list[Worker] = []
        self._waiting: deque[Job] = deque()
        # Of jobs that no worker could be given.
        self._refused: list[Outcome] = []
        self._job_seconds: float | None = None
        self._were_ready = False
        self._setup_failures = 0
        self._restart_at = 0.0

    @property
    def ready(self) -> int:
        """How many have loaded the model."""
        return sum(worker.ready for worker in self._workers)

    @property
    def jobs(self) -> list[Job]:
        """What they are on, and what waits for one of them."""
        given = (job for worker in self._workers for job in worker.jobs)
        return [*given, *self._waiting, *(outcome.job for outcome in self._refused)]

    @property
    def idle(self) -> int:
        """How many would start a job at once."""
        idle = sum(worker.ready and not worker.jobs for worker in self._workers)
        return max(0, idle - len(self._waiting))

    @property
    def ahead(self) -> int:
        """How many jobs wait until a worker is done with another."""
        return sum(max(0, len(worker.jobs) - 1) for worker in self._workers) + len(self._waiting)

    @property
    def room(self) -> int:
        """How many more jobs they want now.

        None while all have enough ahead: a few large claims cost less than many small ones.
        """
        wanted = sum(self._depth(worker) for worker in self._workers if worker.ready)
        room = wanted - self._in_hand
        return room if self.idle or room * 2 >= wanted else 0

    def tend(self) -> None:
        """Start those that are missing, unless that has just failed; deal what waits."""
        while len(self._workers) < self.count and monotonic() >= self._restart_at:
            try:
                self._workers.append(Worker(self.spec, self._max_result_bytes))
            except OSError as error:
                # No process or no memory left, say: the machine may recover.
                self._put_off(f"no worker can be started: {error.strerror}")
        self._deal()

    def give(self, jobs: Sequence[Job]) -> None:
        """Take jobs in, and start those for which a worker is free."""
        self._waiting.extend(jobs)
        self._deal()

    def wait(self, seconds: float, others: Sequence[Waitable], listen: bool = True) -> set[int]:
        """Wait until a worker says something, another has something, or a deadline comes.

        Without ``listen``, what workers say can wait. Give the descriptors to be read.
        """
        now = monotonic()
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if len(self._workers) < self.count:
            deadlines.append(self._restart_at)
        seconds = min([seconds, *(deadline - now for deadline in deadlines)])
        descriptors = [worker.pipe.fileno() for worker in self._workers] if listen else []
        descriptors += [other.fileno() for other in others]
        return readable(descriptors, seconds)

    def collect(self, heard: Collection[int]) -> list[Outcome]:
        """Take what has been finished, failed or overrun, and end who is to be replaced.

        Who has something to say is among the descriptors ``heard``, as ``wait`` gives them.

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
        return outcomes

    def surplus(self) -> list[Job]:
        """Take back what was claimed ahead and would wait too long, and return it.

        That is what is more than the workers should have: jobs have turned slow, or workers
        are missing that can't be started now.
        """
        wanted = sum(self._depth(worker) for worker in self._workers)
        if monotonic() >= self._restart_at:
            wanted += (self.count - len(self._workers)) * self._usual_depth()
        over = self._in_hand - wanted
        if over <= 0:
            return []
        for worker in self._workers:
            self._waiting.extend(worker.take_back())
        return [self._waiting.pop() for _ in range(min(over, len(self._waiting)))]

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
            if worker.jobs and (ids is None or worker.jobs[0].id in ids):
                outcomes += self._end(worker)
                wanted = [job for job in worker.jobs if ids is None or job.id in ids]
                killed += wanted
                # It had gone on to the next one meanwhile: that is begun again.
                self._waiting.extendleft(job for job in worker.jobs if job not in wanted)
        return killed, outcomes

    def end(self) -> None:
        """End them all."""
        for worker in list(self._workers):
            self._end(worker)
        self._waiting.clear()

    # Jobs

    @property
    def _in_hand(self) -> int:
        return sum(len(worker.jobs) for worker in self._workers) + len(self._waiting)

    def _depth(self, worker: Worker) -> int:
        """How many jobs a worker should have, with the one that it is on."""
        slow = worker.jobs and worker.seconds > SLOW_SECONDS
        return 1 if slow else self._usual_depth()

    def _usual_depth(self) -> int:
        if self._job_seconds is None:
            return 1
        return 1 + min(MAX_AHEAD, int(AHEAD_SECONDS / max(self._job_seconds, 1e-6)))

    def _deal(self) -> None:
        """Give what waits to those that have least, and what is ahead to those with nothing."""
        if not self._waiting:
            self._waiting.extend(self._shareable())
        room = {
            worker: self._depth(worker) - len(worker.jobs)
            for worker in self._workers
            if worker.ready
        }
        while self._waiting and room:
            worker = max(room, key=room.__getitem__)
            room[worker] -= 1
            if room[worker] < 0 or not self._give_next(worker):
                del room[worker]

    def _give_next(self, worker: Worker) -> bool:
        """Give a worker the first job that waits; False when it can take none now."""
        job = self._waiting[0]
        try:
            if not worker.give(job):
                return False
        except OSError as error:
            said = f"the input can not be passed to a worker: {error.strerror}"
            self._refused.append(Outcome(job, None, failure=Failure("worker_lost", said)))
        self._waiting.popleft()
        return True

    def _shareable(self) -> list[Job]:
        """What another worker has not started, where a worker has nothing to do."""
        ready = [worker for worker in self._workers if worker.ready]
        most = max(ready, key=lambda worker: len(worker.jobs), default=None)
        if most and len(most.jobs) > 1 and any(not worker.jobs for worker in ready):
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

    def _take(self, worker: Worker, outcomes: list[Outcome]) -> None:
        """Add what it has said, one by one: nonsense after a good reply must not undo that."""
        for message in worker.hear():
            if not worker.ready:
                self._welcome(worker, frames.parse(message))
                continue
            outcome = worker.take_outcome(message)
            outcomes.append(outcome)
            if outcome.seconds is not None:
                self._note_pace(outcome.seconds)

    def _listen(self, worker: Worker, outcomes: list[Outcome]) -> None:
        """Take what it has said already: it may be done with what it is thought to be on."""
        try:
            if readable([worker.pipe.fileno()]):
                self._take(worker, outcomes)
        except EOFError:
            return  # which is seen when outcomes are collected
        except FrameError:
            worker.trusted = False

    def _note_pace(self, seconds: float) -> None:
        former = seconds if self._job_seconds is None else self._job_seconds
        self._job_seconds = former + FRESH_SHARE * (seconds - former)

    def _welcome(self, worker: Worker, message: Message) -> None:
        if "setup_error" in message:
            raise EOFError(clean(str(message["setup_error"])))
        timeout = message.get("timeout_seconds")
        if not isinstance(timeout, float) or not 0 < timeout < inf:
            raise FrameError("a worker that does not say how long a job may take")
        worker.ready = self._were_ready = True
        worker.timeout_seconds = timeout
        self._setup_failures, self.trouble = 0, None
        log.info("worker_ready", model=self.spec.name, pid=worker.pid)

    def _overrun(self, worker: Worker) -> Failure:
        if not worker.ready:
            return Failure("worker_lost", f"setup took more than {SETUP_SECONDS:g} s")
        return Failure("timeout", f"the model took more than {worker.timeout_seconds:g} s")

    def _replace(self, worker: Worker, failure: Failure) -> list[Outcome]:
        """End a worker for a fault; the job that it was on fails, those after it wait."""
        judged, seconds = worker.jobs[0] if worker.jobs else None, worker.seconds
        outcomes = self._end(worker)
        self.lost += 1
        log.warning("worker_lost", model=self.spec.name, pid=worker.pid, reason=failure.message)
        if not worker.ready:
            self._setup_failed(failure.message)
        at_fault = worker.jobs[0] if worker.jobs else None
        if at_fault and (at_fault == judged or failure.code != "timeout"):
            worker.jobs.popleft()
            outcomes.append(Outcome(at_fault, seconds, failure=failure))
        self._waiting.extendleft(reversed(worker.jobs))
        return outcomes

    def _end(self, worker: Worker) -> list[Outcome]:
        """Kill a worker and give its last outcomes; what it never started waits again.

        What it had started stays in its ``jobs``.
        """
        self._workers.remove(worker)
        outcomes = worker.kill()
        self._waiting.extendleft(reversed(worker.close()))
        return outcomes

    def _setup_failed(self, reason: str) -> None:
        if not self._were_ready:
            raise ModelLoadError(f"the model {self.spec.name} could not be loaded: {reason}")
        self._put_off(reason)

    def _put_off(self, reason: str) -> None:
        """Start no worker for a pause that grows with each failure."""
        self._setup_failures += 1
        pause = jittered(min(MAX_RESTART_SECONDS, 2.0**self._setup_failures))
        self._restart_at = monotonic() + pause
        self.trouble = reason
        log.warning("setup_failed", model=self.spec.name, reason=reason, retry_in=pause)
