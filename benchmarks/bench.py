"""One run of the benchmarks: the server, the contenders that are there, and the figures."""

import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

from benchmarks import queues
from benchmarks.figures import Figures
from benchmarks.queues import Queue
from benchmarks.queues.jobrunner import Jobrunner

T = TypeVar("T")


@dataclass
class Bench:
    """The server, the contenders that are there, and what was measured so far."""

    url: str
    runs: int
    figures: Figures = field(default_factory=Figures)
    _queues: dict[type[Queue], Queue] = field(default_factory=dict)

    def queue(self, kind: type[Queue]) -> Queue | None:
        """A contender with a database of its own; None when it can't be had."""
        if kind not in self._queues:
            if missing := kind.missing():
                print(f"{kind.name} is left out: it needs {missing}", file=sys.stderr)
                return None
            name = f"bench_{kind.__name__.lower()}"
            queues.execute(self.url, [f"create database {name}"])
            self._queues[kind] = kind(self.url.replace("/jobrunner", f"/{name}"))
            self._queues[kind].install()
        return self._queues[kind]

    def queues(self, kinds: Sequence[type[Queue]]) -> list[Queue]:
        """Those of these contenders that can be had."""
        return [queue for kind in kinds if (queue := self.queue(kind))]

    def turns(self, contenders: Sequence[T]) -> Iterator[list[T]]:
        """Give the contenders for each run, another one first each time.

        What one leaves behind, pages to be written or vacuumed say, is in the way of the next.
        """
        for run in range(self.runs):
            first = run % len(contenders)
            yield [*contenders[first:], *contenders[:first]]

    def ours(self) -> Jobrunner:
        """This system."""
        queue = self.queue(Jobrunner)
        assert isinstance(queue, Jobrunner)
        return queue

    def close(self) -> None:
        """Let all go."""
        for queue in self._queues.values():
            queue.close()
