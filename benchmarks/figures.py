"""Figures of a run: what was measured of whom, several times, and what comes of it."""

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from statistics import median


@dataclass
class Series:
    """The figures of one contender in one workload, one a run."""

    workload: str
    contender: str
    unit: str
    settings: str = ""
    values: list[float] = field(default_factory=list)
    # The day, as ISO 8601 writes it.
    measured: str = field(default_factory=lambda: datetime.now(UTC).date().isoformat())

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.values)

    @property
    def spread(self) -> str:
        """The least and the most."""
        return f"{shown(min(self.values))} – {shown(max(self.values))}"


class Figures:
    """All series, in the order in which they began."""

    def __init__(self, series: Iterable[Series] = ()) -> None:
        self.series = list(series)

    def add(
        self, workload: str, contender: str, unit: str, value: float, settings: str = ""
    ) -> None:
        """Add the figure of a run, and say it."""
        series = self.find(workload, contender)
        if series is None:
            series = Series(workload, contender, unit, settings)
            self.series.append(series)
        series.values.append(value)
        print(f"{workload:<44} {contender:<28} {shown(value):>10} {unit}", flush=True)

    def find(self, workload: str, contender: str) -> Series | None:
        """The series, if it has begun."""
        for series in self.series:
            if (series.workload, series.contender) == (workload, contender):
                return series
        return None

    def over(self, old: "Figures") -> "Figures":
        """These, and of the old ones the workloads that were not measured anew, in their order."""
        order = dict.fromkeys([*old.workloads, *self.workloads])
        return Figures(one for name in order for one in self.of(name) or old.of(name))

    @property
    def workloads(self) -> list[str]:
        """Their names, each once."""
        return list(dict.fromkeys(series.workload for series in self.series))

    def of(self, workload: str) -> list[Series]:
        """The series of a workload."""
        return [series for series in self.series if series.workload == workload]


def ratio(ours: Series, theirs: Series) -> tuple[float, float, float]:
    """Ours ÷ theirs, run by run: the median, the least and the most."""
    pairs = [one / other for one, other in zip(ours.values, theirs.values, strict=False)]
    return median(pairs), min(pairs), max(pairs)


def shown(value: float) -> str:
    """Write a figure with three digits that count, or all before the point."""
    if value >= 100:
        return f"{value:,.0f}"
    return f"{value:.3g}"
