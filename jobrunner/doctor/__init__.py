"""Looks for what is wrong here, and says how to mend it.

A check is a short function that looks at one thing, and says how that is where it is well too.
What none of them can look at without something else (the tables, say, without the roles) is not
looked at where that is wrong.
"""

from collections.abc import Iterable, Iterator

import psycopg

from jobrunner import database
from jobrunner.doctor import listening, schema, server, storage, work
from jobrunner.doctor.finding import Check, Finding, Patient, ok, problem, unseen
from jobrunner.errors import JobrunnerError
from jobrunner.settings import load

__all__ = ["Finding", "examine"]

CHECKS: tuple[Check, ...] = (
    server.version, server.durability, server.autovacuum, server.writable, server.encoding,
    server.connections, server.clock, server.pooler,
    storage.disk, listening.notifications,
    schema.roles, schema.applied, schema.logins,
    work.runners, work.queues, work.overdue,
    storage.dead_rows, schema.statistics, storage.tables, storage.slots,
)  # fmt: skip
# Without these there is nothing to be looked at.
NEEDED = (schema.roles, schema.applied)


def examine() -> Iterator[Finding]:
    """Look at everything that can be seen from here, as far as one can get."""
    try:
        settings = load()
    except JobrunnerError as error:
        yield problem(str(error), "set it right, or unset it: the README lists the settings")
        return
    yield ok("the runner's settings are valid")
    try:
        url = database.url_of(settings)
        connection = database.connect(url, name="jobrunner doctor")
    except JobrunnerError as error:
        yield problem(str(error), "without the database nothing works: see to it first")
        return
    with connection:
        yield from _checks(Patient(connection, settings, url))


def _checks(patient: Patient) -> Iterator[Finding]:
    for check in CHECKS:
        found = list(_look(check, patient))
        yield from found
        failed = any(finding.level == "problem" for finding in found)
        if patient.connection.closed or (failed and check in NEEDED):
            return


def _look(check: Check, patient: Patient) -> Iterable[Finding]:
    """Do one check; one that may not be done, or breaks, keeps nobody from the next."""
    what = (check.__doc__ or check.__name__).split(",")[0].rstrip(".")
    try:
        return list(check(patient))
    except psycopg.errors.InsufficientPrivilege as error:
        return [
            unseen(
                f"this login may not: {what[0].lower()}{what[1:]}",
                f"{database.first_line(error)}: look as the owner of the tables",
            )
        ]
    except (psycopg.Error, OSError) as error:
        return [
            problem(
                f"{database.first_line(error)}",
                f"this could not be done: {what[0].lower()}{what[1:]}",
            )
        ]
