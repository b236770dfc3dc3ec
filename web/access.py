"""Who calls, and what they may see: API keys, where the settings require them.

A key is ``jr_<id>_<secret>``. The database has a hash of the secret, which is so long and
random that a fast one will do. Who had a good key is taken at its word for a moment, so that
not every request asks the database; a key that is revoked is refused when that is over.

:source: RFC 6750, The OAuth 2.0 Authorization Framework: Bearer Token Usage.
"""

import hashlib
import hmac
import re
from dataclasses import dataclass
from time import monotonic
from typing import Any

from flask import Flask, Response, current_app, g, request
from werkzeug.exceptions import Forbidden, Unauthorized

from web.database import Database

FRESH_SECONDS = 1.0
MAX_UNKNOWN = 1000

# What needs no key; what only operators may see. Everything else is for every client.
OPEN = {
    "dashboard.page", "dashboard.asset", "health.livez", "health.readyz",
    "docs.openapi", "docs.page", "docs.start", "docs.asset",
}  # fmt: skip
OPERATORS = {
    "overview.runners", "overview.stats", "overview_events.events", "history.history",
    "metrics.metrics",
}  # fmt: skip

BEARER = re.compile(r"bearer +([^ ]+) *", re.IGNORECASE)
KEY = re.compile(r"jr_([0-9a-f]{8})_([A-Za-z0-9_-]{43})")
NO_HASH = bytes(32)
NO_KEY = "An API key is needed here: the header Authorization: Bearer jr_…"
BAD_KEY = "This API key is not valid, or not any more."
CHALLENGE = 'Bearer realm="jobrunner"'
NO_OPERATOR = "This is for operators: their keys are made by `jobrunner keys create --operator`."

FIND_KEY = """
    select
        secret_hash,
        client_id,
        operator,
        max_pending
    from api_key
    where
        id = %(id)s
        and revoked_at is null
"""


@dataclass(frozen=True)
class Caller:
    """Who calls. ``max_pending``: how many jobs may wait for it; None: no limit of its own."""

    client_id: str | None = None
    operator: bool = False
    max_pending: int | None = None


# Who calls where nobody is asked.
ANYBODY = Caller(operator=True)


@dataclass(frozen=True)
class KnownKey:
    """A key as the database had it a moment ago."""

    secret_hash: bytes
    caller: Caller
    until: float


class Keys:
    """The keys that were used here lately."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[str, KnownKey] = {}
        # Ids that there are not, and until when nobody looks for them again.
        self._unknown: dict[str, float] = {}

    def caller(self, key: str) -> Caller | None:
        """Say whose key it is; None where it is not valid.

        :raises DatabaseUnavailable: when that can't be told.
        """
        if not (match := KEY.fullmatch(key)):
            return None
        key_id, secret = match.groups()
        known = self._known.get(key_id)
        if known is None or monotonic() >= known.until:
            known = self._find(key_id) if monotonic() >= self._unknown.get(key_id, 0.0) else None
        secret_hash = hashlib.sha256(secret.encode()).digest()
        # Compared in any case: how long it takes tells nothing.
        good = hmac.compare_digest(secret_hash, known.secret_hash if known else NO_HASH)
        return known.caller if known and good else None

    def _find(self, key_id: str) -> KnownKey | None:
        until = monotonic() + FRESH_SECONDS
        with self._database.connection() as connection:
            row = connection.execute(FIND_KEY, {"id": key_id}).fetchone()
        if row is None:
            self._known.pop(key_id, None)
            if len(self._unknown) >= MAX_UNKNOWN:
                self._unknown.clear()
            self._unknown[key_id] = until
            return None
        secret_hash, *caller = row
        known = KnownKey(bytes(secret_hash), Caller(*caller), until)
        self._known[key_id] = known
        return known


def register(app: Flask, database: Database) -> None:
    """Ask who calls before each request of the app."""
    app.extensions["keys"] = Keys(database)
    app.before_request(check)
    app.after_request(vary)


def check() -> None:
    """Let in who may call.

    :raises Unauthorized: without a valid key.
    :raises Forbidden: with one that is not an operator's, where one is needed.
    """
    if request.endpoint is None or request.endpoint in OPEN:
        return
    # Not by `request.authorization`: it trips over bytes in what other schemes send.
    given = BEARER.fullmatch(request.environ.get("HTTP_AUTHORIZATION", ""))
    if given is None:
        raise NoKey(NO_KEY, CHALLENGE)
    keys: Keys = current_app.extensions["keys"]
    caller = keys.caller(given[1])
    if caller is None:
        raise NoKey(BAD_KEY, f'{CHALLENGE}, error="invalid_token"')
    if request.endpoint in OPERATORS and not caller.operator:
        raise Forbidden(NO_OPERATOR)
    g.caller = caller


def vary(response: Response) -> Response:
    """Let no cache give the answer to one key to another."""
    response.vary.add("Authorization")
    return response


class NoKey(Unauthorized):
    """The answer to who has no key, or none that is valid.

    The challenge is written here, since its values have to be quoted (RFC 9110, section 11.5).
    """

    def __init__(self, detail: str, challenge: str) -> None:
        super().__init__(detail)
        self.challenge = challenge

    def get_headers(self, *given: Any) -> list[tuple[str, str]]:
        """Give the challenge too."""
        return [*super().get_headers(*given), ("WWW-Authenticate", self.challenge)]


def caller() -> Caller:
    """Who sent the current request."""
    found: Caller = g.get("caller", ANYBODY)
    return found


def scope() -> str | None:
    """Whose jobs alone the current request may see; None: everybody's."""
    known = caller()
    return None if known.operator else known.client_id
