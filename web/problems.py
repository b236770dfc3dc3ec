"""Every error as ``application/problem+json`` (RFC 9457).

The client's mistakes are told to the client. Ours are logged with the place they happened at,
but without their message: a database's may quote a row, and so a user's text.
"""

import traceback
from pathlib import PurePath
from typing import Any

from flask import Flask, Response
from werkzeug.exceptions import HTTPException, InternalServerError, ServiceUnavailable

from web import logs, tracing
from web.answers import answer
from web.errors import DatabaseUnavailable, SchemaMissing

MEDIA_TYPE = "application/problem+json"
RETRY_SECONDS = 2

FRAMES = 12

# Where nothing better is known than the status.
DETAILS = {
    404: "There is nothing at this address; /docs shows what there is.",
    405: "This address is not made for this method; see the header Allow.",
    412: "It is not as If-Match says.",
}

NOT_REACHED = "The service can not reach its database. Try again in a moment."
NOT_SET_UP = "The tables of the service are missing or too old. Try again when they are set up."

Faults = list[dict[str, str]]


class Invalid(HTTPException):
    """A well-formed request whose fields are at fault."""

    code = 422

    def __init__(self, errors: Faults) -> None:
        super().__init__("Some fields are not valid; see errors.")
        self.errors = errors


def register(app: Flask) -> None:
    """Make every error of the app a problem."""
    app.register_error_handler(HTTPException, problem)
    app.register_error_handler(DatabaseUnavailable, unavailable)
    app.register_error_handler(Exception, unexpected)


def problem(error: HTTPException) -> Response:
    """Write an HTTP error as a problem, with its headers (Allow, Retry-After, …)."""
    body: dict[str, Any] = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description,
    }
    if error.description == type(error).description:
        body["detail"] = DETAILS.get(error.code or 500, error.description)
    if isinstance(error, Invalid):
        body["errors"] = error.errors
    headers = {name: value for name, value in error.get_headers() if name != "Content-Type"}
    return answer(body, error.code or 500, headers, MEDIA_TYPE)


def unavailable(error: DatabaseUnavailable) -> Response:
    """Ask the client to come back; the reason is for the log."""
    cause = error.__cause__
    name = type(cause or error).__name__
    fields = tracing.fields()
    logs.error("database_unavailable", error=name, sqlstate=sqlstate(cause), **fields)
    detail = NOT_SET_UP if isinstance(error, SchemaMissing) else NOT_REACHED
    return problem(ServiceUnavailable(detail, retry_after=RETRY_SECONDS))


def away(detail: str) -> dict[str, Any]:
    """The problem that an event tells: the database is away, or not set up."""
    title, status = ServiceUnavailable().name, ServiceUnavailable.code
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}


def unexpected(error: Exception) -> Response:
    """Log where an error of ours came from, and tell the client nothing of it."""
    logs.error(
        "request_failed",
        error=type(error).__name__,
        sqlstate=sqlstate(error),
        frames=frames(error),
        **tracing.fields(),
    )
    return problem(InternalServerError("Something went wrong here. It has been logged."))


def sqlstate(error: BaseException | None) -> str:
    """PostgreSQL's code for an error, if it came from there."""
    return getattr(error, "sqlstate", None) or "-"


def frames(error: BaseException) -> str:
    """Where an error was raised, innermost last, as ``file:line:function``."""
    last = traceback.extract_tb(error.__traceback__)[-FRAMES:]
    return " ".join(f"{PurePath(at.filename).name}:{at.lineno}:{at.name}" for at in last)
