"""How many connections each process of this server has, in memory that they all see.

A hint, no more: a count may be a moment old, and nothing goes wrong if it is.
"""

from mmap import mmap

SLOTS = 256
NOBODY = -1


class Loads:
    """A count a process, in a slot that gunicorn's running number for it gives."""

    def __init__(self) -> None:
        # Anonymous memory is shared with every process that is forked afterwards.
        self._counts = memoryview(mmap(-1, SLOTS * 8)).cast("q")
        for slot in range(SLOTS):
            self._counts[slot] = NOBODY

    def set(self, number: int, connections: int) -> None:
        """Say how many a process has."""
        self._counts[number % SLOTS] = connections

    def clear(self, number: int) -> None:
        """Say that a process takes none any more."""
        self._counts[number % SLOTS] = NOBODY

    def least(self) -> int:
        """The smallest count there is; NOBODY where there is none."""
        return min((count for count in self._counts if count != NOBODY), default=NOBODY)


loads = Loads()
