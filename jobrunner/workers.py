"""The parent's side of the workers: start, give a job, collect outcomes, end, replace.

A worker that dies, overruns its model's timeout or talks nonsense costs the attempt that it
was on, and is replaced; the others do not notice. One that dies while it loads the model is
started again after a growing pause.
"""

import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import connection as waiting
from time import monotonic
from typing import Any, Protocol
from uuid import UUID

from jobrunner import frames, log
from jobrunner.errors import FrameError, ModelLoadError
from jobrunner.frames import FrameReader, Message
from jobrunner.models import TIMEOUT_SECONDS
from jobrunner.outcome import Failure, Job, Outcome, clean, judge
from jobrunner.settings import worker_environment

SETUP_SECONDS = 600.0
SEND_SECONDS = 5.0
MAX_RESTART_SECONDS = 60.0
# Room in a frame for what stands around a result.
FRAME_OVERHEAD = 64 * 1024


class Waitable(Protocol):
    """Something with a file descriptor that can be waited for."""

    def fileno(self) -> int: ...


@dataclass(frozen=True)
class ModelSpec:
    """Which model to serve under which name, and what its class is made with."""

    name: str
    implementation: str
    options: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One worker process and the job that it is on."""

    def __init__(self, spec: ModelSpec, max_result_bytes: int) -> None:
        self.ready = False
        self.job: Job | None = None
        self.timeout_seconds = TIMEOUT_SECONDS
        self.started = monotonic()
        self._max_result_bytes = max_result_bytes
        self._reader = FrameReader(max_result_bytes + FRAME_OVERHEAD)
        self.pipe, theirs = socket.socketpair()
        self.pipe.settimeout(SEND_SECONDS)
        with theirs:
            try:
                self._process = _spawn(theirs)
            except OSError:
                self.pipe.close()
                raise
        self.pid = self._process.pid
        order = {"implementation": spec.implementation, "options": spec.options}
        self._send(frames.encode(order | {"max_result_bytes": max_result_bytes}))

    @property
    def deadline(self) -> float | None:
        """When it has to be done with what it is on; None when it is on nothing."""
        if not self.ready:
            return self.started + SETUP_SECONDS
        return self.started + self.timeout_seconds if self.job else None

    @property
    def died(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def give(self, job: Job) -> None:
        """Start it on a job."""
        self.job, self.started = job, monotonic()
        self._send(frames.frame(str(job.id).encode() + job.input.encode()))

    def hear(self) -> Iterator[Message]:
        """Give what it has said.

        :raises EOFError: when it is gone.
        :raises FrameError: when it talks nonsense.
        """
        try:
            data = self.pipe.recv(frames.READ_BYTES)
        except OSError:
            raise EOFError from None
        if not data:
            raise EOFError
        yield from self._reader.feed(data)

    def take_outcome(self, message: Message) -> Outcome:
        """Match a reply with the job that it is on.

        :raises FrameError: when it is on no job, or on another.
        """
        job = self.job
        if job is None or message.get("job_id") != str(job.id):
            raise FrameError("a reply to a job that the worker is not on")
        self.job = None
        return judge(job, message, self._max_result_bytes)

    def end(self) -> None:
        """Kill it with all that it has started; the process is reaped."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.pipe.close()
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)

    def cause_of_death(self) -> str:
        """Say how the process ended, waiting a moment for it to do so."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(0.5)
        code = self._process.returncode
        if code is None:
            return "the worker closed its pipe"
        if code < 0:
            return f"the worker was killed by {_signal_name(-code)}"
        return f"the worker exited with code {code}"

    def _send(self, data: bytes) -> None:
        try:
            self.pipe.sendall(data)
        except OSError:
            # Of half a frame nothing good can come: the next hear() raises EOFError.
            with suppress(OSError):
                self.pipe.shutdown(socket.SHUT_RDWR)


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
        self._were_ready = False
        self._setup_failures = 0
        self._restart_at = 0.0

    @property
    def ready(self) -> int:
        """How many have loaded the model."""
        return sum(worker.ready for worker in self._workers)

    @property
    def free(self) -> int:
        """How many could take a job now."""
        return sum(worker.ready and worker.job is None for worker in self._workers)

    @property
    def jobs(self) -> list[Job]:
        """What they are on."""
        return [worker.job for worker in self._workers if worker.job]

    def tend(self) -> None:
        """Start those that are missing, unless the model has just failed to load."""
        while len(self._workers) < self.count and monotonic() >= self._restart_at:
            try:
                self._workers.append(Worker(self.spec, self._max_result_bytes))
            except OSError as error:
                # No process or no memory left, say: the machine may recover.
                self._put_off(f"no worker can be started: {error.strerror}")

    def give(self, jobs: Sequence[Job]) -> None:
        """Start a free worker on each job; there must be enough of them."""
        free = [worker for worker in self._workers if worker.ready and worker.job is None]
        for worker, job in zip(free, jobs, strict=False):
            worker.give(job)

    def wait(self, seconds: float, others: Sequence[Waitable]) -> None:
        """Wait until a worker says something, another has something, or a deadline comes."""
        now = monotonic()
        deadlines = [worker.deadline for worker in self._workers if worker.deadline is not None]
        if len(self._workers) < self.count:
            deadlines.append(self._restart_at)
        seconds = min([seconds, *(deadline - now for deadline in deadlines)])
        descriptors = [worker.pipe.fileno() for worker in self._workers]
        descriptors += [other.fileno() for other in others]
        waiting.wait(descriptors, max(0.0, seconds))

    def collect(self) -> list[Outcome]:
        """Take what has been finished, failed or overrun, and end who is to be replaced.

        :raises ModelLoadError: when the model can't be loaded and never could.
        """
        outcomes: list[Outcome] = []
        heard = waiting.wait([worker.pipe for worker in self._workers], 0)
        for worker in list(self._workers):
            try:
                if worker.pipe in heard:
                    self._take(worker, outcomes)
                elif worker.died:
                    raise EOFError
                if worker.deadline is not None and monotonic() > worker.deadline:
                    outcomes += self._replace(worker, self._overrun(worker))
            except EOFError as end:
                failure = Failure("worker_lost", str(end) or worker.cause_of_death())
                outcomes += self._replace(worker, failure)
            except FrameError as error:
                outcomes += self._replace(worker, Failure("invalid_output", str(error)))
        return outcomes

    def kill_jobs(self, ids: Collection[UUID] | None = None) -> list[Job]:
        """End the inferences under way, or those of these jobs, and return their jobs.

        The workers are replaced.
        """
        killed = []
        for worker in list(self._workers):
            if worker.job and (ids is None or worker.job.id in ids):
                killed.append(worker.job)
                self._workers.remove(worker)
                worker.end()
        return killed

    def end(self) -> None:
        """End them all."""
        for worker in self._workers:
            worker.end()
        self._workers.clear()

    def _take(self, worker: Worker, outcomes: list[Outcome]) -> None:
        """Add what it has said, one by one: nonsense after a good reply must not undo that."""
        for message in worker.hear():
            if "setup_error" in message:
                raise EOFError(clean(str(message["setup_error"])))
            if "ready" in message:
                self._welcome(worker, message)
            else:
                outcomes.append(worker.take_outcome(message))

    def _welcome(self, worker: Worker, message: Message) -> None:
        timeout = message.get("timeout_seconds")
        if worker.ready or not isinstance(timeout, float) or timeout <= 0:
            raise FrameError("a worker that does not say once how long a job may take")
        worker.ready = self._were_ready = True
        worker.timeout_seconds = timeout
        self._setup_failures, self.trouble = 0, None
        log.info("worker_ready", model=self.spec.name, pid=worker.pid)

    def _overrun(self, worker: Worker) -> Failure:
        if not worker.ready:
            return Failure("worker_lost", f"setup took more than {SETUP_SECONDS:g} s")
        return Failure("timeout", f"the model took more than {worker.timeout_seconds:g} s")

    def _replace(self, worker: Worker, failure: Failure) -> list[Outcome]:
        self._workers.remove(worker)
        worker.end()
        self.lost += 1
        log.warning("worker_lost", model=self.spec.name, pid=worker.pid, reason=failure.message)
        if not worker.ready:
            self._setup_failed(failure.message)
        if worker.job is None:
            return []
        return [Outcome(worker.job, monotonic() - worker.started, failure=failure)]

    def _setup_failed(self, reason: str) -> None:
        if not self._were_ready:
            raise ModelLoadError(f"the model {self.spec.name} could not be loaded: {reason}")
        self._put_off(reason)

    def _put_off(self, reason: str) -> None:
        """Start no worker for a pause that grows with each failure."""
        self._setup_failures += 1
        pause = min(MAX_RESTART_SECONDS, 2.0**self._setup_failures) * random.uniform(0.8, 1.2)
        self._restart_at = monotonic() + pause
        self.trouble = reason
        log.warning("setup_failed", model=self.spec.name, reason=reason, retry_in=pause)


def _spawn(pipe: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that serves the other end of a pipe, in a session of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "jobrunner.worker", str(pipe.fileno())],
        stdin=subprocess.DEVNULL,
        pass_fds=[pipe.fileno()],
        start_new_session=True,
        env=worker_environment(),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
