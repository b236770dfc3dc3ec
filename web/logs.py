"""One line a move, in logfmt with fixed keys: never a text, a result or a secret."""

import logging
import os
import re
from contextlib import suppress
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Any

from gunicorn.glogging import Logger  # type: ignore[import-untyped]

STDERR = 2
# Where the id of a request stands in its WSGI environment, and what it has submitted.
REQUEST_ID = "jobrunner.request_id"
SUBMITTED = "jobrunner.submitted"
REFUSED_HEAD = "Invalid request"

ACCEPTED = str(HTTPStatus.ACCEPTED.value)

is_plain = re.compile(r"[\w.:/,+@%()\[\]-]+", re.ASCII).fullmatch

logger = logging.getLogger("web")


class Logfmt(logging.Formatter):
    """``2026-01-31T12:00:00.000Z info submitted job_id=… model=sentiment``."""

    def format(self, record: logging.LogRecord) -> str:
        at, level = datetime.fromtimestamp(record.created, UTC), record.levelname.lower()
        return _line(at, level, record.getMessage(), _fields(record))


class LineHandler(logging.Handler):
    """Writes each line to standard error with one system call, and takes no lock.

    With the lock of a StreamHandler, all threads would queue up behind the one that waits
    for the interpreter after its write. Lines are short; the system keeps each in one piece.
    """

    def handle(self, record: logging.LogRecord) -> bool:
        """Pass on what the filters let through, without the lock."""
        if passed := self.filter(record):
            self.emit(passed if isinstance(passed, logging.LogRecord) else record)
        return bool(passed)

    def emit(self, record: logging.LogRecord) -> None:
        try:
            _write(self.format(record))
        except Exception:
            self.handleError(record)


class GunicornLogger(Logger):  # type: ignore[misc]
    """Logs a request by its path, without the query that may hold anything.

    A job that was accepted has a line of its own. (gunicorn's own access log copies all
    headers for each line, whatever its format names.)
    """

    def access(self, resp: Any, req: Any, environ: dict[str, Any], request_time: Any) -> None:
        # Of a head that gunicorn refuses there is neither a code nor a path.
        status = str(resp.status)[:3]
        if status == ACCEPTED and SUBMITTED in environ:
            return
        info(
            "request",
            method=environ.get("REQUEST_METHOD", "-"),
            path=environ.get("PATH_INFO", "-"),
            status=status,
            seconds=f"{request_time.total_seconds():.3f}",
            request_id=environ.get(REQUEST_ID, "-"),
        )

    def warning(self, msg: str, *args: Any, **kwargs: Any) -> None:
        """Warn, but do not quote a head that makes no sense: a text may stand in it."""
        if msg.startswith(REFUSED_HEAD):
            msg, args = REFUSED_HEAD.lower(), ()
        super().warning(msg, *args, **kwargs)


class NoStalledClients(logging.Filter):
    """Drops gunicorn's traceback for a client that sent half a request and then nothing."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and isinstance(record.exc_info[1], BlockingIOError))


def info(move: str, **fields: Any) -> None:
    """Log a move that is as it should be.

    Past the machinery of ``logging``, which takes a tenth of the time of a request.
    """
    if logger.isEnabledFor(logging.INFO):
        _write(_line(datetime.now(UTC), "info", move, fields))


def tell_submitted(environ: dict[str, Any]) -> None:
    """Log what a request has submitted, unless that was done before."""
    if submitted := environ.get(SUBMITTED):
        environ[SUBMITTED] = None
        at, move, fields = submitted
        if logger.isEnabledFor(logging.INFO):
            _write(_line(at, "info", move, fields))


def warning(move: str, **fields: Any) -> None:
    """Log what somebody may want to look into."""
    logger.warning(move, extra={"fields": fields})


def error(move: str, **fields: Any) -> None:
    """Log what somebody should look into."""
    logger.error(move, extra={"fields": fields})


def plain(value: object) -> str:
    """Write a value as logfmt wants it: quoted where it has to be, on one line."""
    text = str(value)
    if is_plain(text):
        return text
    text = one_line(text)
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def one_line(text: str) -> str:
    """Escape what would end the line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _line(at: datetime, level: str, move: str, fields: dict[str, Any]) -> str:
    time = at.isoformat(timespec="milliseconds").removesuffix("+00:00")
    pairs = "".join([f" {key}={plain(value)}" for key, value in fields.items()])
    return f"{time}Z {level} {one_line(move)}{pairs}"


def _write(line: str) -> None:
    """Write a line, if it can be written: no reason to fail a request that has been done."""
    with suppress(OSError):
        os.write(STDERR, (line + "\n").encode("utf-8", "replace"))


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    fields: dict[str, Any] = getattr(record, "fields", {})
    if record.exc_info and record.exc_info[0]:
        return fields | {"error": record.exc_info[0].__name__}
    return fields
