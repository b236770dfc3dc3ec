"""What the shell is offered for an argument; nothing, silently, where no database answers."""

from collections.abc import Callable

import click
import psycopg
from psycopg.conninfo import make_conninfo

from jobrunner import database, heartbeat, jobs
from jobrunner.errors import JobrunnerError
from jobrunner.settings import load

NAME = "jobrunner completion"
# Somebody has pressed a key and waits.
CONNECT_SECONDS = 1
STATEMENT_TIMEOUT = "set statement_timeout = '1s'"
JOBS = 50

Complete = Callable[[click.Context, click.Parameter, str], list[str]]


def runner_ids(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
    """Offer the runners that can be stopped."""
    try:
        with _connect() as connection:
            found = heartbeat.overview(connection)
    except (psycopg.Error, JobrunnerError):
        return []
    return [
        runner["runner"]
        for runner in found
        if runner["state"] != "lost" and runner["runner"].startswith(begun)
    ]


def job_ids(*statuses: str) -> Complete:
    """Offer the newest jobs, in one of these states or in any."""

    def complete(context: click.Context, parameter: click.Parameter, begun: str) -> list[str]:
        try:
            with _connect() as connection:
                found = [
                    job
                    for status in statuses or (None,)
                    for job in jobs.newest(connection, jobs.Wanted(status, limit=JOBS))
                ]
        except (psycopg.Error, JobrunnerError):
            return []
        ids = (str(job["id"]) for job in found)
        return [job_id for job_id in ids if job_id.startswith(begun)]

    return complete


def _connect() -> database.BoundedConnection:
    url = make_conninfo(database.url_of(load()), connect_timeout=CONNECT_SECONDS)
    return database.connect(url, name=NAME, session=STATEMENT_TIMEOUT)
