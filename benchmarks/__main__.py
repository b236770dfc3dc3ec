"""``python -m benchmarks``: measures this system and its peers side by side.

The contenders of a workload take turns, run by run, on one server of their own, with the
settings that the embedded PostgreSQL has: the default, durable ones, and a larger cache.
Machines differ and are shared: compare figures of one run. ``FULL=1`` in the environment
measures with ten million finished rows, not with one, and lists and looks at five million jobs,
not half a million.
"""

import argparse
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg

from benchmarks import report, system
from benchmarks.bench import Bench
from benchmarks.workloads import WORKLOADS

DOCS = Path("docs")


def main() -> None:
    """Measure what was asked for, or everything."""
    parser = argparse.ArgumentParser("python -m benchmarks", description=__doc__)
    parser.add_argument("workload", nargs="*", metavar="WORKLOAD", help=", ".join(WORKLOADS))
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--write", action="store_true", help=f"put the figures into {DOCS}/")
    asked = parser.parse_args()
    # As by Ctrl-C: what was started is ended.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    with _bench(asked.runs) as bench:
        for name in asked.workload or WORKLOADS:
            WORKLOADS[name](bench)
            if asked.write:
                # After each: what ends the next one, after an hour, is not to cost this one.
                report.write(bench.figures, DOCS, _server(bench.url))


@contextmanager
def _bench(runs: int) -> Iterator[Bench]:
    with ExitStack() as stack:
        bench = Bench(stack.enter_context(system.postgres()), runs)
        stack.callback(bench.close)
        yield bench


def _server(url: str) -> dict[str, str]:
    """What is to be told of the server."""
    names = {"postgresql": "server_version", "shared_buffers": "shared_buffers"}
    with psycopg.connect(url) as connection:
        said = {key: connection.execute(f"show {name}").fetchone() for key, name in names.items()}
    return {key: str(row[0]) for key, row in said.items() if row}


if __name__ == "__main__":
    main()
