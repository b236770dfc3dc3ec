"""Whether the roles and tables are there, and who is let in."""

from collections.abc import Iterator

import psycopg
from psycopg import sql

from jobrunner import database, migrations
from jobrunner.doctor.finding import Finding, Patient, ok, problem, unseen, warning
from jobrunner.errors import JobrunnerError

ROLES = ("job_web", "job_runner", "job_janitor")
STATISTICS = "pg_read_all_stats"

READ_ROLES = "select rolname from pg_roles where rolname = any(%(names)s)"
MAY_READ = "select to_regclass('job') is null or has_table_privilege('job', 'select')"
SET_ROLE = sql.SQL("set role {}")
READ_LOGINS = """
    select
        role.rolname,
        array_agg(login.rolname order by login.rolname) filter (where login.rolname is not null)
    from pg_roles as role
    left join pg_auth_members on role.oid = pg_auth_members.roleid
    left join pg_roles as login
        on
            pg_auth_members.member = login.oid
            and login.rolcanlogin
    where role.rolname = any(%(names)s)
    group by role.rolname
"""
# Who may see what others do.
WHO = """
    select
        session_user::text,
        pg_has_role(current_user, %(statistics)s, 'usage')
"""


def roles(patient: Patient) -> Iterator[Finding]:
    """Act as a role that may read, as the services do, where the login itself may not."""
    connection = patient.connection
    there = {row[0] for row in connection.execute(READ_ROLES, {"names": list(ROLES)})}
    if missing := [name for name in ROLES if name not in there]:
        yield problem(f"no role {', '.join(missing)}", "run `jobrunner migrate`")
    elif not _may_read(connection) and not any(_take(connection, name) for name in ROLES):
        yield problem("this login may act as none of the roles",
                      f"run `grant {ROLES[0]} to <login>` as the owner, or whichever it"
                      " needs")  # fmt: skip
    else:
        yield ok(f"roles {', '.join(ROLES)} are there, and let this login look")


def logins(patient: Patient) -> Iterator[Finding]:
    """Say who logs in, and as what."""
    connection = patient.connection
    found = dict(connection.execute(READ_LOGINS, {"names": list(ROLES)}).fetchall())
    said = "; ".join(f"{name}: {', '.join(found.get(name) or ['nobody'])}" for name in ROLES)
    [(login, _)] = connection.execute(WHO, {"statistics": STATISTICS}).fetchall()
    yield ok(f"logins of {said}; this one is {login}")


def statistics(patient: Patient) -> Iterator[Finding]:
    """Say whether this login sees what others do."""
    [(login, sees_others)] = patient.connection.execute(WHO, {"statistics": STATISTICS}).fetchall()
    if sees_others:
        yield ok("this login sees the transactions of all others")
    else:
        yield unseen("transactions of other logins, which may keep dead rows",
                     f"to look at them too: grant {STATISTICS} to {login}")  # fmt: skip


def applied(patient: Patient) -> Iterator[Finding]:
    """Look whether the tables are as new as this program."""
    try:
        found = migrations.status(patient.connection, allow_newer=True)
        newer = migrations.count_newer(patient.connection)
    except (JobrunnerError, psycopg.Error) as error:
        said = str(error) if isinstance(error, JobrunnerError) else database.first_line(error)
        yield problem(said, "start programs and tables of the same version")
        return
    pending = [migration for migration in found if not migration.applied_at]
    if pending:
        yield problem(f"{len(pending)} of {len(found)} migrations are not applied",
                      "run `jobrunner migrate`")  # fmt: skip
    elif newer:
        more = "1 migration" if newer == 1 else f"{newer} migrations"
        yield warning(f"the tables are newer than this program, by {more}",
                      "it works on them; bring it up to their version")  # fmt: skip
    else:
        yield ok(f"all {len(found)} migrations are applied")


def _may_read(connection: database.BoundedConnection) -> bool:
    row = connection.execute(MAY_READ).fetchone()
    return bool(row and row[0])


def _take(connection: database.BoundedConnection, role: str) -> bool:
    if connection.pooled:
        return False
    try:
        connection.execute(SET_ROLE.format(sql.Identifier(role)))
    except psycopg.errors.InsufficientPrivilege:
        return False
    return True
