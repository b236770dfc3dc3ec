"""Writes what was measured: JSON, a table in Markdown, and pictures."""

import json
import os
import platform
import re
from contextlib import suppress
from dataclasses import asdict
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from benchmarks.figures import Figures, Series, ratio, shown

PACKAGES = (
    "psycopg", "pydantic", "flask", "gunicorn", "procrastinate", "asyncpg", "pgqueuer", "uvloop",
    "celery", "redis", "fastapi", "uvicorn", "sqlalchemy", "litserve", "bentoml",
)  # fmt: skip
BEGIN, END = "<!-- figures: written by make bench -->", "<!-- end of figures -->"
OURS = "jobrunner"
DRAWN = (
    "drain of no-op jobs, 2 processes",
    "commit to start, idle worker, p50",
    "commit to start, idle worker, p99",
    "POST /predict, 16 connections",
    "runners that sleep: processor time of a job",
    "pinned horizon: 200,000 jobs by tenths",
)
# As the work grows: all these are drains of this system.
GROWTH = re.compile(r"drain(, (runners|texts)| while| beside)")


def write(figures: Figures, folder: Path, server: dict[str, str]) -> None:
    """Put the figures into ``folder``: into performance.md between its marks, and beside it.

    Workloads that were not measured this time stay as they were.
    """
    machine, data = _machine(server), folder / "performance.json"
    if data.exists():
        old = json.loads(data.read_text())["series"]
        figures = figures.over(Figures(Series(**series) for series in old))
    kept = {"machine": machine, "series": [asdict(series) for series in figures.series]}
    data.write_text(json.dumps(kept, indent=1) + "\n")
    page = folder / "performance.md"
    text = "\n\n".join([BEGIN, _said(machine), *_tables(figures), END])
    old = page.read_text() if page.exists() else f"# Performance\n\n{BEGIN}\n{END}\n"
    page.write_text(re.sub(f"{BEGIN}.*{END}", lambda _: text, old, flags=re.DOTALL))
    _draw(figures, folder)


def _machine(server: dict[str, str]) -> dict[str, Any]:
    versions = {}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30),
        "system": f"{platform.system()} {'.'.join(platform.release().split('.')[:2])}",
        "python": platform.python_version(),
        **server,
        "packages": versions,
    }


def _processor() -> str:
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _said(machine: dict[str, Any]) -> str:
    packages = ", ".join(f"{name} {number}" for name, number in machine["packages"].items())
    return (
        f"Measured on {machine['cores']} shared cores ({machine['processor']}),"
        f" {machine['memory_gb']} GB of memory, {machine['system']},"
        f" PostgreSQL {machine['postgresql']} with its default, durable settings but"
        f" shared_buffers = {machine['shared_buffers']},"
        f" Python {machine['python']}, {packages}."
        " Medians, and in brackets the least and the most; a ratio is the median of the runs'"
        " ratios."
    )


def _tables(figures: Figures) -> list[str]:
    return [_table(workload, figures.of(workload)) for workload in figures.workloads]


def _table(workload: str, contenders: list[Series]) -> str:
    ours = next((series for series in contenders if series.contender == OURS), None)
    first = contenders[0]
    unit = f"{first.unit}, " if first.unit else ""
    lines = [f"**{workload}** ({unit}{len(first.values)} runs, {first.measured})", ""]
    lines += ["| | median | jobrunner ÷ it | settings |", "|---|---|---|---|"]
    for series in contenders:
        comparable = ours is not None and series is not ours and all(series.values)
        against = _ratio(ours, series) if ours and comparable else ""
        middle = f"{shown(series.median)} ({series.spread})"
        lines.append(f"| {series.contender} | {middle} | {against} | {series.settings} |")
    return "\n".join(lines)


def _ratio(ours: Series, theirs: Series) -> str:
    middle, least, most = ratio(ours, theirs)
    return f"{shown(middle)} ({shown(least)} – {shown(most)})"


def _draw(figures: Figures, folder: Path) -> None:
    """A picture of each workload in which there is something to compare, and one of all drains."""
    for workload in figures.workloads:
        if workload in DRAWN:
            series = figures.of(workload)
            bars = [(each.contender, each) for each in series]
            name = re.sub(r"[^a-z0-9]+", "-", workload.lower()).strip("-")
            _draw_bars(f"{workload} ({series[0].unit})", bars, folder / f"{name}.png")
    grown = [each for each in figures.series if GROWTH.match(each.workload) and each.unit]
    if grown:
        bars = [(each.workload, each) for each in grown]
        _draw_bars(f"drain ({grown[0].unit})", bars, folder / "growth.png")


def _draw_bars(title: str, bars: list[tuple[str, Series]], file: Path) -> None:
    """One bar a series, with its name before it, and its spread as a line."""
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    has_company = any(name.startswith(OURS) for name, _ in bars)
    figure, axes = pyplot.subplots(figsize=(7, 0.5 + 0.42 * len(bars)))
    for place, (name, series) in enumerate(bars[::-1]):
        is_ours = not has_company or name.startswith(OURS)
        axes.barh(place, series.median, color="#1f6feb" if is_ours else "#8b949e")
        axes.plot([min(series.values), max(series.values)], [place, place], color="black")
        axes.annotate(
            f" {shown(series.median)}", (max(series.values), place), va="center", fontsize=8
        )
    axes.set_yticks(range(len(bars)), [name for name, _ in bars[::-1]])
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.15)
    axes.locator_params(axis="x", nbins=5)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,g}")
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    pyplot.close(figure)
