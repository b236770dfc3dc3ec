"""Children that do not outlive their parent."""

import ctypes
import os
import signal
import sys
from collections.abc import Callable

PR_SET_PDEATHSIG = 1


def die_with_parent(signum: int) -> None:
    """Ask the kernel to send ``signum`` to this process when its parent dies.

    Linux only (prctl(2), PR_SET_PDEATHSIG); elsewhere it does nothing. The parent is the
    thread that forked, and a change of user forgets the wish: call it after.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signum, 0, 0, 0)


def child_setup(signum: int) -> Callable[[], None]:
    """Make a ``preexec_fn`` after which the child gets ``signum`` when this process dies."""
    parent = os.getpid()

    def set_up() -> None:
        die_with_parent(signum)
        if os.getppid() != parent:
            os.kill(os.getpid(), signal.SIGKILL)

    return set_up
