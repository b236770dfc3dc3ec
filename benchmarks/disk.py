"""What the disk alone takes to keep as little as a job, as often as jobs come.

No queue on that disk is faster, and what stands still then was not the queue.
"""

import os
from tempfile import TemporaryFile
from time import monotonic, sleep

PAGE = bytes(8192)
# Written before, so that a flush has data to bring to the disk and no size.
PAGES = 2048
# What PostgreSQL flushes its log with, where there is one.
FLUSH = getattr(os, "fdatasync", os.fsync)


def measure(rate: int, seconds: int) -> list[float]:
    """Write a page and flush it, so many times a second; give the seconds of each.

    They count from when its turn was: what comes while the disk stands still waits for it too.
    """
    with TemporaryFile(buffering=0) as file:
        for _ in range(PAGES):
            file.write(PAGE)
        os.fsync(file.fileno())
        began = monotonic()
        return [
            _flush(file.fileno(), number % PAGES, began + number / rate)
            for number in range(rate * seconds)
        ]


def _flush(file: int, page: int, due: float) -> float:
    sleep(max(0.0, due - monotonic()))
    os.pwrite(file, PAGE, page * len(PAGE))
    FLUSH(file)
    return monotonic() - due
