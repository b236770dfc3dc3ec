"""From the recording of an outcome to the answer that a client waits for."""

import json
import selectors
from datetime import datetime
from time import sleep, time

from benchmarks.submit import WAITING, Client

# Long enough for the runner to fall asleep again.
PAUSE_SECONDS = 0.03
WARM_UP = 10


def measure(port: int, requests: int) -> list[float]:
    """Post and wait, one after the other; give the seconds from ``finished_at`` to the answer."""
    client = Client(port, WAITING)
    with client.socket, selectors.DefaultSelector() as selector:
        selector.register(client.socket, selectors.EVENT_READ)
        return [_one(client, selector) for _ in range(WARM_UP + requests)][WARM_UP:]


def _one(client: Client, selector: selectors.BaseSelector) -> float:
    sleep(PAUSE_SECONDS)
    client.post()
    while client.receive() is None:
        selector.select()
    answered, job = time(), json.loads(client.body)
    if job["status"] != "completed":
        raise SystemExit(f"a job is {job['status']}")
    return answered - datetime.fromisoformat(job["finished_at"]).timestamp()
