"""Lengths of time, measured through intervals that count and others that do not."""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

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


def without(span: Interval, holes: list[Interval]) -> Iterator[Interval]:
    """What the holes, in order and apart, leave of a span."""
    begin, end = span
    for hole_begin, hole_end in holes:
        if hole_end <= begin or hole_begin >= end:
            continue
        if hole_begin > begin:
            yield begin, hole_begin
        begin = hole_end
    if begin < end:
        yield begin, end


def spans_at_most(
    most: float, steps: Iterable[tuple[float, int]], end: float
) -> Iterator[Interval]:
    """When a count was at most that, from its first step to the end; it begins at 0."""
    ordered = sorted(steps)
    count, since = 0, ordered[0][0] if ordered else end
    for at, step in ordered:
        if count <= most < count + step:
            yield since, at
        if count + step <= most < count:
            since = at
        count += step
    if count <= most:
        yield since, end


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
