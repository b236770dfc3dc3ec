"""A program that is kept running: started again when it has crashed, stopped when asked to."""

import os
import signal
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from jobrunner import log
from jobrunner.errors import JobrunnerError
from jobrunner.polling import readable
from jobrunner.processes import child_setup
from jobrunner.signals import StopSignals

# A child that ends within this time of its start, so many times in a row, is given up.
SHORT_LIFE_SECONDS = 5.0
SHORT_LIVES = 3
LOOK_SECONDS = 0.05


@dataclass
class Child:
    """A Python process that is kept running until it is asked to stop."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    stop_seconds: float
    # What the kernel sends it when we are killed.
    death_signal: int
    # Whether an end without an error is somebody's wish.
    may_end: bool
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    # Whether it has ever done its work: until then its end is told, not mended.
    proven: bool = False
    short_lives: int = 0

    def start(self) -> None:
        """Start it in a session of its own: a Ctrl-C is for its parent alone."""
        self.started = monotonic()
        self.process = subprocess.Popen(
            [sys.executable, *self.arguments],
            stdin=subprocess.DEVNULL,
            env=self.environment,
            start_new_session=True,
            preexec_fn=child_setup(self.death_signal),
        )

    def tend(self) -> None:
        """Start it again where it has ended, unless that was somebody's wish.

        :raises JobrunnerError: when it does not start, or does not stay up.
        """
        if self.process is None or (code := self.process.poll()) is None:
            return
        self._kill_group()
        self.process = None
        if not self.proven:
            raise JobrunnerError(
                f"the {self.name} did not start (its exit code is {code}): it says why above"
            )
        if code == 0 and self.may_end:
            log.info("child_ended", name=self.name)
            return
        short = monotonic() - self.started < SHORT_LIFE_SECONDS
        self.short_lives = self.short_lives + 1 if short else 1
        if self.short_lives >= SHORT_LIVES:
            raise JobrunnerError(f"the {self.name} does not stay up: its last exit code is {code}")
        log.warning("child_crashed", name=self.name, code=code)
        self.start()

    def stop(self, signals: StopSignals) -> None:
        """Ask it to end and wait; at last kill it with what it has started.

        A second signal, also one that came before, is passed on as SIGINT: to the runner a
        second request, to gunicorn the one that does not wait for requests under way.
        """
        if self.process is None:
            return
        self.process.terminate()
        deadline, passed = monotonic() + self.stop_seconds, 1
        while self.process.poll() is None and monotonic() < deadline:
            if signals.count > passed:
                passed = signals.count
                self.process.send_signal(signal.SIGINT)
            readable([signals.fileno()], LOOK_SECONDS)
            signals.clear()
        self._kill_group()
        self.process.wait()

    def _kill_group(self) -> None:
        """Kill what is left of it: workers without a master would keep its port."""
        # macOS says PermissionError where all that is left is dead.
        if self.process:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self.process.pid, signal.SIGKILL)
