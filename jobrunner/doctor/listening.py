"""Whether runners are told of new jobs, or have to look for them again and again."""

import secrets
from collections.abc import Iterator

import psycopg
from psycopg import sql

from jobrunner import database
from jobrunner.doctor.finding import Finding, Patient, ok, unseen, warning
from jobrunner.errors import DatabaseUnavailable

ARRIVAL_SECONDS = 3.0
POLL = "runners poll: set JOBRUNNER_LISTEN_URL to a direct way to the same database"

LISTEN = sql.SQL("listen {}")
NOTIFY = "select pg_notify(%(channel)s, '')"


def notifications(patient: Patient) -> Iterator[Finding]:
    """Send one by DATABASE_URL, and see whether it arrives at JOBRUNNER_LISTEN_URL."""
    name = "JOBRUNNER_LISTEN_URL" if patient.settings.listen_url else "DATABASE_URL"
    if patient.on_standby():
        yield unseen("whether notifications arrive", "a standby sends none: ask the primary")
        return
    try:
        url = patient.settings.listen_url or patient.url
        with database.connect(url, name="jobrunner doctor") as listener:
            yield _hear(patient, listener, name)
    except (DatabaseUnavailable, psycopg.Error) as error:
        yield warning(f"{name}: {database.first_line(error)}", POLL)


def _hear(patient: Patient, listener: database.BoundedConnection, name: str) -> Finding:
    if listener.pooled:
        return warning("runners listen through a pooler, and hear nothing", POLL)
    channel = f"doctor_{secrets.token_hex(4)}"
    listener.execute(LISTEN.format(sql.Identifier(channel)))
    patient.connection.execute(NOTIFY, {"channel": channel})
    if not list(listener.notifies(timeout=ARRIVAL_SECONDS, stop_after=1)):
        return warning(f"a notification did not arrive at {name} in {ARRIVAL_SECONDS:g} s", POLL)
    return ok(f"notifications arrive at {name}")
