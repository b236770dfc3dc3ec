"""How long a request may spend on the database, in all: each single limit begins anew.

A client has its answer within 10 s (contract of the API), however many steps it takes.
"""

from time import monotonic

from flask import g, has_request_context

REQUEST_SECONDS = 8.5


def remaining() -> float:
    """Seconds that the current request has left, from its first use of the database on."""
    if not has_request_context():
        return REQUEST_SECONDS
    if "database_until" not in g:
        g.database_until = monotonic() + REQUEST_SECONDS
    return max(0.0, float(g.database_until - monotonic()))


def renew() -> None:
    """Begin anew: the request has waited for something else meanwhile."""
    g.pop("database_until", None)
