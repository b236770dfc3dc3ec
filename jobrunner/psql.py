"""Opens psql on the project's database."""

import os
import shutil
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobrunner import embedded
from jobrunner.errors import DatabaseUnavailable, JobrunnerError
from jobrunner.settings import child_environment


def open_psql(url: str, arguments: Sequence[str]) -> None:
    """Become psql; the password goes by the environment, where other users can't read it.

    :raises JobrunnerError: when there is no psql.
    """
    try:
        parts: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise DatabaseUnavailable("DATABASE_URL is not a PostgreSQL URL") from None
    password = parts.pop("password", None)
    changes = {"PGPASSWORD": str(password)} if password else {}
    program = find_psql()
    os.execve(program, [program, make_conninfo(**parts), *arguments], child_environment(changes))


def find_psql() -> str:
    """Find psql on the PATH, else beside the embedded server.

    :raises JobrunnerError: when it is in neither place.
    """
    if installed := shutil.which("psql"):
        return installed
    try:
        own = embedded.find_binaries() / "psql"
    except JobrunnerError:
        own = None
    if own is None or not own.exists():
        raise JobrunnerError("no psql was found: install PostgreSQL's client")
    return str(own)
