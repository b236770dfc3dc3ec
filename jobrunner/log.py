"""One line a move, in logfmt with fixed keys: never a text, a result or a secret."""

import logging
import sys
from datetime import UTC, datetime
from typing import Any


class Logfmt(logging.Formatter):
    """``2026-01-31T12:00:00.000Z info claimed job_id=… attempt=1``."""

    def format(self, record: logging.LogRecord) -> str:
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        fields = getattr(record, "fields", {})
        pairs = "".join(f" {key}={_plain(value)}" for key, value in fields.items())
        level = record.levelname.lower()
        return f"{at.replace('+00:00', 'Z')} {level} {_one_line(record.getMessage())}{pairs}"


def set_up() -> None:
    """Send everything from info up to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(Logfmt())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)
    # psycopg warns of each lost connection; the runner says so itself, once.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def info(move: str, **fields: Any) -> None:
    """Log a move that is as it should be."""
    logging.getLogger("jobrunner").info(move, extra={"fields": fields})


def warning(move: str, **fields: Any) -> None:
    """Log a move that somebody may want to look into."""
    logging.getLogger("jobrunner").warning(move, extra={"fields": fields})


def error(move: str, **fields: Any) -> None:
    """Log what somebody should look into."""
    logging.getLogger("jobrunner").error(move, extra={"fields": fields})


def _plain(value: Any) -> str:
    """Write a value as logfmt wants it: quoted where it has to be, on one line."""
    if isinstance(value, float):
        return f"{value:.3f}"
    text = _one_line(str(value))
    if text and not any(character in text for character in ' "='):
        return text
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _one_line(text: str) -> str:
    """Escape what would end the line or move a terminal's cursor."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)
