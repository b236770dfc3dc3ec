"""A worker: loads a model once and answers jobs over its pipe, one at a time.

It runs in a process of its own (``python -m jobrunner.worker FD1 FD2``), without a database
connection or password. Whatever the model prints goes to standard error. It dies with its
runner: the kernel sees to it on Linux, a thread elsewhere.
"""

import json
import os
import signal
import socket
import sys
from contextlib import suppress
from math import inf
from threading import Event, Thread
from time import perf_counter
from typing import Any

from jobrunner import frames
from jobrunner.inbox import Exit
from jobrunner.models import TIMEOUT_SECONDS, Model, load
from jobrunner.processes import die_with_parent

MAX_MESSAGE = 1000


def main() -> None:
    """Answer on the pipe FD1 what comes into the inbox FD2."""
    runner = os.getppid()
    die_with_parent(signal.SIGKILL)
    Thread(target=_die_after, args=[runner], daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    os.dup2(2, 1)
    pipe, inbox = (socket.socket(fileno=int(number)) for number in sys.argv[1:])
    with pipe, inbox:
        os.set_inheritable(pipe.fileno(), False)
        os.set_inheritable(inbox.fileno(), False)
        # The runner is gone: nobody is to be told.
        with suppress(BrokenPipeError, ConnectionResetError):
            serve(pipe, inbox)


def serve(pipe: socket.socket, inbox: socket.socket) -> None:
    """Set the model up, say so, then answer until the runner is gone."""
    first = frames.read(pipe)
    if first is None:
        return
    order = json.loads(first)
    try:
        model = load(order["implementation"], order["options"])
        model.setup()
        timeout = _timeout(model)
    except BaseException as error:
        pipe.sendall(frames.encode({"setup_error": describe(error)}))
        sys.exit(1)
    pipe.sendall(frames.encode({"ready": True, "timeout_seconds": timeout}))
    exit = Exit(inbox)
    while job := exit.take():
        pipe.sendall(answer(model, *job, order["max_result_bytes"]))


def _timeout(model: Model) -> float:
    timeout = getattr(model, "timeout_seconds", TIMEOUT_SECONDS)
    if not isinstance(timeout, int | float) or not 0 < timeout < inf:
        raise ValueError("timeout_seconds should be a number of seconds over 0")
    return float(timeout)


def answer(model: Model, job_id: bytes, text: bytes, max_result_bytes: int) -> bytes:
    """Run the model on one job and make the frame of its outcome; nothing it raises escapes."""
    started = perf_counter()
    outcome = _attempt(model, text, max_result_bytes)
    seconds = perf_counter() - started
    return frames.frame(b'%b{"seconds":%.9f%b' % (job_id, seconds, outcome))


def _attempt(model: Model, text: bytes, max_result_bytes: int) -> bytes:
    """Do it, and give the rest of the reply, after the seconds."""
    try:
        item = json.loads(text.decode())
    except (ValueError, RecursionError) as error:
        said = f"the input can not be read: {describe(error)}"
        return _error("invalid_input", said, retryable=False)
    try:
        return _judged(model.predict(item), max_result_bytes)
    except BaseException as error:
        return _error("model_error", describe(error), _is_retryable(error))


def _is_retryable(error: BaseException) -> bool:
    try:
        return getattr(error, "retryable", True) is not False
    except Exception:
        return True


def _judged(result: Any, max_result_bytes: int) -> bytes:
    """Say the result, or what is wrong with it: it must be JSON and not too large."""
    try:
        text = frames.ENCODER.encode(result).encode()
    except (TypeError, ValueError, RecursionError) as error:
        return _error("invalid_output", f"the result is not JSON: {describe(error)}")
    if len(text) > max_result_bytes:
        said = f"the result has {len(text)} bytes, at most {max_result_bytes} are stored"
        return _error("invalid_output", said)
    return b"}\n" + text


def _error(code: str, message: str, retryable: bool = True) -> bytes:
    error = {"code": code, "message": message, "retryable": retryable}
    return b',"error":' + frames.ENCODER.encode(error).encode() + b"}"


def describe(error: BaseException) -> str:
    """Name an exception in one clean line that PostgreSQL can store."""
    try:
        text = str(error)
    except Exception:
        text = ""
    line = f"{type(error).__name__}: {text}" if text else type(error).__name__
    clean = line.encode(errors="replace").decode().replace("\0", "")
    return " ".join(clean.split())[:MAX_MESSAGE]


def _die_after(runner: int) -> None:
    pause = Event()
    while os.getppid() == runner:
        pause.wait(1)
    os._exit(1)


if __name__ == "__main__":
    main()
