"""Whether the server is one that keeps the promises: its version, its settings, its room."""

import time
from collections.abc import Iterator
from datetime import UTC, datetime

from jobrunner.doctor.finding import Finding, Patient, ok, problem, warning

OLDEST_SUPPORTED, NEWEST_TRIED = 15, 18
DURABLE = ("fsync", "full_page_writes", "synchronous_commit")
CLOCK_SECONDS = 2.0
# Of the connections that there may be.
MANY, ALMOST_ALL = 0.8, 0.95

READ_SETTINGS = "select name, setting from pg_settings where name = any(%(names)s)"
READ_VERSION = "select current_setting('server_version_num')::integer"
READ_ONLY = "select current_setting('default_transaction_read_only') = 'on'"
READ_CLOCK = "select extract(epoch from clock_timestamp())::float8"
READ_ENCODING = "select current_setting('server_encoding')"
READ_CONNECTIONS = """
    select
        (select sum(numbackends) from pg_stat_database)::integer as used,
        current_setting('max_connections')::integer
            - current_setting('superuser_reserved_connections')::integer as most
"""


def version(patient: Patient) -> Iterator[Finding]:
    """Look whether the server is old enough to be known, and new enough to do."""
    [(number,)] = patient.connection.execute(READ_VERSION).fetchall()
    major = number // 10000
    if major < OLDEST_SUPPORTED:
        yield problem(f"PostgreSQL {major}", f"too old: upgrade to {OLDEST_SUPPORTED} or newer")
    elif major > NEWEST_TRIED:
        yield warning(f"PostgreSQL {major}", f"never tried: {NEWEST_TRIED} is the newest that was")
    else:
        yield ok(f"PostgreSQL {major}")


def durability(patient: Patient) -> Iterator[Finding]:
    """Look whether what is committed is on the disk: the promise rests on it."""
    found = dict(patient.connection.execute(READ_SETTINGS, {"names": list(DURABLE)}).fetchall())
    off = [name for name in DURABLE if found.get(name) == "off"]
    for name in off:
        yield problem(f"{name} is off", f"accepted jobs can be lost in a crash: set {name} on")
    if not off:
        yield ok(f"{', '.join(DURABLE)}: on")


def autovacuum(patient: Patient) -> Iterator[Finding]:
    """Look whether somebody clears up."""
    names = {"names": ["autovacuum", "track_counts"]}
    found = dict(patient.connection.execute(READ_SETTINGS, names).fetchall())
    off = [name for name, setting in found.items() if setting == "off"]
    for name in off:
        yield warning(f"{name} is off", f"dead rows slow everything down: set {name} on")
    if not off:
        yield ok("autovacuum is on")


def writable(patient: Patient) -> Iterator[Finding]:
    """Look whether this is a server that takes jobs."""
    [(read_only,)] = patient.connection.execute(READ_ONLY).fetchall()
    if patient.on_standby():
        yield problem("this server is a standby", "nothing can be written: point DATABASE_URL at"
                      " the primary, or add target_session_attrs=read-write")  # fmt: skip
    elif read_only:
        yield problem("default_transaction_read_only is on", "nothing can be written: set it off")
    else:
        yield ok("the database takes writes: it is no standby, and not read-only")


def encoding(patient: Patient) -> Iterator[Finding]:
    """Look whether the database has a letter for everything."""
    [(name,)] = patient.connection.execute(READ_ENCODING).fetchall()
    if name == "UTF8":
        yield ok("encoding UTF8: it holds every text")
    else:
        yield warning(
            f"encoding {name}: it can not hold every text, and jobs with another are refused",
            "make a database with `encoding 'UTF8' template template0`, and move over",
        )


def connections(patient: Patient) -> Iterator[Finding]:
    """Look whether there is room for more."""
    [(used, most)] = patient.connection.execute(READ_CONNECTIONS).fetchall()
    said = f"{used} of {most} connections are used"
    advice = "raise max_connections, or put a pooler in front; see who has them in pg_stat_activity"
    if used >= ALMOST_ALL * most:
        yield problem(said, advice)
    elif used >= MANY * most:
        yield warning(said, advice)
    else:
        yield ok(said)


def clock(patient: Patient) -> Iterator[Finding]:
    """Compare the clock of this machine with that of the server, half-way through a question."""
    before = time.time()
    [(theirs,)] = patient.connection.execute(READ_CLOCK).fetchall()
    ours, uncertain = (before + time.time()) / 2, (time.time() - before) / 2
    ahead = ours - theirs
    if abs(ahead) <= CLOCK_SECONDS + uncertain:
        yield ok("the clock of this machine agrees with the database's")
        return
    at = datetime.fromtimestamp(theirs, UTC).strftime("%H:%M:%SZ")
    yield warning(
        f"the clock of this machine is {abs(ahead):.0f} s {'ahead' if ahead > 0 else 'behind'}:"
        f" it is {at} at the database",
        "the database's counts, but logs will not agree: let NTP set both",
    )


def pooler(patient: Patient) -> Iterator[Finding]:
    """Say whether a pooler stands between."""
    pooled = patient.connection.pooled
    yield ok("DATABASE_URL goes through a pooler" if pooled else "no pooler stands between")
