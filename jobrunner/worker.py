"""A worker: loads a model once and answers jobs over its pipe, a batch at a time.

It runs in a process of its own (``python -m jobrunner.worker FD1 FD2``), without a database
connection or password. Whatever the model prints goes to standard error. It dies with its
runner: the kernel sees to it on Linux, a thread elsewhere.
"""

import json
import math
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from threading import Event, Lock, Thread
from time import perf_counter
from typing import Any, NamedTuple

from jobrunner import frames, log, memory
from jobrunner.contract import InvalidInput, InvalidOutput, Served
from jobrunner.inbox import Exit
from jobrunner.models import load
from jobrunner.processes import die_with_parent

MAX_MESSAGE = 1000
# How often a model that can say so is asked whether it is well.
HEALTH_SECONDS = 10.0
# What it may take to answer.
HEALTH_ANSWER_SECONDS = 10.0
# How often a model may say how far it is.
TELL_SECONDS = 0.5
MAX_WORD = 100


class Teller:
    """Tells the runner how far a call is, not too often; another thread may do so."""

    def __init__(self, pipe: socket.socket) -> None:
        self._pipe = pipe
        self._lock = Lock()
        self._job_id: bytes | None = None
        self._told_at = -TELL_SECONDS

    def begin(self, job_id: bytes) -> None:
        """Tell of the call that has this job from now on."""
        with self._lock:
            self._job_id, self._told_at = job_id, -TELL_SECONDS

    def send(self, frame: bytes) -> None:
        """Say what comes of the call: of that one nothing more is told."""
        with self._lock:
            self._job_id = None
            self._pipe.sendall(frame)

    def tell(self, fraction: float, word: str = "") -> None:
        """Say how far it is, from 0 to 1; what comes too soon after the last time is left out."""
        fraction = min(max(float(fraction), 0.0), 1.0)
        with self._lock:
            soon = perf_counter() < self._told_at + TELL_SECONDS
            if self._job_id is None or soon or math.isnan(fraction):
                return
            self._told_at = perf_counter()
            said = {"fraction": fraction, "word": _clean(str(word))[:MAX_WORD]}
            payload = frames.ENCODER.encode(said).encode()
            self._pipe.sendall(frames.frame(self._job_id + frames.PROGRESS + payload))


class Task(NamedTuple):
    """A job as a worker knows it."""

    id: bytes
    item: Any


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
        if order["memory_bytes"]:
            memory.limit(order["memory_bytes"])
        model = set_up(order["implementation"], order["options"])
        ready = frames.encode({"ready": True} | model.describe())
    except BaseException as error:
        pipe.sendall(frames.encode({"setup_error": describe(error)}))
        sys.exit(1)
    pipe.sendall(ready)
    exit, teller = Exit(inbox), Teller(pipe)
    for batch in batches(exit, model, pipe):
        if len(batch) == 1:
            teller.send(answer_lone(model, *batch[0], order["max_result_bytes"], teller))
            continue
        for frame in answers(model, batch, order["max_result_bytes"], teller):
            teller.send(frame)
    if model.teardown:
        try:
            model.teardown()
        except BaseException as error:
            log.set_up()
            log.warning("teardown_failed", pid=os.getpid(), reason=describe(error))


def set_up(implementation: str, options: dict[str, Any]) -> Served:
    """Make a model ready for its first job."""
    model = load(implementation, options)
    for name in ("setup", "warmup"):
        if callable(step := getattr(model, name, None)):
            step()
    return Served(model)


def batches(exit: Exit, model: Served, pipe: socket.socket) -> Iterator[list[tuple[bytes, bytes]]]:
    """Give one batch after the other until the runner is gone; look after the model meanwhile."""
    health, ask_at = model.health, perf_counter() + HEALTH_SECONDS
    while True:
        if health and perf_counter() >= ask_at:
            require_health(health, pipe)
            ask_at = perf_counter() + HEALTH_SECONDS
        try:
            batch = exit.take(max(0.001, ask_at - perf_counter()) if health else None)
        except TimeoutError:
            continue
        if batch is None:
            return
        yield batch


def require_health(health: Callable[[], object], pipe: socket.socket) -> None:
    """End the process where the model says that it is not well, or does not answer."""
    # No handler: SIGALRM ends the process, whatever the model hangs in. No job is lost by it:
    # what lies in the inbox was not taken.
    signal.setitimer(signal.ITIMER_REAL, HEALTH_ANSWER_SECONDS)
    try:
        reason = "health() is False" if health() is False else ""
    except BaseException as error:
        reason = describe(error)
    signal.setitimer(signal.ITIMER_REAL, 0)
    if reason:
        pipe.sendall(frames.encode({"unwell": reason}))
        sys.exit(1)


def answer_lone(
    model: Served, job_id: bytes, text: bytes, max_result_bytes: int, teller: Teller
) -> bytes:
    """Run the model on a job that came by itself, and make the frame of what comes of it."""
    started = perf_counter()
    try:
        task = Task(job_id, model.read(text))
    except InvalidInput as error:
        return _frame(job_id, _head(started, 1), _error("invalid_input", error))
    except BaseException as error:
        return _frame(job_id, _head(started, 1), _error("model_error", error))
    return answer(model, task, max_result_bytes, teller)


def answers(
    model: Served, batch: Sequence[tuple[bytes, bytes]], max_result_bytes: int, teller: Teller
) -> Iterator[bytes]:
    """Run the model on a batch and make the frames of what comes of it; nothing escapes.

    What can be said at once comes in one piece.
    """
    started, said, tasks = perf_counter(), list[bytes](), list[Task]()
    for job_id, text in batch:
        try:
            tasks.append(Task(job_id, model.read(text)))
        except BaseException as error:
            code = "invalid_input" if isinstance(error, InvalidInput) else "model_error"
            said.append(_frame(job_id, _head(started, 1), _error(code, error)))
    teller.begin(batch[0][0])
    try:
        results = model.run([task.item for task in tasks], teller.tell) if tasks else []
    except BaseException as error:
        if len(tasks) > 1:
            yield b"".join([*said, frames.frame(tasks[0].id + frames.SINGLY)])
            # Read anew: the call that has failed may have changed its items.
            texts = dict(batch)
            for task in tasks:
                yield answer_lone(model, task.id, texts[task.id], max_result_bytes, teller)
            return
        said.append(_frame(tasks[0].id, _head(started, 1), _error(_code_of(error), error)))
    else:
        head = _head(started, len(tasks))
        for task, result in zip(tasks, results, strict=True):
            said.append(_frame(task.id, head, _judged(model, result, max_result_bytes)))
    yield b"".join(said)


def answer(model: Served, task: Task, max_result_bytes: int, teller: Teller) -> bytes:
    """Run the model on one item, and make the frame of what comes of it."""
    started = perf_counter()
    teller.begin(task.id)
    try:
        [result] = model.run([task.item], teller.tell)
    except BaseException as error:
        said = _error(_code_of(error), error)
    else:
        said = _judged(model, result, max_result_bytes)
    return _frame(task.id, _head(started, 1), said)


def _frame(job_id: bytes, head: bytes, said: bytes) -> bytes:
    return frames.frame(job_id + head + said)


def _head(started: float, count: int) -> bytes:
    """The beginning of a reply, which goes on with what comes of it."""
    head = b'{"seconds":%.9f' % (perf_counter() - started)
    return head + b',"batch":%d' % count if count > 1 else head


def _judged(model: Served, result: Any, max_result_bytes: int) -> bytes:
    """Say a result, or what is wrong with it: it must be JSON and not too large."""
    if isinstance(result, BaseException):
        return _error("model_error", result)
    try:
        text = frames.ENCODER.encode(model.plain(result)).encode()
    except InvalidOutput as error:
        return _error("invalid_output", error)
    except (TypeError, ValueError, RecursionError) as error:
        return _error("invalid_output", f"the result is not JSON: {describe(error)}")
    except BaseException as error:
        return _error("model_error", error)
    if len(text) > max_result_bytes:
        said = f"the result has {len(text)} bytes, at most {max_result_bytes} are stored"
        return _error("invalid_output", said)
    return b"}\n" + text


def _code_of(error: BaseException) -> str:
    return "invalid_output" if isinstance(error, InvalidOutput) else "model_error"


def _error(code: str, what: BaseException | str) -> bytes:
    retryable = isinstance(what, str) or _is_retryable(what)
    if isinstance(what, InvalidInput | InvalidOutput):
        what = str(what)
    message = what if isinstance(what, str) else describe(what)
    error = {"code": code, "message": _clean(message), "retryable": retryable}
    return b',"error":' + frames.ENCODER.encode(error).encode() + b"}"


def _is_retryable(error: BaseException) -> bool:
    try:
        return getattr(error, "retryable", True) is not False
    except Exception:
        return True


def describe(error: BaseException) -> str:
    """Name an exception in one clean line that PostgreSQL can store."""
    try:
        text = str(error)
    except Exception:
        text = ""
    return _clean(f"{type(error).__name__}: {text}" if text else type(error).__name__)


def _clean(text: str) -> str:
    clean = text.encode(errors="replace").decode().replace("\0", "")
    return " ".join(clean.split())[:MAX_MESSAGE]


def _die_after(runner: int) -> None:
    pause = Event()
    while os.getppid() == runner:
        pause.wait(1)
    os._exit(1)


if __name__ == "__main__":
    main()
