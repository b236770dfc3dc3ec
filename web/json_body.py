"""Reads a request's body as JSON, as strictly as RFC 8259 allows.

Python's reader takes NaN, UTF-16 and duplicate keys, and fails in ways of its own on deep
nesting or endless digits; PostgreSQL and other clients would read such a body differently,
so all of it is refused.
"""

import json
from time import monotonic
from typing import Any, NoReturn

from flask import request
from gunicorn.http.errors import ParseException  # type: ignore[import-untyped]
from werkzeug.exceptions import (
    BadRequest,
    RequestEntityTooLarge,
    RequestTimeout,
    UnsupportedMediaType,
)

from web.deadlines import deadlines

MAX_BYTES = 1024 * 1024
PIECE_BYTES = 64 * 1024

# A body that comes byte by byte holds a thread.
BODY_SECONDS = 15.0

# What nearly all say; everything else is taken to pieces first.
JSON = "application/json"
ENCODED = "HTTP_CONTENT_ENCODING"

TOO_SLOW = "The body did not arrive in time."
TOO_LARGE = "The body is larger than 1 MiB."


def read() -> Any:
    """Read the body of the current request.

    :raises UnsupportedMediaType: when it is not plain ``application/json`` in UTF-8.
    :raises RequestEntityTooLarge: over MAX_BYTES, also where no length was given.
    :raises BadRequest: when it is broken off, or not JSON.
    """
    require_json()
    return parse(read_bytes())


def require_json() -> None:
    """Refuse another content type, another charset, and a compressed body."""
    if request.environ.get("CONTENT_TYPE") == JSON and ENCODED not in request.environ:
        return
    charset = request.mimetype_params.get("charset", "utf-8").lower()
    if request.mimetype != JSON or charset not in ("utf-8", "utf8"):
        raise UnsupportedMediaType("Send the body with Content-Type: application/json.")
    if request.headers.get("Content-Encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("Send the body without Content-Encoding.")


def read_bytes() -> bytes:
    """Read the whole body, but not more than MAX_BYTES of it.

    :raises RequestTimeout: when that took longer than BODY_SECONDS.
    """
    length = request.content_length or 0
    if length > MAX_BYTES:
        raise RequestEntityTooLarge(TOO_LARGE)
    client, started = request.environ.get("gunicorn.socket"), monotonic()
    if client:
        deadlines.set(client, BODY_SECONDS)
    try:
        body = _read_pieces(length)
    finally:
        if client:
            deadlines.clear(client)
        if monotonic() > started + BODY_SECONDS:
            raise RequestTimeout(TOO_SLOW)
    if len(body) < length:
        raise BadRequest("The body is shorter than its Content-Length.")
    return body


def _read_pieces(length: int) -> bytes:
    """Read to the end, or until that length is there, where it is known."""
    body = bytearray()
    while piece := _read_piece():
        body += piece
        if len(body) > MAX_BYTES:
            raise RequestEntityTooLarge(TOO_LARGE)
        if len(body) == length:
            break
    return bytes(body)


def _read_piece() -> bytes:
    try:
        return request.stream.read(PIECE_BYTES)
    except BlockingIOError:
        # The socket's time limit, which gunicorn_config sets.
        raise RequestTimeout(TOO_SLOW) from None
    except (OSError, ParseException):
        raise BadRequest("The body is broken off or wrongly chunked.") from None


def parse(body: bytes) -> Any:
    """Parse strict JSON.

    :raises BadRequest: saying where it is wrong, never what stands there.
    """
    try:
        return DECODER.decode(body.decode("utf-8"))
    except UnicodeDecodeError:
        raise BadRequest("The body is not valid UTF-8.") from None
    except json.JSONDecodeError as error:
        where = f"line {error.lineno}, column {error.colno}"
        raise BadRequest(f"The body is not valid JSON: see {where}.") from None
    except RecursionError:
        raise BadRequest("The body is nested too deeply.") from None
    except ValueError:
        raise BadRequest("The body holds a number with too many digits.") from None


def _refuse_constant(name: str) -> NoReturn:
    raise BadRequest("The body is not valid JSON: NaN and Infinity are not numbers there.")


def _refuse_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    members = dict(pairs)
    if len(members) != len(pairs):
        raise BadRequest("The body names a field of an object twice.")
    return members


DECODER = json.JSONDecoder(parse_constant=_refuse_constant, object_pairs_hook=_refuse_duplicates)
