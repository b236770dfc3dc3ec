"""Opens psql on the project's database."""

import os
import shutil
import sys
from collections.abc import Sequence
from typing import Any

import psycopg
from psycopg import pq
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from jobrunner import binaries, shortcuts
from jobrunner.errors import DatabaseUnavailable, JobrunnerError
from jobrunner.settings import child_environment


def open_psql(url: str, arguments: Sequence[str]) -> None:
    """Become psql; secrets go by the environment, where other users can't read them.

    Before a person it has a few shortcuts, and a line says so.

    :raises JobrunnerError: when there is no psql, or no safe way for one of the secrets.
    """
    try:
        parts: dict[str, Any] = conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        raise DatabaseUnavailable("DATABASE_URL is not a PostgreSQL URL") from None
    changes = _take_secrets(parts)
    program = find_psql()
    given = [make_conninfo(**parts), *_shortcuts(arguments), *arguments]
    os.execve(program, [program, *given], child_environment(changes))


def _shortcuts(arguments: Sequence[str]) -> list[str]:
    """Give the arguments that make the shortcuts, and tell of them; none in a script."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        return []
    if hint := shortcuts.hint_for(arguments):
        print(hint, flush=True)
    return shortcuts.for_psql(arguments)


def _take_secrets(parts: dict[str, Any]) -> dict[str, str]:
    """Take the secrets out of a URL's parts; give them as libpq reads them elsewhere."""
    changes = {}
    # libpq marks with a star what must not be shown.
    for option in pq.Conninfo.get_defaults():
        name = option.keyword.decode()
        if option.dispchar != b"*" or not (secret := parts.pop(name, None)):
            continue
        if option.envvar is None:
            raise JobrunnerError(
                f"psql takes {name} from no place that is safe but a service file: write it into"
                " one (chmod 600), and put service=... into DATABASE_URL in its stead"
            )
        changes[option.envvar.decode()] = str(secret)
    return changes


def find_psql() -> str:
    """Find psql on the PATH, else beside the embedded server.

    :raises JobrunnerError: when it is in neither place.
    """
    if installed := shutil.which("psql"):
        return installed
    try:
        own = binaries.find_binaries() / "psql"
    except JobrunnerError:
        own = None
    if own is None or not own.exists():
        raise JobrunnerError("no psql was found: install PostgreSQL's client")
    return str(own)
