"""``python -m benchmarks``: measures, and prints a table in milliseconds.

Machines differ and are shared: compare figures of one run, and look at several.
"""

import os
import platform
from statistics import quantiles

from benchmarks import latency, submit, system

RUNS = 5
CLIENTS = 16
REQUESTS = 3200
JOBS = 200


def main() -> None:
    """Measure everything in several runs."""
    print(f"Python {platform.python_version()}, {os.cpu_count()} cores; each line is one run.")
    with system.postgres() as url:
        with system.runner(url, "clock=benchmarks.models:Clock", 2):
            for _ in range(RUNS):
                _line("commit to start, idle runner", latency.measure(url, JOBS))
        with system.web(url) as port:
            submit.measure(port, CLIENTS, REQUESTS)  # a warm-up
            for _ in range(RUNS):
                seconds, rate = submit.measure(port, CLIENTS, REQUESTS)
                _line(f"POST /predict, {CLIENTS} clients", seconds, f"{rate:7.0f} requests/s")


def _line(name: str, seconds: list[float], rate: str = "") -> None:
    cuts = quantiles(seconds, n=100)
    p50, p99 = cuts[49] * 1000, cuts[98] * 1000
    print(f"{name:<30} p50 {p50:7.2f} ms   p99 {p99:7.2f} ms   {rate}", flush=True)


if __name__ == "__main__":
    main()
