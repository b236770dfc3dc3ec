"""The model of a chaos run: does what its text says, and keeps a log of its own.

A text is a name and a deed: ``j17 work 0.05``. The log is one line of JSON for a start, each
sign of life and the end, appended by single writes that a kill can not tear.
"""

import json
import os
import random
import secrets
from threading import Event
from time import monotonic, time
from typing import Any

LOG_VARIABLE = "CHAOS_LOG"
LIFE_SECONDS = 0.1


class Broken(Exception):
    """The attempt failed and may be repeated."""


class Hopeless(Exception):
    """The attempt failed and is not to be repeated."""

    retryable = False


class Chaos:
    """Works, fails, or kills its worker, as told; the answer names the execution."""

    timeout_seconds = 30.0

    def setup(self) -> None:
        """Open the log."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
        self._log = os.open(os.environ[LOG_VARIABLE], flags, 0o644)

    def predict(self, item: dict[str, Any]) -> dict[str, str]:
        """Do the deed of ``item["text"]``."""
        execution, text = secrets.token_hex(8), item["text"]
        _, deed, seconds = text.split(" ")
        self._note("start", execution, text)
        self._work(execution, text, float(seconds))
        if deed == "poison":
            os._exit(66)
        if deed == "flaky" and random.random() < 0.5:
            self._fail(Broken, execution, text)
        if deed == "hopeless":
            self._fail(Hopeless, execution, text)
        self._note("end", execution, text)
        return {"execution": execution}

    def _fail(self, kind: type[Exception], execution: str, text: str) -> None:
        self._note("end", execution, text)
        raise kind(f"execution={execution}")

    def _work(self, execution: str, text: str, seconds: float) -> None:
        until = monotonic() + seconds
        while (left := until - monotonic()) > 0:
            Event().wait(min(left, LIFE_SECONDS))
            self._note("alive", execution, text)

    def _note(self, event: str, execution: str, text: str) -> None:
        line = {"event": event, "id": execution, "text": text, "at": time()}
        line |= {"worker": os.getpid(), "runner": os.getppid()}
        os.write(self._log, json.dumps(line).encode() + b"\n")
