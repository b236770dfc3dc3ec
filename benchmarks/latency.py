"""From the commit of a submit to the start of its job, where workers have nothing to do."""

from collections.abc import Callable
from time import sleep, time

from benchmarks.signals import Ear

# Long enough for a runner to fall asleep again, so that a wake-up is measured.
PAUSE_SECONDS = 0.03
WARM_UP = 20


def measure(submit: Callable[[], object], ear: Ear, jobs: int) -> list[float]:
    """Submit one job after the other, each when the one before has started; give the seconds.

    :raises TimeoutError: when one is not started.
    """
    seconds = [_one(submit, ear) for _ in range(WARM_UP + jobs)]
    return seconds[WARM_UP:]


def _one(submit: Callable[[], object], ear: Ear) -> float:
    sleep(PAUSE_SECONDS)
    submit()
    committed = time()
    return ear.hear() - committed
