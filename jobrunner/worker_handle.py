"""A worker as its runner sees it: a process, the jobs it was given, and what it says."""

import os
import signal
import socket
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from time import monotonic
from typing import Any

from jobrunner import frames
from jobrunner.errors import FrameError
from jobrunner.frames import FrameReader
from jobrunner.inbox import ID_BYTES, Inbox
from jobrunner.models import TIMEOUT_SECONDS
from jobrunner.outcome import Job, Outcome, judge
from jobrunner.settings import worker_environment

SETUP_SECONDS = 600.0
SEND_SECONDS = 5.0
# Room in a frame for what stands around a result.
FRAME_OVERHEAD = 64 * 1024


@dataclass(frozen=True)
class ModelSpec:
    """Which model to serve under which name, and what its class is made with."""

    name: str
    implementation: str
    options: dict[str, Any] = field(default_factory=dict)


class Worker:
    """One worker process. It does its jobs in the order in which they were given."""

    def __init__(self, spec: ModelSpec, max_result_bytes: int) -> None:
        self.ready = False
        # False once it has said what makes no sense: what else it says is not listened to.
        self.trusted = True
        self.jobs: deque[Job] = deque()
        self.timeout_seconds = TIMEOUT_SECONDS
        self._since = monotonic()
        self._max_result_bytes = max_result_bytes
        self._reader = FrameReader(max_result_bytes + FRAME_OVERHEAD)
        self._inbox = Inbox()
        self.pipe, theirs = socket.socketpair()
        self.pipe.settimeout(SEND_SECONDS)
        with theirs:
            try:
                self._process = _spawn(theirs, self._inbox.exit)
            except OSError:
                self._close()
                raise
        self.pid = self._process.pid
        order = {"implementation": spec.implementation, "options": spec.options}
        self._send(frames.encode(order | {"max_result_bytes": max_result_bytes}))

    @property
    def deadline(self) -> float | None:
        """When it has to be done with the job that it is on; None when it is on nothing."""
        if not self.ready:
            return self._since + SETUP_SECONDS
        return self._since + self.timeout_seconds if self.jobs else None

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

    def give(self, job: Job) -> bool:
        """Give it a job after those that it has; False when it can't take more now."""
        if not self._inbox.put(job):
            return False
        if not self.jobs:
            self._since = monotonic()
        self.jobs.append(job)
        return True

    def take_back(self) -> list[Job]:
        """Take back the jobs that it has not started."""
        ids = self._inbox.take_back()
        back = [job for job in self.jobs if job.id in ids]
        self.jobs = deque(job for job in self.jobs if job.id not in ids)
        return back

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

    def take_outcome(self, message: bytes) -> Outcome:
        """Match a reply with the job that it is on.

        :raises FrameError: when it is on no job, or on another.
        """
        if not self.jobs or message[:ID_BYTES] != self.jobs[0].id.encode():
            raise FrameError("a reply to a job that the worker is not on")
        self._since = monotonic()
        return judge(self.jobs.popleft(), message[ID_BYTES:], self._max_result_bytes)

    def kill(self) -> list[Outcome]:
        """Kill it with all that it has started; give the outcomes that were on their way."""
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        with suppress(subprocess.TimeoutExpired):
            self._process.wait(1)
        # What it has said is there; who else may hold the pipe open is not waited for.
        self.pipe.setblocking(False)
        outcomes: list[Outcome] = []
        with suppress(EOFError, FrameError):
            while self.trusted:
                # One by one: nonsense after a good reply must not undo that.
                for message in self.hear():
                    outcomes.append(self.take_outcome(message))
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

    def _send(self, data: bytes) -> None:
        # An error here shows as its death: the next hear() raises EOFError.
        with suppress(OSError):
            self.pipe.sendall(data)

    def _close(self) -> None:
        self.pipe.close()
        self._inbox.close()


def _spawn(pipe: socket.socket, inbox: socket.socket) -> subprocess.Popen[bytes]:
    """Start a process that takes jobs from an inbox and answers on a pipe, in its own session."""
    descriptors = [pipe.fileno(), inbox.fileno()]
    return subprocess.Popen(
        [sys.executable, "-m", "jobrunner.worker", *map(str, descriptors)],
        stdin=subprocess.DEVNULL,
        pass_fds=descriptors,
        start_new_session=True,
        env=worker_environment(),
    )


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
