"""Where the rows of the output go: a file that can be continued, a stream, or nowhere."""

import os
from pathlib import Path
from typing import BinaryIO

from jobrunner.errors import InputError, ResumeError


class Output:
    """Nowhere. What is written to its heirs is counted."""

    keeps = False
    size = 0

    def write(self, text: str) -> None:
        """Write whole rows."""

    def sync(self) -> None:
        """Make sure that what was written stays."""


class StreamOutput(Output):
    """A pipe or a terminal: what is written is gone."""

    keeps = True

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write whole rows, at once."""
        data = text.encode()
        self._file.write(data)
        self._file.flush()
        self.size += len(data)


class FileOutput(Output):
    """A file, to which is added; it is opened without a buffer."""

    keeps = True

    def __init__(self, file: BinaryIO, path: Path) -> None:
        self._file = file
        self._path = path

    def begin(self) -> None:
        """Begin with an empty file.

        :raises InputError: when there is an output of another run, which may have taken long.
        """
        if self._path.stat().st_size:
            raise InputError(f"{self._path} is there already: remove it, or name another output")

    def go_on(self, size: int) -> None:
        """Cut off what came after it was last made safe: the last row may be torn.

        :raises ResumeError: when less is there.
        """
        if self._path.stat().st_size < size:
            raise ResumeError(f"{self._path} is shorter than it was: it can not be continued")
        self._file.truncate(size)
        self.size = size

    def write(self, text: str) -> None:
        """Write whole rows."""
        data = text.encode()
        self.size += len(data)
        while data:
            data = data[self._file.write(data) :]

    def sync(self) -> None:
        """Make sure that what was written stays."""
        os.fsync(self._file.fileno())
