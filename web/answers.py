"""Writes an answer as JSON."""

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from math import ceil
from typing import Any
from uuid import UUID

from flask import Response, request
from pydantic import BaseModel
from werkzeug.datastructures import Headers
from werkzeug.exceptions import PreconditionFailed

UNKNOWN_SECONDS = 2
MAX_SECONDS = 30


class Answer(Response):
    """A response whose headers are written as they are.

    Werkzeug looks whether an address has to be escaped and how long the body is; that takes
    longer than it does to write a job.
    """

    def get_wsgi_headers(self, environ: dict[str, Any]) -> Headers:
        """Give the headers; those of an answer without a body as ever."""
        if self.status_code in (204, 304):
            return super().get_wsgi_headers(environ)
        return self.headers


def answer(
    body: object,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    mimetype: str = "application/json",
) -> Response:
    """Make a response of a model, or of anything that is JSON."""
    return of_text(ENCODER.encode(body), status, headers, mimetype)


def of_text(
    text: str,
    status: int = 200,
    headers: Mapping[str, str] | None = None,
    mimetype: str = "application/json",
) -> Response:
    """Make a response of what is JSON already; its headers are ASCII."""
    data = text.encode()
    given = {"Content-Type": mimetype, "Content-Length": str(len(data)), **(headers or {})}
    return Answer(data, status=status, headers=given)


def conditional(response: Response) -> Response:
    """Give an answer its ETag, and 304 without a body where the client has it already.

    :raises PreconditionFailed: where the client wants it as it is not, by ``If-Match``.
    :source: RFC 9110, section 13.1.
    """
    response.add_etag()
    response.make_conditional(request)
    if response.status_code == PreconditionFailed.code:
        raise PreconditionFailed
    return response


def plain(value: object) -> Any:
    """Say in JSON what JSON has no type for; times are RFC 3339 in UTC."""
    if isinstance(value, BaseModel):
        return dict(value)
    if isinstance(value, UUID):
        return str(value)
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat().replace("+00:00", "Z")
    raise TypeError(f"{type(value).__name__} is not JSON")


ENCODER = json.JSONEncoder(default=plain)


def retry_after(seconds: float | None) -> str:
    """Say when to ask again: when the job should be done, within reason."""
    if seconds is None:
        seconds = UNKNOWN_SECONDS
    return str(min(max(ceil(seconds), 1), MAX_SECONDS))
