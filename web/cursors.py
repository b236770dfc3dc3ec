"""The cursors of lists: where to go on, sealed so that only what was given out is taken."""

import hmac
import re
from base64 import urlsafe_b64decode, urlsafe_b64encode
from uuid import UUID

from flask import current_app

from web.database import Database

SEAL_BYTES = 8
TOKEN = re.compile(r"[A-Za-z0-9_-]{32}")
NOT_OURS = "should be one that the list gave out"

READ_KEY = "select value from secret where purpose = 'cursor'"


class Cursors:
    """Writes and reads cursors; the key is the database's, and read once."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._key: bytes | None = None

    def write(self, last: UUID) -> str:
        """Point behind a job of a list."""
        return urlsafe_b64encode(last.bytes + self._seal(last.bytes)).decode()

    def read(self, cursor: str) -> UUID:
        """Read back what ``write`` made.

        :raises ValueError: when it is anything else.
        """
        if not TOKEN.fullmatch(cursor):
            raise ValueError(NOT_OURS)
        token = urlsafe_b64decode(cursor)
        job_id, seal = token[:-SEAL_BYTES], token[-SEAL_BYTES:]
        if not hmac.compare_digest(seal, self._seal(job_id)):
            raise ValueError(NOT_OURS)
        return UUID(bytes=job_id)

    def _seal(self, data: bytes) -> bytes:
        if self._key is None:
            with self._database.connection() as connection:
                [(key,)] = connection.execute(READ_KEY).fetchall()
            self._key = bytes(key)
        return hmac.digest(self._key, data, "sha256")[:SEAL_BYTES]


def get() -> Cursors:
    """The cursors of the current app."""
    cursors: Cursors = current_app.extensions["cursors"]
    return cursors
