"""Who does the jobs of a file at once, as their texts say, where a test needs no real runner."""

import json
from threading import Event, Thread
from typing import Self

import psycopg

from helpers import ERROR, POSITIVE, Jobs

MODELS = ["sentiment", "areas", "mine"]
WORK = [
    """
    insert into cancel_request (job_id)
    select id from job where status = 'pending' and input ->> 'text' like 'cancel%'
    """,
    """
    update job
    set
        status = 'processing', attempt = attempt + 1, claimed_by = 'crew',
        lease_token = gen_random_uuid(), started_at = clock_timestamp()
    where status = 'pending' and input ->> 'text' not like 'cancel%'
    """,
    """
    update job
    set
        status = 'failed', lease_token = null, finished_at = clock_timestamp(),
        error = %(error)s::jsonb
    where status = 'processing' and input ->> 'text' like 'fail%%'
    """,
    """
    update job
    set
        status = 'completed', lease_token = null, finished_at = clock_timestamp(),
        result = %(result)s::jsonb
    where status = 'processing'
    """,
    "delete from job where input ->> 'text' like 'gone%' and finished_at is not null",
]


class Crew:
    """Completes every job, but fails, cancels or deletes those whose texts begin so."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._over = Event()
        self._thread = Thread(target=self._work)

    def __enter__(self) -> Self:
        with psycopg.connect(self._url, autocommit=True) as connection:
            # Who waits for long is not to say that nobody serves the model.
            Jobs(connection).add_runner("crew", lease="1 h")
            connection.execute("update runner set models = %s where id = 'crew'", [MODELS])
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _work(self) -> None:
        values = {"error": json.dumps(ERROR), "result": json.dumps(POSITIVE)}
        with psycopg.connect(self._url, autocommit=True) as connection:
            while not self._over.wait(0.01):
                with connection.transaction():
                    for statement in WORK:
                        connection.execute(statement, values if "%(" in statement else None)
