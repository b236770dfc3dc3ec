"""``Idempotency-Key``: the same key with the same body gives the same job, however often.

The database keeps the key with the job and a hash of what was submitted, and lets no client
have two jobs with one key. So it holds across processes and restarts, as long as the job is
there.

:source: draft-ietf-httpapi-idempotency-key-header.
"""

import hashlib
import json
import re
from collections.abc import Callable
from typing import NamedTuple
from uuid import UUID

from flask import request
from psycopg.errors import UniqueViolation
from pydantic import BaseModel
from werkzeug.exceptions import BadRequest

from web import access, budget, database
from web.errors import DatabaseUnavailable
from web.problems import Invalid

HEADER = "Idempotency-Key"
IN_ENVIRON = "HTTP_IDEMPOTENCY_KEY"
# What is printable in ASCII, of a length that an index takes.
KEY = re.compile(r"[\x21-\x7e](?:[\x20-\x7e]{0,253}[\x21-\x7e])?")
NO_KEY = f"The header {HEADER} should be 1 to 255 printable ASCII characters."

FIND_KEY = """
    select
        id,
        batch_id,
        input_hash
    from job
    where
        coalesce(client_id, '') = coalesce(%(client)s, '')
        and idempotency_key = %(key)s
"""


class Key(NamedTuple):
    """What a client named its submission, and the hash of what it submitted."""

    client_id: str | None
    text: str
    hash: bytes

    def for_client(self, client_id: str | None) -> "Key":
        """The key of a job that is another client's than who asks, among no keys of his own."""
        if client_id == self.client_id:
            return self
        # A character that no client can send.
        return Key(client_id, f"\x01{self.client_id or ''}\x01{self.text}", self.hash)


class Found(NamedTuple):
    """What a key names: a job, the first of a batch where that is not null."""

    job_id: UUID
    batch_id: UUID | None


def read_key(submitted: BaseModel | None = None) -> Key | None:
    """Read the key of the current request, if it has one; of what it submits, if it has a body.

    :raises BadRequest: when it is none.
    """
    if (text := request.environ.get(IN_ENVIRON)) is None:
        return None
    if not KEY.fullmatch(text):
        raise BadRequest(NO_KEY)
    body = submitted.model_dump(exclude_defaults=True) if submitted else None
    said = json.dumps([request.path.lower(), body], sort_keys=True)
    return Key(access.caller().client_id, text, hashlib.sha256(said.encode("utf-8")).digest())


def find(key: Key) -> Found | None:
    """Find what was submitted with the key.

    :raises Invalid: when it was something else.
    """
    values = {"key": key.text, "client": key.client_id}
    with database.get().connection() as connection:
        row = connection.execute(FIND_KEY, values).fetchone()
    if row is None:
        return None
    job_id, batch_id, input_hash = row
    if bytes(input_hash) != key.hash:
        raise Invalid([{"header": HEADER, "detail": "was used with another body"}])
    return Found(job_id, batch_id)


def once(key: Key, insert: Callable[[], Found]) -> Found:
    """Insert what was not found with the key; or give what somebody has inserted meanwhile.

    :raises Invalid: when that was something else.
    :raises DatabaseUnavailable: when neither can be done in time.
    """
    while budget.remaining() > 0:
        try:
            return insert()
        except UniqueViolation:
            # It may be deleted before we find it: then again.
            if found := find(key):
                return found
    raise DatabaseUnavailable
