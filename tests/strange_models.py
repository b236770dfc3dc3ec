"""Models that do what a model must not: each is named for it. ``Told`` does as its text says."""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path
from threading import Event, Thread, main_thread
from typing import Any

from jobrunner import frames

FOREVER = 3600
GOOD = {"sentiment": "positive", "confidence": 0.5}


class Unpicklable(Exception):
    def __init__(self) -> None:
        super().__init__(lambda: None)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")


class Hopeless(Exception):
    retryable = False


class Undecided(Exception):
    @property
    def retryable(self) -> bool:
        raise RuntimeError("who knows")


def leave_sign(file: str) -> None:
    """Let it be seen, and counted."""
    with Path(file).open("a") as signs:
        signs.write("x")


def leave_sign_when_waiting(file: str) -> None:
    """Leave it once the worker waits for its next job."""
    while sys._current_frames()[main_thread().ident or 0].f_code.co_name != "take":
        Event().wait(0.01)
    leave_sign(file)


class Told:
    """Does what the text says, and answers well otherwise."""

    timeout_seconds = float(os.environ.get("TOLD_TIMEOUT_SECONDS", "60"))

    def setup(self) -> None:
        pass

    def predict(self, item: dict[str, Any]) -> Any:
        deed, _, argument = item["text"].partition(" ")
        act = getattr(self, f"do_{deed}", None)
        return act(argument) if act else GOOD

    def do_sleep(self, seconds: str) -> Any:
        Event().wait(float(seconds))
        return GOOD

    def do_segfault(self, _: str) -> Any:
        return ctypes.string_at(0)

    def do_exit(self, code: str) -> Any:
        os._exit(int(code))

    def do_sys_exit(self, _: str) -> Any:
        sys.exit(0)

    def do_hang(self, _: str) -> Any:
        while True:
            pass

    def do_await(self, file: str) -> Any:
        """Answer well once the file is there; leave a sign at the beginning and once it is sent."""
        leave_sign(f"{file}.begun")
        while not Path(file).exists():
            Event().wait(0.01)
        Thread(target=leave_sign_when_waiting, args=[file], daemon=True).start()
        return GOOD

    def do_mark(self, file: str) -> Any:
        """Let it be seen that it has begun, and never end."""
        leave_sign(file)
        Event().wait(FOREVER)

    def do_block_signals(self, _: str) -> Any:
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        Event().wait(FOREVER)

    def do_raise(self, message: str) -> Any:
        raise ValueError(message)

    def do_raise_unpicklable(self, _: str) -> Any:
        raise Unpicklable

    def do_raise_unspeakable(self, _: str) -> Any:
        raise Unspeakable

    def do_raise_hopeless(self, _: str) -> Any:
        raise Hopeless("never")

    def do_raise_base(self, _: str) -> Any:
        raise BaseException("of the worst kind")

    def do_raise_undecided(self, _: str) -> Any:
        raise Undecided

    def do_dribble(self, _: str) -> Any:
        """Say the beginning of a long frame, byte by byte, for ever."""
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as pipe:
            pipe.sendall(b"\0\0\x10\0")
            while True:
                pipe.sendall(b" ")
                Event().wait(0.01)

    def do_nan(self, _: str) -> Any:
        return {"sentiment": "positive", "confidence": float("nan")}

    def do_nothing(self, _: str) -> Any:
        return None

    def do_object(self, _: str) -> Any:
        return {"sentiment": object(), "confidence": 0.5}

    def do_huge(self, _: str) -> Any:
        return {"sentiment": "x" * 1_000_000, "confidence": 0.5}

    def do_recurse(self, _: str) -> Any:
        result: dict[str, Any] = {}
        result["again"] = result
        return result

    def do_surrogate(self, _: str) -> Any:
        return {"sentiment": "\ud800", "confidence": 0.5}

    def do_shape(self, _: str) -> Any:
        return {"label": "positive"}

    def do_range(self, _: str) -> Any:
        return {"sentiment": "positive", "confidence": 1.5}

    def do_nul(self, _: str) -> Any:
        return {"said": "a\0b"}

    def do_print(self, _: str) -> Any:
        print("hello from a model", flush=True)
        os.write(1, b"and from below\n")
        return GOOD

    def do_fork(self, _: str) -> Any:
        subprocess.Popen(["sleep", str(FOREVER)])
        return GOOD

    def do_fork_and_die(self, file: str) -> Any:
        child = subprocess.Popen(["sleep", str(FOREVER)])
        Path(file).write_text(str(child.pid))
        os._exit(3)

    def do_speak(self, which: str) -> Any:
        """Write on the runner's pipe what no worker should."""
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as pipe:
            pipe.sendall(bytes.fromhex(which))
        return GOOD

    def do_reply_and(self, which: str) -> Any:
        """Answer well by hand, and in the same breath badly."""
        job_id, _, more = which.partition(" ")
        result = json.dumps(GOOD).encode()
        frame = frames.frame(job_id.encode() + b'{"seconds":0.1}\n' + result)
        with socket.socket(fileno=os.dup(int(sys.argv[1]))) as pipe:
            pipe.sendall(frame + (frame if more == "again" else bytes.fromhex(more)))
        Event().wait(FOREVER)

    def do_environment(self, _: str) -> Any:
        return dict(os.environ)


class FailsSetup:
    def setup(self) -> None:
        raise OSError("the weights are missing")

    def predict(self, item: dict[str, Any]) -> Any:
        return GOOD


class DiesInSetup:
    def setup(self) -> None:
        os._exit(7)

    def predict(self, item: dict[str, Any]) -> Any:
        return GOOD


class SetsUpOnce:
    """Loads once, then never again: the marker file tells."""

    def setup(self) -> None:
        marker = Path(os.environ["MARKER"])
        if marker.exists():
            raise OSError("the weights are gone")
        marker.touch()

    def predict(self, item: dict[str, Any]) -> Any:
        os._exit(3)


class SaysNoTimeout:
    timeout_seconds = None

    def setup(self) -> None:
        pass

    def predict(self, item: dict[str, Any]) -> Any:
        return GOOD


class WithoutPredict:
    def setup(self) -> None:
        pass


class Echo:
    """Says how long the text is, of any length."""

    def setup(self) -> None:
        pass

    def predict(self, item: dict[str, Any]) -> Any:
        return {"length": len(item["text"])}


class Nameless:
    def predict(self, item: Any) -> Any:
        return GOOD


class Misnamed(Nameless):
    name = "Not A Name"


class Named(Nameless):
    name = "strange.one"
