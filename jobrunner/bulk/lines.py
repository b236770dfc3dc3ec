"""The lines of the input, counted, and what tells whether it is the same another time."""

import codecs
import hashlib
from typing import BinaryIO, NamedTuple, Self

from jobrunner.errors import InputError

MAX_LINE_BYTES = 1024 * 1024
PIECE_BYTES = 1024 * 1024


class Mark(NamedTuple):
    """How far the input was read, and the hash of all that came before."""

    size: int
    digest: str


class Lines:
    """Gives line after line, with its end; a byte order mark is taken away."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self.name = name
        self.number = 0
        self._file = file
        self._size = 0
        self._hash = hashlib.sha256()

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> bytes:
        line = self._file.readline(MAX_LINE_BYTES + 1)
        if not line:
            raise StopIteration
        self.number += 1
        if len(line) > MAX_LINE_BYTES:
            raise InputError(f"{self.name}, line {self.number}: is longer than 1 MiB")
        self._size += len(line)
        self._hash.update(line)
        return line if self.number > 1 else line.removeprefix(codecs.BOM_UTF8)

    def mark(self) -> Mark:
        """Say how far it was read."""
        return Mark(self._size, self._hash.hexdigest())


def begins_as_marked(file: BinaryIO, mark: Mark) -> bool:
    """Tell whether a file begins with what was read then; go back to its beginning."""
    found, left = hashlib.sha256(), mark.size
    while left and (piece := file.read(min(PIECE_BYTES, left))):
        found.update(piece)
        left -= len(piece)
    file.seek(0)
    return left == 0 and found.hexdigest() == mark.digest
