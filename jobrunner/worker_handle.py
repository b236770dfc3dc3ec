"""A worker as its runner sees it: a process, the jobs it was given, and what it says."""

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from time import monotonic
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from typing_extensions import TypedDict

from jobrunner import frames
from jobrunner.errors import FrameError
from jobrunner.frames import FrameReader
from jobrunner.inbox import ID_BYTES, Inbox
from jobrunner.outcome import MAX_BATCH_SIZE, Job, Outcome, Output, clean, judge
from jobrunner.progress import Progress
from jobrunner.settings import worker_environment

SETUP_SECONDS = 600.0
SEND_SECONDS = 5.0
# What is read of what a dead worker, or who has its pipe, has said.
LAST_WORDS_SECONDS = 1.0
# What a model may take to clean up.
TEARDOWN_SECONDS = 5.0
# Room in a frame for what stands around a result.
FRAME_OVERHEAD = 64 * 1024


@dataclass(frozen=True)
class ModelSpec:
    """Which model to serve under which name, and what its class is made with."""

    name: str
    implementation: str
    options: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class WorkerLimits:
    """What a worker may take. None is no limit, or, of threads, the cores shared among workers."""

    max_result_bytes: int
    memory_bytes: int | None = None
    threads: int | None = None
    # A worker is replaced after so many jobs.
    max_jobs: int | None = None
    # Of the GPUs of this machine each worker sees one, in turn; without any it sees what is there.
    devices: tuple[str, ...] = ()


class ModelCard(TypedDict):
    """What a worker says of its model once it is ready: see ``contract.Served``."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]

    ready: bool
    version: Annotated[str, Field(min_length=1, max_length=100)]
    timeout_seconds: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    max_batch_size: Annotated[int, Field(ge=1, le=MAX_BATCH_SIZE)]
    max_wait_ms: Annotated[float, Field(ge=0, le=60_000)]
    input_schema: dict[str, Any] | None
    output_schema: dict[str, Any] | None
    has_teardown: bool


class SaidProgress(TypedDict):
    """How far a call is, in its worker's words."""

    __pydantic_config__ = ConfigDict(strict=True, extra="forbid")  # type: ignore[misc]

    fraction: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
    word: Annotated[str, Field(max_length=100)]


CARD = TypeAdapter(ModelCard)
PROGRESS = TypeAdapter(SaidProgress)


def read_card(message: frames.Message) -> ModelCard:
    """Read what a worker says when it is ready.

    :raises FrameError: when that makes no sense.
    """
    try:
        return CARD.validate_python(message)
    except ValidationError:
        raise FrameError("a worker that does not say what its model is") from None


class Worker:
    """One worker process. It does its batches in the order in which they were given."""

    def __init__(self, spec: ModelSpec, limits: WorkerLimits, slot: int = 0) -> None:
        # Which of the model's workers it is, from 0: its successor has the same place.
        self.slot = slot
        self.done = 0
        self.card: ModelCard | None = None
        # False once it has said what makes no sense: what else it says is not listened to.
        self.trusted = True
        self.jobs: deque[Job] = deque()
        # What was said last of the call that it is on, and has not been looked at.
        self.progress: Progress | None = None
        # Ids of those that nobody wants the result of any more.
        self.unwanted: set[str] = set()
        # How many jobs are left of each batch that it was given.
        self._batches: deque[int] = deque()
        # Whether it runs its batch one by one, since that has failed as a whole.
        self._singly = False
        self._output: Output | None = None
        self._since = monotonic()
        self._max_result_bytes = limits.max_result_bytes
        self._reader = FrameReader(limits.max_result_bytes + FRAME_OVERHEAD)
        self._inbox = Inbox()
        self.pipe, theirs = socket.socketpair()
        self.pipe.settimeout(SEND_SECONDS)
        with theirs:
            try:
                self._process = _spawn(theirs, self._inbox.exit, limits, slot)
            except OSError:
                self._close()
                raise
        self.pid = self._process.pid
        order = {
            "implementation": spec.implementation,
            "options": spec.options,
            "max_result_bytes": limits.max_result_bytes,
            "memory_bytes": limits.memory_bytes,
        }
        self._send(frames.encode(order))

    @property
    def ready(self) -> bool:
        """Whether it has loaded the model."""
        return self.card is not None

    @property
    def version(self) -> str | None:
        """Which version of the model it has loaded."""
        return self.card["version"] if self.card else None

    @property
    def current(self) -> list[Job]:
        """The jobs that it is on: those of one call of the model."""
        return list(self._on())

    @property
    def batch(self) -> list[Job]:
        """The jobs of the batch that it is on, whether it runs them together or one by one."""
        return list(islice(self.jobs, self._batches[0])) if self._batches else []

    @property
    def deadline(self) -> float | None:
        """When it has to be done with what it is on; None when it is on nothing."""
        if self.card is None:
            return self._since + SETUP_SECONDS
        return self._since + self.card["timeout_seconds"] if self.jobs else None

    @property
    def overdue(self) -> bool:
        """Whether it should have been done by now."""
        return self.deadline is not None and monotonic() > self.deadline

    @property
    def seconds(self) -> float:
        """How long it has been on the job that it is on."""
        return monotonic() - self._since

    @property
    def died(self) -> bool:
        """Whether the process has ended by itself."""
        return self._process.poll() is not None

    def welcome(self, card: ModelCard) -> None:
        """Take it in: it has loaded the model.

        :raises FrameError: when what it says of inputs or results is no JSON Schema.
        """
        try:
            for schema in (card["input_schema"], card["output_schema"]):
                self._output = Output(schema) if schema else None
        except ValueError:
            raise FrameError("a model whose input or output has no valid JSON Schema") from None
        self.card = card

    def give(self, batch: Sequence[Job]) -> bool:
        """Give it a batch after those that it has; False when it can't take more now."""
        if not self._inbox.put(batch):
            return False
        if not self.jobs:
            self._since = monotonic()
        self.jobs.extend(batch)
        self._batches.append(len(batch))
        return True

    def take_back(self) -> list[Job]:
        """Take back the jobs that it has not started."""
        ids = self._inbox.take_back()
        back = [job for job in self.jobs if job.id in ids]
        self.jobs = deque(job for job in self.jobs if job.id not in ids)
        left = len(self.jobs)
        self._batches, kept = deque(), self._batches
        while left:
            self._batches.append(kept.popleft())
            left -= self._batches[-1]
        return back

    def forget(self, ids: Collection[str]) -> list[Job]:
        """Want no result any more of these jobs among those that it is on."""
        forgotten = [job for job in self.batch if job.id in ids and job.id not in self.unwanted]
        self.unwanted.update(job.id for job in forgotten)
        return forgotten

    def hear(self) -> Iterator[bytes]:
        """Give what it has said, message by message.

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

    def take_outcome(self, message: bytes) -> Outcome | None:
        """Match a reply with a job that it is on; None where nobody wants that any more.

        :raises FrameError: when it is on no job, or on others.
        """
        job_id, said = message[:ID_BYTES].decode(errors="replace"), message[ID_BYTES:]
        # Most are the first one.
        if self.jobs and self.jobs[0].id == job_id:
            job: Job | None = self.jobs[0]
        else:
            job = next((job for job in self._on() if job.id == job_id), None)
        if job is None:
            raise FrameError("a reply to a job that the worker is not on")
        if not said.startswith(b"{"):
            self._take_note(said)
            return None
        self._since = monotonic()
        self.jobs.remove(job)
        self.progress = None
        self.done += 1
        self._batches[0] -= 1
        if not self._batches[0]:
            self._batches.popleft()
            self._singly = False
        if job.id in self.unwanted:
            self.unwanted.discard(job.id)
            return None
        outcome = judge(job, said, self._max_result_bytes, self._output)
        outcome.version = self.version
        return outcome

    def _take_note(self, said: bytes) -> None:
        """Take what it says of the call that it is on, before that is done."""
        if said == frames.SINGLY:
            # Said twice, it would put its deadline off.
            if self._singly or self._batches[0] < 2:
                raise FrameError("a worker that runs one by one what is one already")
            self._since, self._singly = monotonic(), True
            return
        try:
            progress = PROGRESS.validate_json(said.removeprefix(frames.PROGRESS))
        except ValidationError:
            raise FrameError("a worker that talks of its jobs in no known way") from None
        self.progress = Progress(progress["fraction"], clean(progress["word"]))

    def dismiss(self) -> bool:
        """Let it end in peace; False where there is no reason to wait for that."""
        if not self.card or not self.card["has_teardown"] or self.jobs:
            return False
        self._inbox.close()
        self._since = monotonic()
        return True

    def bury(self, deadline: float = 0.0) -> None:
        """End it, if it has not ended by then, by the monotonic clock."""
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(max(0.0, deadline - monotonic()))
        self._kill()
        self._close()

    def kill(self) -> list[Outcome]:
        """Kill it with all that it has started; give the outcomes that were on their way."""
        self._kill()
        # What it has said is there; who else may hold the pipe open is not waited for.
        self.pipe.setblocking(False)
        outcomes: list[Outcome] = []
        with suppress(EOFError, FrameError):
            until = monotonic() + LAST_WORDS_SECONDS
            while self.trusted and monotonic() < until:
                # One by one: nonsense after a good reply must not undo that.
                for message in self.hear():
                    if outcome := self.take_outcome(message):
                        outcomes.append(outcome)
        return outcomes

    def close(self) -> list[Job]:
        """Give up what is left of it, after its death; give the jobs that it never started."""
        back = self.take_back()
        self._close()
        return back

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

    def _on(self) -> Iterator[Job]:
        count = self._batches[0] if self._batches else 0
        return islice(self.jobs, min(count, 1) if self._singly else count)

    def _kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)

    def _send(self, data: bytes) -> None:
        # An error here shows as its death: the next hear() raises EOFError.
        with suppress(OSError):
            self.pipe.sendall(data)

    def _close(self) -> None:
        self.pipe.close()
        self._inbox.close()


def _spawn(
    pipe: socket.socket, inbox: socket.socket, limits: WorkerLimits, slot: int
) -> subprocess.Popen[bytes]:
    """Start a process that takes jobs from an inbox and answers on a pipe, in its own session."""
    descriptors = [pipe.fileno(), inbox.fileno()]
    return subprocess.Popen(
        [sys.executable, "-m", "jobrunner.worker", *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
        env=worker_environment(threads=limits.threads, device=_device(limits, slot)),
    )


def _device(limits: WorkerLimits, slot: int) -> str | None:
    return limits.devices[slot % len(limits.devices)] if limits.devices else None


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
