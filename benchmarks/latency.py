"""From the commit of an insert to the start of the model, on an idle runner."""

from threading import Event
from time import monotonic, time

import psycopg

INSERT = """insert into job (model, input) values ('clock', '{"text": "now"}') returning id"""
STARTED = "select (result ->> 'started')::double precision from job where id = %s"
FINISH_SECONDS = 30


def measure(url: str, jobs: int) -> list[float]:
    """Insert one job after the other, each when the one before is done; give the seconds."""
    with psycopg.connect(url, autocommit=True) as connection:
        return [_one(connection) for _ in range(jobs)]


def _one(connection: psycopg.Connection) -> float:
    row = connection.execute(INSERT).fetchone()
    committed = time()
    deadline = monotonic() + FINISH_SECONDS
    while monotonic() < deadline:
        # Long enough for the runner to fall asleep again, so that a wake-up is measured.
        Event().wait(0.02)
        found = connection.execute(STARTED, row).fetchone()
        if found and found[0] is not None:
            return float(found[0]) - committed
    raise SystemExit("a job did not complete")
