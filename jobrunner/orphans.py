"""What is left of a PostgreSQL that was killed: backends that hold its memory.

Each goes by itself, but not before its statement is over, and until then no server starts in
the same folder. It is known by /proc: Linux only, elsewhere nothing is found.
"""

import os
import signal
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from time import monotonic, sleep

PROC = Path("/proc")
GONE_SECONDS = 5.0


def end_orphans(data: Path) -> None:
    """End the backends in a data folder whose server is dead; wait until they are gone.

    That is what the crash was to all others: what they had committed stays.
    """
    deadline = monotonic() + GONE_SECONDS
    while (pids := list(orphans(data))) and monotonic() < deadline:
        for pid in pids:
            with suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        sleep(0.02)


def orphans(data: Path) -> Iterator[int]:
    """Find the backends in a data folder whose server is dead."""
    there = {pid for pid in _pids() if _works_in(pid, data)}
    for pid in there:
        with suppress(OSError, ValueError, IndexError):
            if _is_backend(pid) and _parent(pid) not in there:
                yield pid


def _pids() -> Iterator[int]:
    with suppress(OSError):
        yield from (int(path.name) for path in PROC.iterdir() if path.name.isdecimal())


def _works_in(pid: int, data: Path) -> bool:
    try:
        return (PROC / str(pid) / "cwd").samefile(data)
    except OSError:
        return False


def _is_backend(pid: int) -> bool:
    """Whether it calls itself one; the server is called by its program."""
    return (PROC / str(pid) / "cmdline").read_bytes().startswith(b"postgres: ")


def _parent(pid: int) -> int:
    # After the name, which may have any letters, in brackets: the state, the parent.
    return int((PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()[1])
