"""How fast a full queue is emptied."""

from collections.abc import Callable
from time import monotonic, sleep

from benchmarks.queues import Queue

# The first jobs are not counted: processes start, plans are made.
COUNTED_SHARE = 0.9
LOOK_SECONDS = 0.05
FIRST_SECONDS = 60
LAST_SECONDS = 300

Sample = tuple[float, int]


def measure(queue: Queue, processes: int, jobs: int | None = None) -> float:
    """Fill the queue, start its workers, and give the jobs a second of the last nine tenths.

    :raises TimeoutError: when it does not get empty.
    """
    count = jobs or queue.jobs
    queue.forget()
    return measure_filled(queue, processes, count, lambda: queue.fill(count))


def measure_filled(
    queue: Queue, processes: int, count: int, fill: Callable[[], object], **settings: str
) -> float:
    """The same for what somebody else fills."""
    fill()
    with queue.running(processes, **settings):
        return rate(wait_until_empty(queue, count), count)


def rate(samples: list[Sample], count: int) -> float:
    """The jobs a second of the last nine tenths."""
    counted = [(at, left) for at, left in samples if 0 < left <= COUNTED_SHARE * count]
    if len({left for _, left in counted}) < 2:
        raise SystemExit(f"{count} jobs are too few to measure: they were done at once")
    (first_at, first_left), (last_at, last_left) = counted[0], counted[-1]
    return (first_left - last_left) / (last_at - first_at)


def wait_until_empty(queue: Queue, count: int, pause: float = LOOK_SECONDS) -> list[Sample]:
    """Look now and then until nothing is left; what was left at which times.

    Each look is two samples, from before and after it: it was so at some time between.

    :raises TimeoutError: when it takes too long.
    """
    began, samples = monotonic(), [(monotonic(), count)]
    while samples[-1][1] > 0:
        sleep(pause)
        asked, left = monotonic(), queue.left()
        samples += [(asked, left), (monotonic(), left)]
        patience = FIRST_SECONDS if samples[-1][1] == count else LAST_SECONDS
        if monotonic() > began + patience:
            raise TimeoutError(f"{queue.name}: {samples[-1][1]} of {count} jobs are left")
    return samples
