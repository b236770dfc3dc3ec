"""``python -m benchmarks.traced``: the command, with a runner that tells when it has done what."""

import os
import socket
import struct
from collections.abc import Sequence
from time import time
from typing import Any

from benchmarks.signals import HOST
from jobrunner.outcome import Job
from jobrunner.queue import Claim, Connection
from jobrunner.worker_handle import Worker
from jobrunner.workers import Workers

MARKS_VARIABLE = "BENCHMARK_MARKS"
# When a claim was sent and answered, and its first job was with a worker, since the epoch.
MARKS = struct.Struct("<ddd")


def trace() -> None:
    """Let each claim that finds jobs say when it did, once they are with their workers."""
    marks: list[float] = []
    execute, give, give_all = Claim.execute, Worker.give, Workers.give

    def execute_and_note(claim: Claim, connection: Connection) -> list[Job]:
        sent = time()
        jobs = execute(claim, connection)
        marks[:] = [sent, time()]
        return jobs

    def give_and_note(worker: Worker, batch: Sequence[Job]) -> bool:
        given = give(worker, batch)
        marks.append(time())
        return given

    def give_all_and_tell(workers: Workers, jobs: Sequence[Job], *how: Any) -> None:
        give_all(workers, jobs, *how)
        if jobs and len(marks) > 2:
            sender.sendto(MARKS.pack(*marks[:3]), (HOST, int(os.environ[MARKS_VARIABLE])))

    sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    Claim.execute = execute_and_note  # type: ignore[method-assign]
    Worker.give = give_and_note  # type: ignore[method-assign]
    Workers.give = give_all_and_tell  # type: ignore[method-assign]


if __name__ == "__main__":
    from jobrunner.__main__ import main

    trace()
    main()
