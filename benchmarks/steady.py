"""From the sending of a POST to the final row, at a fixed rate below saturation."""

import json
import selectors
from collections import deque
from time import monotonic, sleep, time

import psycopg

from benchmarks import drain
from benchmarks.queues.jobrunner import Jobrunner
from benchmarks.submit import Client

RATE = 200
SECONDS = 8
CLIENTS = 32

FINISHED = """
    select
        id::text,
        extract(epoch from finished_at)::float8
    from job
    where id = any(%(ids)s::uuid[]) and status = 'completed'
"""


def measure(queue: Jobrunner, port: int) -> list[float]:
    """Post at the rate, each at its time whatever became of the others; give the seconds."""
    sent = _post(port)
    drain.wait_until_empty(queue, len(sent))
    with psycopg.connect(queue.url) as connection:
        rows = connection.execute(FINISHED, {"ids": list(sent)}).fetchall()
    if len(rows) < len(sent):
        raise SystemExit(f"{len(sent) - len(rows)} jobs were not completed")
    return [finished - sent[job_id] for job_id, finished in rows]


def _post(port: int) -> dict[str, float]:
    """When which job was sent."""
    sent: dict[str, float] = {}
    began, count = monotonic(), 0
    idle = deque(Client(port) for _ in range(CLIENTS))
    with selectors.DefaultSelector() as selector:
        while count < RATE * SECONDS or selector.get_map():
            due = began + count / RATE
            if count < RATE * SECONDS and idle and monotonic() >= due:
                client = idle.popleft()
                selector.register(client.socket, selectors.EVENT_READ, (client, time()))
                client.post()
                count += 1
                continue
            if not selector.get_map():
                sleep(max(0.0, due - monotonic()))
                continue
            pause = max(0.0, due - monotonic()) if count < RATE * SECONDS and idle else None
            for key, _ in selector.select(pause):
                client, at = key.data
                if client.receive() is not None:
                    selector.unregister(client.socket)
                    sent[json.loads(client.body)["job_id"]] = at
                    idle.append(client)
    for client in idle:
        client.socket.close()
    return sent
