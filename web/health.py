"""``GET /livez``: this process answers. ``GET /readyz``: and so does its database."""

import re
from functools import cache
from importlib import resources

from flask import Blueprint, Response
from werkzeug.exceptions import ServiceUnavailable

from web import database
from web.answers import answer
from web.errors import DatabaseUnavailable, SchemaMissing
from web.problems import RETRY_SECONDS
from web.schemas import Health

blueprint = Blueprint("health", __name__)

READ_VERSION = "select max(version) from migration"


@blueprint.get("/livez")
def livez() -> Response:
    """Say that the process is up."""
    return answer(Health(status="ok"))


@blueprint.get("/readyz")
def readyz() -> Response:
    """Say that requests can be served, or why they can not."""
    try:
        require_schema()
    except DatabaseUnavailable as error:
        raise ServiceUnavailable(str(error), retry_after=RETRY_SECONDS) from error
    return answer(Health(status="ok"))


def require_schema() -> None:
    """Make sure that the database answers and is migrated as far as this program needs.

    :raises DatabaseUnavailable: when it does not answer.
    :raises SchemaMissing: when it is older than the program.
    """
    with database.get().connection() as connection:
        row = connection.execute(READ_VERSION).fetchone()
    if not row or (row[0] or 0) < needed_version():
        raise SchemaMissing


@cache
def needed_version() -> int:
    """The number of the newest file of ``sql/``."""
    names = (file.name for file in resources.files("jobrunner_sql").iterdir())
    return max(int(name[:4]) for name in names if re.fullmatch(r"\d{4}_\w+\.sql", name))
