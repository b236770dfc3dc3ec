"""How many requests of this process wait or stream at once: each holds a thread."""

from collections.abc import Iterator
from contextlib import contextmanager
from threading import Lock


class Full(Exception):
    """As many wait in this process as may."""


class Seats:
    """So many, for waits and streams of every kind together."""

    def __init__(self, most: int) -> None:
        self._left = most
        self._lock = Lock()

    @contextmanager
    def taken(self) -> Iterator[None]:
        """Take one until the block ends.

        :raises Full: when there is none.
        """
        with self._lock:
            if self._left <= 0:
                raise Full
            self._left -= 1
        try:
            yield
        finally:
            with self._lock:
                self._left += 1
