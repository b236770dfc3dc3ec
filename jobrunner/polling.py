"""Waits for descriptors, at a tenth of what ``selectors`` and those who use it take."""

import select
from collections.abc import Iterable
from math import ceil


def readable(descriptors: Iterable[int], seconds: float = 0.0) -> set[int]:
    """Wait until something can be read from one of them, or it has ended; give which.

    Waits up to a millisecond longer than ``seconds``, never shorter.
    """
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return {descriptor for descriptor, _ in poll.poll(ceil(max(0.0, seconds) * 1000))}


def hung_up(descriptor: int) -> bool:
    """Whether the other end has closed a socket; what it has sent before stays to be read."""
    poll = select.poll()
    poll.register(descriptor, getattr(select, "POLLRDHUP", 0))
    return bool(poll.poll(0))
