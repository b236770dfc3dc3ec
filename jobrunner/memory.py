"""How much memory processes take, and how it is bounded."""

import os
import resource
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path


def resident_bytes(pids: Iterable[int]) -> int | None:
    """The memory of these processes that is in use; None where the machine does not say (proc(5)).

    What they share with each other is counted for each.
    """
    pages = None
    for pid in pids:
        with suppress(OSError, ValueError, IndexError):
            pages = (pages or 0) + int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return None if pages is None else pages * os.sysconf("SC_PAGE_SIZE")


def limit(size: int) -> None:
    """Let this process have so many bytes of its own: to ask for more is a MemoryError.

    (setrlimit(2), RLIMIT_DATA: what is mapped from files, and what a GPU's driver reserves,
    does not count.)
    """
    resource.setrlimit(resource.RLIMIT_DATA, (size, size))
