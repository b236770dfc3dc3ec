"""Opens what a submission reads and writes, and keeps others from it meanwhile."""

import fcntl
import os
import stat
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import IO, BinaryIO

from jobrunner.bulk.lines import Lines, begins_as_marked
from jobrunner.bulk.order import STREAM, Kind, Order
from jobrunner.bulk.output import FileOutput, Output, StreamOutput
from jobrunner.bulk.state import SUFFIX, State, StateFile
from jobrunner.errors import ResumeError


class Files:
    """The files of an order, closed with the stack; what can be continued has a state file."""

    def __init__(self, order: Order, stack: ExitStack) -> None:
        self.source = _open_source(order.source, stack)
        self.output = _open_output(order.output, stack)
        self._is_file = order.source != STREAM and _is_regular(self.source)
        kept = _kept_beside(order, self.output) if self._is_file else None
        if kept is not None and not isinstance(self.output, FileOutput):
            _lock(self.source, kept)
        self.state_file = StateFile(kept and kept.with_name(kept.name + SUFFIX))

    def begin(self, kind: Kind) -> State:
        """Give the state of an interrupted submission, or a new one.

        :raises ResumeError: when that can not be continued.
        """
        state = self.state_file.load(kind)
        if state and not begins_as_marked(self.source, state.mark):
            raise ResumeError(
                "the input is not what it was when this was begun:"
                f" {self.state_file.way_out()}"
            )  # fmt: skip
        self._begin_output(state)
        return state or State(kind)

    def count(self, kind: Kind) -> int | None:
        """Count the rows, where the input can be read twice."""
        if not self._is_file:
            return None
        rows = kind.read(Lines(self.source, "")).pass_over(sys.maxsize)
        self.source.seek(0)
        return rows

    def _begin_output(self, state: State | None) -> None:
        # Nothing may have been written when it was interrupted, and yet something be there.
        if state and isinstance(self.output, FileOutput):
            self.output.go_on(state.output_size)
        elif isinstance(self.output, FileOutput):
            self.output.begin()


def _open_source(name: str, stack: ExitStack) -> BinaryIO:
    if name == STREAM:
        return sys.stdin.buffer
    return stack.enter_context(Path(name).open("rb"))


def _open_output(name: str | None, stack: ExitStack) -> Output:
    if name is None:
        return Output()
    if name == STREAM:
        return StreamOutput(sys.stdout.buffer)
    path = Path(name)
    file = stack.enter_context(path.open("ab", buffering=0))
    if not _is_regular(file):
        return StreamOutput(file)
    _lock(file, path)
    return FileOutput(file, path)


def _kept_beside(order: Order, output: Output) -> Path | None:
    """Tell beside which file the state is kept; None where nothing can be continued.

    Rows that came or went through a pipe can't be had again.
    """
    if order.output is not None:
        return Path(order.output) if isinstance(output, FileOutput) else None
    path = Path(order.source)
    return path if os.access(path.absolute().parent, os.W_OK) else None


def _is_regular(file: IO[bytes]) -> bool:
    return stat.S_ISREG(os.fstat(file.fileno()).st_mode)


def _lock(file: IO[bytes], path: Path) -> None:
    try:
        fcntl.flock(file.fileno(), fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ResumeError(f"another `jobrunner submit` is at work on {path}") from None
