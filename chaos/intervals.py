"""Lengths of time, measured through intervals that count and others that do not."""

from bisect import bisect_right
from collections.abc import Iterable

Interval = tuple[float, float]


def union(intervals: Iterable[Interval]) -> list[Interval]:
    """Merge what overlaps, in order."""
    merged: list[Interval] = []
    for begin, end in sorted(intervals):
        if merged and begin <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(merged[-1][1], end))
        elif end > begin:
            merged.append((begin, end))
    return merged


class Measure:
    """How much of a span lies within a set of intervals, each asked in logarithmic time."""

    def __init__(self, intervals: Iterable[Interval]) -> None:
        self.intervals = union(intervals)
        self._begins = [begin for begin, _ in self.intervals]
        self._before = [0.0]
        for begin, end in self.intervals:
            self._before.append(self._before[-1] + end - begin)

    def within(self, begin: float, end: float) -> float:
        """The seconds of the span that lie inside."""
        return max(0.0, self._until(end) - self._until(begin))

    def outside(self, begin: float, end: float) -> float:
        """The seconds of the span that do not."""
        return max(0.0, end - begin) - self.within(begin, end)

    def _until(self, moment: float) -> float:
        place = bisect_right(self._begins, moment)
        if place == 0:
            return 0.0
        begin, end = self.intervals[place - 1]
        return self._before[place - 1] + min(moment, end) - begin
