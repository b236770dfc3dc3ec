"""What a runner does besides, and does not end with when the database refuses it."""

from collections.abc import Callable
from typing import Any

import psycopg

from jobrunner import log
from jobrunner.database import first_line

Connection = psycopg.Connection[Any]


def unless_refused(
    act: Callable[[Connection], None], connection: Connection, refused: str, runner: str
) -> None:
    """Do it; where the database refuses it, that is logged under this name.

    :raises psycopg.Error: when the connection was lost.
    """
    try:
        act(connection)
    except psycopg.Error as error:
        if connection.closed:
            raise
        log.warning(refused, runner=runner, reason=first_line(error))
